// A plugin in several workers: requests are shared out among them, one may end while the others carry on, and to the operator they are one plugin.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { Census } from '../../kernel/plugins/census.js';
import type { PluginDetails } from '../../kernel/plugins/status.js';
import { eventually, startTestKernel, type Answer, type TestKernel } from '../helpers/kernel.js';

const MANY = `
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { threadId } from 'node:worker_threads';
let heard = 0;
const held = [];
export default {
  name: 'many', version: '1.0.0', threads: 3,
  limits: { concurrency: 4, queue: 2, hangTimeoutMs: 400 },
  services: { 'many.who': { thread: () => threadId } },
  async init(ctx) {
    await ctx.db.query('CREATE TABLE IF NOT EXISTS many (thread int)');
    ctx.events.subscribe('many.hail', () => { heard += 1; });
    ctx.events.subscribe('many.release', () => { for (const resolve of held.splice(0)) resolve(); });
  },
  async start(ctx) {
    if (existsSync(new URL('./broken.txt', import.meta.url))) throw new Error('a plank is missing');
    // Who finds the mark is the first; those who come after it take their time.
    if ((await ctx.db.query('SELECT FROM many WHERE thread = -2')).rowCount > 0) await sleep(5_000);
    await ctx.db.query('UPDATE many SET thread = -2 WHERE thread = -1');
    await ctx.db.query('INSERT INTO many VALUES ($1)', [threadId]);
  },
  async stop(ctx) { ctx.log.info({ threadId }, 'one stops'); },
  routes(app, ctx) {
    app.get('/', async () => ({ threadId, heard }));
    app.get('/held', async () => { await new Promise((resolve) => held.push(resolve)); return { threadId }; });
    app.post('/mark', async () => { await ctx.db.query('INSERT INTO many VALUES (-1)'); return {}; });
    app.post('/exit', async () => { process.exit(1); });
    app.get('/poison', async () => { process.exit(1); });
    app.get('/loop', () => { for (;;); });
    app.post('/hail', async () => { ctx.events.publish('many.hail', 1); return {}; });
    app.get('/started', async () => (await ctx.db.query('SELECT count(*)::int AS n, count(DISTINCT thread)::int AS threads FROM many')).rows[0]);
  },
};`;
const ASKS = `
export default { name: 'asks', version: '1.0.0', optional: ['many.who'], routes(app, ctx) {
  app.get('/', async () => ({ thread: await ctx.services.get('many.who').thread() }));
  app.post('/release', async () => { ctx.events.publish('many.release', 1); return {}; });
} };`;

const threadsOf = ({ workers }: PluginDetails): (number | null)[] => workers.map(({ threadId }) => threadId);
const complete = (kernel: TestKernel, count: number): Promise<PluginDetails> => eventually(`${count} workers serve`, 10_000, async () => {
  const details = await kernel.status('many');
  return details.status === 'running' && details.workers.length === count ? details : undefined;
});
const counts = ({ kernel }: TestKernel): Pick<Census, 'requests' | 'services' | 'watched' | 'subscriptions'> => {
  const { requests, services, watched, subscriptions } = kernel.supervisor.census();
  return { requests, services, watched, subscriptions };
};

async function startMany(t: Test, environment: Record<string, string> = {}): Promise<TestKernel> {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'hello', ...environment });
  await kernel.writePlugin('many', MANY, 'plugin.js');
  await kernel.writePlugin('asks', ASKS, 'plugin.js');
  for (const name of ['many', 'asks']) {
    await kernel.verb('load', name);
    const { status, text } = await kernel.verb('start', name);
    if (status !== 200) throw new Error(text);
  }
  return kernel;
}

/** Ends one worker. Each time by another URL, because one that ended two would be refused. */
let exits = 0;
const endOne = (kernel: TestKernel): Promise<Answer> => kernel.request('POST', `/plugins/many/exit?${(exits += 1)}`);

/** Lets go of those who are held, who are so many at first: the places of some are taken by others that have waited. */
async function release(kernel: TestKernel, held: number): Promise<void> {
  for (let left = held; left > 0;) {
    await kernel.request('POST', '/plugins/asks/release');
    left = (await kernel.status('many')).requests.inFlight;
  }
}

/** Asks until told to stop; all answers but 200 are returned. */
function steady(kernel: TestKernel, path: string, clients: number): () => Promise<readonly Answer[]> {
  let on = true;
  const bad: Answer[] = [];
  const done = Promise.all(Array.from({ length: clients }, async () => {
    while (on) {
      const answer = await kernel.get(path);
      if (answer.status !== 200) bad.push(answer);
    }
  }));
  return async () => {
    on = false;
    await done;
    return bad;
  };
}

t.test('a plugin of three threads', async (t) => {
  const kernel = await startMany(t);

  await t.test('has three workers, each with all of its hooks, when its start is answered', async (t) => {
    const details = await kernel.status('many');
    t.match(details, { status: 'running', threads: 3, workers: [{ load: 0 }, {}, {}], services: ['many.who'] });
    t.equal(details.workers.length, 3);
    t.equal(new Set(threadsOf(details)).size, 3);
    t.equal(new Set(details.workers.map(({ generation }) => generation)).size, 3, 'each is a generation');
    t.strictSame((await kernel.get('/plugins/many/started')).json, { n: 3, threads: 3 });
    t.equal(details.transitions.filter(({ to }) => to === 'running').length, 1, 'and came up once');
  });

  await t.test('shares requests out evenly, and refuses those beyond all places', async (t) => {
    const all = Promise.all(Array.from({ length: 24 }, () => kernel.get('/plugins/many/held')));
    const { requests, workers } = await eventually('all are there', 5_000, async () => {
      const details = await kernel.status('many');
      return details.requests.inFlight + details.requests.queued + details.requests.shed === 24 ? details : undefined;
    });
    t.match(requests, { inFlight: 12, queued: 6, shed: 6 });
    t.strictSame(workers.map(({ load }) => load), [6, 6, 6]);
    await release(kernel, 12);
    const answers = await all;
    const served = answers.filter(({ status }) => status === 200);
    t.equal(served.length, 18, 'three times four at once, three times two that wait');
    const shares = new Map<number, number>();
    for (const { json } of served) shares.set(json.threadId, (shares.get(json.threadId) ?? 0) + 1);
    t.strictSame([...shares.values()], [6, 6, 6]);
    for (const { status, json } of answers) if (status !== 200) t.match({ status, json }, { status: 503, json: { code: 'PLUGIN_OVERLOADED' } });
  });

  await t.test('serves on when one of them ends, and has three again', async (t) => {
    const before = await kernel.status('many');
    const rest = counts(kernel);
    const finish = steady(kernel, '/plugins/many/', 4);
    t.equal((await endOne(kernel)).status, 502, 'whose request it was hears of it');
    t.equal((await kernel.status('many')).status, 'running');
    const after = await complete(kernel, 3);
    t.strictSame((await finish()).map(({ text }) => text), [], 'and nobody else');
    t.equal(after.transitions.length, before.transitions.length, 'the plugin itself has not changed its state');
    t.match(after, { restarts: before.restarts + 1, deaths: [{ kind: 'crashed', cause: 'it called process.exit(1)' }] });
    t.equal(threadsOf(after).filter((thread) => threadsOf(before).includes(thread)).length, 2, 'two of the workers are the same');
    t.strictSame(counts(kernel), rest, 'and nothing is left of the third');
    t.ok(kernel.logLines.some(({ msg, plugin }) => plugin === 'many' && /one of its workers ended, the others carry on/.test(msg)));
  });

  await t.test('serves on when one of them hangs', async (t) => {
    const hung = kernel.get('/plugins/many/loop');
    await eventually('it hangs', 2_000, async () => ((await kernel.status('many')).workers.some(({ load }) => load === 1) ? true : undefined));
    let longest = 0;
    for (let i = 0; i < 20; i += 1) {
      const began = performance.now();
      t.equal((await kernel.get('/plugins/many/')).status, 200);
      longest = Math.max(longest, performance.now() - began);
    }
    t.ok(longest < 300, `the others are not waiting for it: the slowest took ${Math.round(longest)} ms`);
    t.equal((await kernel.status('many')).status, 'running');
    t.match(await hung, { status: 500, json: { code: 'REQUEST_REFUSED' } }, 'a request that ended two of them is not given to the third');
    t.match((await complete(kernel, 3)).deaths.slice(-2), [{ kind: 'unresponsive' }, { kind: 'unresponsive' }]);
  });

  await t.test('loses two of them to a poisonous request, and the third never sees it', async (t) => {
    const { deaths } = await kernel.status('many');
    t.match(await kernel.get('/plugins/many/poison'), { status: 500, json: { code: 'REQUEST_REFUSED' } });
    t.equal((await kernel.status('many')).deaths.length, deaths.length + 2);
    t.equal((await kernel.get('/plugins/many/')).status, 200);
  });

  await t.test('has its missing workers at once when the operator says start', async (t) => {
    t.equal((await kernel.verb('start', 'many')).json.workers.length, 3);
  });

  await t.test('comes back as a whole when the last one ends', async (t) => {
    const before = await kernel.status('many');
    await Promise.all([endOne(kernel), endOne(kernel), endOne(kernel)]);
    const after = await complete(kernel, 3);
    t.strictSame(after.transitions.slice(before.transitions.length).map(({ to }) => to), ['failed', 'restarting', 'initialized', 'mounted', 'started', 'running']);
    t.equal((await kernel.get('/plugins/many/')).status, 200);
  });

  await t.test('keeps its services, and each of its workers hears of events', async (t) => {
    const served = (await kernel.get('/plugins/asks/')).json.thread as number;
    t.ok(threadsOf(await kernel.status('many')).includes(served));
    const others = threadsOf(await kernel.status('many')).filter((thread) => thread !== served);
    while (threadsOf(await kernel.status('many')).includes(served)) {
      await complete(kernel, 3);
      await endOne(kernel);
    }
    const next = await eventually('another one is asked', 2_000, async () => {
      const { status, json } = await kernel.get('/plugins/asks/');
      return status === 200 && json.thread !== served ? json.thread as number : undefined;
    });
    t.ok(others.includes(next) || threadsOf(await complete(kernel, 3)).includes(next), 'one that is there');
    await complete(kernel, 3);
    await kernel.request('POST', '/plugins/many/hail');
    const heard = new Map<number, number>();
    await eventually('all have heard', 5_000, async () => {
      const answers = await Promise.all(Array.from({ length: 12 }, () => kernel.get('/plugins/many/')));
      for (const { json } of answers) heard.set(json.threadId, json.heard);
      return heard.size === 3 && [...heard.values()].every((times) => times === 1) ? true : undefined;
    });
  });

  await t.test('carries on with fewer when a further one cannot start', async (t) => {
    await kernel.writePlugin('many', 'x', 'broken.txt');
    await endOne(kernel);
    await eventually('it was tried', 10_000, async () => (kernel.logLines.some(({ msg }) => /a plank is missing/.test(msg)) ? true : undefined));
    t.match(await kernel.status('many'), { status: 'running', error: null });
    t.equal((await kernel.get('/plugins/many/')).status, 200);
    await rm(join(kernel.pluginsDir, 'many', 'broken.txt'));
    await kernel.verb('start', 'many');
    t.equal((await complete(kernel, 3)).status, 'running');
  });

  await t.test('is restarted and stopped as one, with nothing lost', async (t) => {
    const finish = steady(kernel, '/plugins/many/', 2);
    t.equal((await kernel.verb('restart', 'many')).status, 200);
    t.strictSame((await finish()).map(({ text }) => text), [], 'requests wait for the restart');
    await kernel.request('POST', '/plugins/many/mark');
    const slow = Promise.all(Array.from({ length: 6 }, () => kernel.get('/plugins/many/held')));
    await eventually('they are under way', 2_000, async () => ((await kernel.status('many')).requests.inFlight === 6 ? true : undefined));
    const stops = (): number => kernel.logLines.filter(({ msg }) => msg === 'one stops').length;
    const before = stops();
    const stopped = kernel.verb('stop', 'many');
    await eventually('it drains', 2_000, async () => ((await kernel.status('many')).status === 'stopping' ? true : undefined));
    await release(kernel, 6);
    t.match((await stopped).json, { status: 'stopped', workers: [], services: [], threads: 3 });
    t.ok((await slow).every(({ status }) => status === 200), 'what was open is finished');
    await eventually('each has run stop()', 1_000, async () => (stops() - before === 3 ? true : undefined));
    t.strictSame(counts(kernel), { requests: 0, services: 0, watched: 2, subscriptions: 0 });
  });

  await t.test('can be stopped while its further workers are on their way', async (t) => {
    const starting = kernel.verb('start', 'many');
    await eventually('the first serves', 5_000, async () => ((await kernel.status('many')).status === 'running' ? true : undefined));
    t.equal((await kernel.status('many')).workers.length, 1, 'and it alone');
    t.equal((await kernel.get('/plugins/asks/')).status, 200, 'its service is that of the one that serves');
    const began = performance.now();
    t.match((await kernel.verb('stop', 'many')).json, { status: 'stopped', workers: [] });
    t.ok(performance.now() - began < 2_000, 'nobody waits for their start');
    t.equal((await starting).status, 200);
    t.equal((await kernel.verb('unload', 'many')).json.status, 'registered');
    await eventually('nobody is left', 5_000, async () => (counts(kernel).watched === 2 ? true : undefined));
    t.match(await kernel.status('many'), { status: 'registered', workers: [] });
  });
});

t.test('the operator decides how many', async (t) => {
  const kernel = await startMany(t, { PLUGIN_MANY_THREADS: '2', PLUGIN_HELLO_THREADS: '2' });
  t.match(await kernel.status('many'), { threads: 2, workers: [{}, {}] });
  await eventually('also of one that is there from the boot', 5_000, async () => ((await kernel.status('hello')).workers.length === 2 ? true : undefined));
  await kernel.writePlugin('crowd', `export default { name: 'crowd', version: '1.0.0', threads: 17 };`, 'plugin.js');
  const { status, json } = await kernel.verb('load', 'crowd');
  t.match({ status, json }, { status: 422, json: { code: 'PLUGIN_LOAD_FAILED', message: /`threads` must be a whole number from 1 to 16/ } });
});
