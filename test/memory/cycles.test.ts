// Four hundred lives and two hundred crashes of a plugin: afterwards the kernel is as it was.
import t, { type Test } from 'tap';
import { eventually, rawRequest, startTestKernel, type TestKernel } from '../helpers/kernel.js';
import { KIB, MIB, sample, told, type Sample } from '../helpers/scales.js';

const LIVES = 400;
const CRASHES = 200;
/** Plugins that go round at the same time, so that a machine with several cores is not idle meanwhile. */
const ABREAST = 2;

const plain = (name: string): string => `
  export default {
    name: '${name}', version: '1.0.0',
    services: { '${name}.echo': (value) => value },
    init({ events }) {
      events.subscribe('${name}.ping', () => {});
    },
    routes(app) {
      app.get('/', async () => ({ well: true }));
      app.post('/crash', () => { setImmediate(() => { throw new Error('crash'); }); return new Promise(() => {}); });
    },
  };`;

t.setTimeout(600_000);

async function kernelWith(t: Test): Promise<{ readonly kernel: TestKernel; readonly names: readonly string[] }> {
  const kernel = await startTestKernel(t, { LOG_LEVEL: 'fatal' }); // the log of a test is kept, and would be weighed
  const names = Array.from({ length: ABREAST }, (_, i) => `round-${i}`);
  for (const name of names) await kernel.writePlugin(name, plain(name));
  return { kernel, names };
}

function compare(t: Test, middle: Sample, late: Sample, lives: number): void {
  t.comment(`middle: ${told(middle)}`);
  t.comment(`late: ${told(late)}`);
  t.equal(late.threads, middle.threads, 'threads are as many as before');
  t.strictSame(late.handles, middle.handles, 'and so are the handles and ports that keep the process awake');
  t.equal(late.listeners, middle.listeners, 'and the listeners of the process');
  t.ok(late.heap - middle.heap < lives * 4 * KIB, 'the heap grows by less than 4 KiB per life');
  t.ok(late.rss - middle.rss < Math.max(lives * 64 * KIB, 48 * MIB), 'resident memory has come to its level');
}

t.test(`${LIVES} times load, start, stop and unload`, async (t) => {
  const { kernel, names } = await kernelWith(t);
  const { supervisor } = kernel.kernel;
  const live = async (times: number): Promise<Sample> => {
    await Promise.all(names.map(async (name) => {
      for (let i = 0; i < times / ABREAST; i += 1) for (const verb of ['load', 'start', 'stop', 'unload'] as const) await supervisor.perform(verb, name);
    }));
    return sample(kernel);
  };
  await live(LIVES / 4);
  const middle = await live(LIVES / 4);
  const late = await live(LIVES / 2);
  t.equal(supervisor.lives.length, 0, 'no life is kept');
  compare(t, middle, late, LIVES / 2);
});

t.test(`${CRASHES} crashes and restarts`, async (t) => {
  const { kernel, names } = await kernelWith(t);
  const { supervisor } = kernel.kernel;
  const otherCauses: string[] = [];
  t.teardown(supervisor.onTransition(({ to, cause }) => { if (to === 'failed' && !/crash/.test(cause)) otherCauses.push(cause); }));
  for (const name of names) for (const verb of ['load', 'start'] as const) await supervisor.perform(verb, name);
  const crash = async (times: number): Promise<Sample> => {
    await Promise.all(names.map(async (name) => {
      for (let i = 0; i < times / ABREAST; i += 1) {
        const { status, text } = await rawRequest(kernel.url, 'POST', `/plugins/${name}/crash`);
        if (status !== 502) t.fail(`the crash was answered ${status} ${text}`);
        await eventually(`${name} runs again`, 10_000, async () => (supervisor.lives.find(({ record }) => record.name === name)?.record.is('running') === true ? true : undefined));
        await supervisor.perform('start', name); // an operator's pardon: five deaths in a minute would be too many
      }
    }));
    return sample(kernel);
  };
  await crash(CRASHES / 4);
  const middle = await crash(CRASHES / 4);
  const late = await crash(CRASHES / 2);
  for (const name of names) {
    const { requests, restarts } = await supervisor.details(name);
    t.equal(restarts, CRASHES / ABREAST, `${name} came back each time`);
    t.strictSame([requests.inFlight, requests.queued, requests.waiting, requests.lost], [0, 0, 0, CRASHES / ABREAST], 'and nothing but the fatal requests was lost');
  }
  t.strictSame(otherCauses, [], 'they died of nothing but the crashes');
  compare(t, middle, late, CRASHES / 2);
});
