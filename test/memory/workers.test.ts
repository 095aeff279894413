// What a plugin's worker costs while it idles, and that nothing of it stays behind when it is gone.
import { request as httpRequest } from 'node:http';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import { startTestKernel, type TestKernel } from '../helpers/kernel.js';
import { KIB, mib, MIB, sample, told, weigh, type Sample } from '../helpers/scales.js';

/** Workers of each kind that are weighed: enough that the noise of one gc is spread over many. */
const WEIGHED = 10;
const CYCLES = 100;

/** Collects the isolate it runs in, and answers the bytes left on its heap; tap runs node with --expose-gc, which holds for all threads. */
const HEAP_AFTER_GC = `(() => {
  gc();
  gc();
  return process.memoryUsage().heapUsed;
})()`;

const scales = (name: string): string => `
  export default {
    name: '${name}', version: '1.0.0',
    routes(app) { app.get('/', async () => ({ heapUsed: ${HEAP_AFTER_GC} })); },
  };`;

const bareWorker = `
  const { parentPort } = require('node:worker_threads');
  parentPort.on('message', () => parentPort.postMessage(${HEAP_AFTER_GC}));`;

t.setTimeout(300_000);

t.test('an idle plugin weighs a small multiple of a bare worker thread', async (t) => {
  const kernel = await startTestKernel(t, { LOG_LEVEL: 'warn' });
  const names = Array.from({ length: WEIGHED + 1 }, (_, i) => `idle-${i}`);
  await Promise.all(names.map((name) => kernel.writePlugin(name, scales(name))));
  // The first pays for what all share: esbuild's process, the kernel's own code and the threads of Node's pool.
  await boot(kernel, names[0]!);

  const before = await weigh();
  for (const name of names.slice(1)) await boot(kernel, name);
  const pluginHeaps: number[] = [];
  for (const name of names.slice(1)) pluginHeaps.push((await kernel.get(`/plugins/${name}/`)).json.heapUsed as number);
  const withPlugins = await weigh();

  // On top and not instead, because memory that ended threads leave behind is used again.
  const workers = Array.from({ length: WEIGHED }, () => new Worker(bareWorker, { eval: true, execArgv: [], env: {} }));
  t.teardown(() => Promise.all(workers.map((worker) => worker.terminate())));
  const bareHeaps = await Promise.all(workers.map(async (worker) => {
    worker.postMessage('weigh');
    return (await once(worker, 'message') as [number])[0];
  }));
  const withBare = await weigh();

  const plugin = { rss: (withPlugins.rss - before.rss) / WEIGHED, heap: mean(pluginHeaps) };
  const bare = { rss: (withBare.rss - withPlugins.rss) / WEIGHED, heap: mean(bareHeaps) };
  const inKernel = (withPlugins.heap - before.heap) / WEIGHED;
  t.comment(`RSS per idle worker: plugin ${mib(plugin.rss)}, bare ${mib(bare.rss)}, ratio ${(plugin.rss / bare.rss).toFixed(2)}`);
  t.comment(`heap per idle worker: plugin ${mib(plugin.heap)}, bare ${mib(bare.heap)}, ratio ${(plugin.heap / bare.heap).toFixed(2)}`);
  t.comment(`heap of the kernel per plugin: ${(inKernel / KIB).toFixed(0)} KiB`);
  t.ok(plugin.rss < 4 * bare.rss, 'resident memory is under four times that of a bare worker');
  t.ok(plugin.heap < 5 * bare.heap, 'heap is under five times that of a bare worker');
  t.ok(inKernel < plugin.heap / 10, 'the kernel itself keeps less than a tenth of that for it');
});

/** Touches all that the kernel holds for a plugin: requests, a lent connection, a service, an event, the log. */
const versatile = `
  export default {
    name: 'versatile', version: '1.0.0',
    optional: ['versatile.echo'],
    services: { 'versatile.echo': (value) => value },
    init({ events, log }) {
      events.subscribe('versatile.ping', () => log.debug('pinged'));
    },
    routes(app, { db, services, events }) {
      app.get('/', async () => {
        events.publish('versatile.ping', {});
        const { rows } = await db.query('SELECT 1 AS one');
        return services.get('versatile.echo')(rows[0].one);
      });
    },
  };`;

t.test(`${CYCLES} lives of a plugin leave nothing behind`, { timeout: 280_000 }, async (t) => {
  // With one connection: whether a life finds that of the life before cleaned already, or opens another, is a matter of chance.
  const kernel = await startTestKernel(t, { LOG_LEVEL: 'warn', DATABASE_POOL_MAX: '1' });
  await kernel.writePlugin('versatile', versatile);
  const { supervisor } = kernel.kernel;
  const lives: WeakRef<object>[] = [];
  const live = async (): Promise<void> => {
    await supervisor.perform('load', 'versatile');
    await supervisor.perform('start', 'versatile');
    lives.push(new WeakRef(supervisor.lives[0]!));
    const answer = await get(`${kernel.url}/plugins/versatile`);
    if (answer !== '1') throw new Error(`the plugin answered ${answer}`);
    await supervisor.perform('stop', 'versatile');
    await supervisor.perform('unload', 'versatile');
  };
  const repeat = async (times: number): Promise<Sample> => {
    for (let i = 0; i < times; i += 1) await live();
    return sample(kernel);
  };

  await repeat(CYCLES / 4);
  const middle = await repeat(CYCLES / 4);
  const began = performance.now();
  const late = await repeat(CYCLES / 2);
  t.comment(`one life, request included: ${((performance.now() - began) / (CYCLES / 2)).toFixed(0)} ms`);
  t.comment(`after ${CYCLES / 2} lives: ${told(middle)}`);
  t.comment(`after ${CYCLES} lives: ${told(late)}`);

  const alive = lives.filter((ref) => ref.deref() !== undefined).length;
  t.comment(`lives still in memory: ${alive} of ${lives.length}`);
  // tap follows asynchronous work and may remember the end of the last ones; a leak would keep all.
  t.ok(alive <= 5, 'they are garbage, and their compartments with them');
  t.equal(late.threads, middle.threads, 'threads are as many as before');
  t.strictSame(late.handles, middle.handles, 'and so are the handles that keep the process awake');
  t.ok(late.heap - middle.heap < (CYCLES / 2) * 16 * KIB, 'the heap grows by less than 16 KiB per life, of which a leaked worker would take more');
  t.ok(late.rss - middle.rss < (CYCLES / 2) * MIB, 'resident memory grows by less than 1 MiB per life');
});

async function boot(kernel: TestKernel, name: string): Promise<void> {
  await kernel.verb('load', name);
  const { status } = await kernel.verb('start', name);
  if (status !== 200) throw new Error(`${name} did not start`);
}

/** Over a connection of its own, so that no kept one is among the handles. */
function get(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    httpRequest(url, { agent: false }, (res) => {
      let body = '';
      res.setEncoding('utf8').on('data', (chunk: string) => (body += chunk)).once('close', () => resolve(body));
    }).once('error', reject).end();
  });
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
