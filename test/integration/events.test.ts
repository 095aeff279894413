// Events between plugins in memory: who hears them, and what becomes of those that nobody takes.
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { EVENTS_PENDING_MAX_BYTES } from '../../protocol/event-limits.js';
import { EVENT_PAYLOAD_MAX_BYTES } from '../../protocol/limits.js';
import { eventually, startTestKernel, type TestKernel } from '../helpers/kernel.js';

t.test('events in memory', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'consumer' });
  const source = (name: string): string => `const heard = []; export default { name: '${name}', version: '1.0.0',
    init({ events }) { events.subscribe('news', (payload, { publisher }) => { heard.push([payload, publisher]); }); },
    routes(app, { events }) {
      app.get('/heard', async () => heard.splice(0));
      app.post('/publish', async (request) => { events.publish('news', request.body); return {}; });
    } };`;
  for (const name of ['crier', 'listener']) {
    await kernel.writePlugin(name, source(name));
    for (const verb of ['load', 'start'] as const) await kernel.verb(verb, name);
  }
  const post = (path: string, body: unknown = {}): Promise<any> => kernel.request('POST', path, body).then(({ json }) => json);
  const heardBy = async (name: string, count: number): Promise<any[]> => {
    const all: any[] = [];
    await eventually(`${name} has heard ${count}`, 3_000, async () => {
      all.push(...(await kernel.get(`/plugins/${name}/heard`)).json);
      return all.length >= count ? true : undefined;
    });
    await delay(50);
    all.push(...(await kernel.get(`/plugins/${name}/heard`)).json);
    return all;
  };

  t.test('every subscriber hears an event once, with its publisher, in order', async (t) => {
    for (const n of [1, 2, 3]) await post('/plugins/crier/publish', { n });
    const expected = [1, 2, 3].map((n) => [{ n }, 'crier']);
    t.strictSame(await heardBy('listener', 3), expected);
    t.strictSame(await heardBy('crier', 3), expected, 'the publisher too, when it has subscribed');
    t.strictSame((await kernel.get('/plugins/consumer/heard')).json, [], 'and nobody else');
  });

  t.test('who unsubscribes hears nothing more', async (t) => {
    await post('/plugins/consumer/subscribe', { topic: 'news' });
    await post('/plugins/crier/publish', { n: 4 });
    t.strictSame(await heardBy('consumer', 1), [{ topic: 'news', payload: { n: 4 }, publisher: 'crier' }]);
    await post('/plugins/consumer/unsubscribe');
    await post('/plugins/crier/publish', { n: 5 });
    t.strictSame((await heardBy('listener', 2)).at(-1), [{ n: 5 }, 'crier']);
    t.strictSame((await kernel.get('/plugins/consumer/heard')).json, []);
    await heardBy('crier', 2);
  });

  t.test('payloads are structured clones', async (t) => {
    await post('/plugins/consumer/subscribe-rich');
    await post('/plugins/consumer/publish-rich');
    t.strictSame(await heardBy('consumer', 1), [[0, ['1'], [1, 2], true]]);
    t.match(await post('/plugins/consumer/publish-uncloneable'), { isError: true, message: /could not be cloned/ });
    await post('/plugins/consumer/unsubscribe');
  });

  t.test('a payload that is too large is an error of its publisher', async (t) => {
    t.match(await post('/plugins/consumer/publish', { topic: 'news', bytes: EVENT_PAYLOAD_MAX_BYTES + 1 }), { code: 'EVENT_TOO_LARGE', isOurs: true, message: new RegExp(`at most ${EVENT_PAYLOAD_MAX_BYTES} are allowed`) });
    t.strictSame(await post('/plugins/consumer/publish', { topic: 'news', bytes: EVENT_PAYLOAD_MAX_BYTES - 100 }), { sent: true }, 'one that just fits is sent');
    const heard = await heardBy('listener', 1);
    t.equal(heard.length, 1);
    t.equal(heard[0][0].length, EVENT_PAYLOAD_MAX_BYTES - 100);
    await heardBy('crier', 1);
  });

  t.test('a subscriber that throws is logged, and the others hear all the same', async (t) => {
    const { generation } = await kernel.status('consumer');
    await post('/plugins/consumer/subscribe', { topic: 'news', throws: true });
    await post('/plugins/consumer/subscribe', { topic: 'news' });
    await post('/plugins/crier/publish', { n: 6 });
    t.strictSame(await heardBy('consumer', 1), [{ topic: 'news', payload: { n: 6 }, publisher: 'crier' }], 'in the same plugin');
    t.strictSame(await heardBy('listener', 1), [[{ n: 6 }, 'crier']], 'and in others');
    const line = await eventually('it is logged', 2_000, async () => kernel.logLines.find(({ msg }) => msg === 'a subscriber of "news" failed'));
    t.match(line, { level: 'error', plugin: 'consumer', topic: 'news', err: { message: 'deaf on this ear' } });
    t.equal((await kernel.status('consumer')).generation, generation, 'nobody died of it');
    await post('/plugins/consumer/unsubscribe');
  });

  t.test('a stopped subscriber is no burden, and a new generation subscribes anew', async (t) => {
    await kernel.verb('stop', 'listener');
    await post('/plugins/crier/publish', { n: 7 });
    await kernel.verb('start', 'listener');
    await post('/plugins/crier/publish', { n: 8 });
    t.strictSame(await heardBy('listener', 1), [[{ n: 8 }, 'crier']], 'it hears what is published from then on, once');
  });
});

const run = async (kernel: TestKernel, name: string, source: string): Promise<void> => {
  await kernel.writePlugin(name, source, 'plugin.js');
  for (const verb of ['load', 'start'] as const) {
    const { status, text } = await kernel.verb(verb, name);
    if (status !== 200) throw new Error(text);
  }
};

/** Hears a pattern and shows what it has heard; publishes what it is asked to. */
const ear = (name: string, pattern: string): string => `
  const heard = [];
  export default {
    name: '${name}', version: '1.0.0',
    init({ events }) { events.subscribe('${pattern}', (payload, event) => { heard.push([event.topic, payload, event.publisher, typeof event.at]); }); },
    routes(app, { events }) {
      app.get('/heard', async () => heard.splice(0));
      app.post('/try', async ({ body: { topic, pattern, payload, options } }) => {
        try {
          if (pattern !== undefined) events.subscribe(pattern, () => {}, options);
          else await events.publish(topic, payload, options);
          return { done: true };
        } catch (error) { return { name: error.name, message: error.message }; }
      });
    },
  };`;

t.test('wildcards', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: '' });
  const patterns = { exact: 'order.placed', one: 'order.*', middle: '*.placed', rest: 'order.**', all: '**' };
  for (const [name, pattern] of Object.entries(patterns)) await run(kernel, name, ear(name, pattern));
  const heardBy = async (name: string): Promise<string[]> => (await kernel.get(`/plugins/${name}/heard`)).json.map(([topic]: [string]) => topic).filter((topic: string) => !topic.startsWith('kernel.'));
  for (const name of Object.keys(patterns)) await heardBy(name);
  for (const topic of ['order.placed', 'order.paid', 'order.placed.late', 'cart.placed', 'order']) t.strictSame((await kernel.request('POST', '/plugins/exact/try', { topic, payload: 1 })).json, { done: true });
  await eventually('the last has arrived', 3_000, async () => (await kernel.status('all')).events.delivered >= 5 || undefined);
  await delay(50);
  t.strictSame(await heardBy('exact'), ['order.placed']);
  t.strictSame(await heardBy('one'), ['order.placed', 'order.paid']);
  t.strictSame(await heardBy('middle'), ['order.placed', 'cart.placed']);
  t.strictSame(await heardBy('rest'), ['order.placed', 'order.paid', 'order.placed.late']);
  t.strictSame(await heardBy('all'), ['order.placed', 'order.paid', 'order.placed.late', 'cart.placed', 'order']);

  t.test('what cannot be a topic, a pattern or a key is told at once', async (t) => {
    const attempt = async (body: object): Promise<any> => (await kernel.request('POST', '/plugins/exact/try', body)).json;
    for (const topic of ['', 'a..b', 'order.*', 'a b', 'kernel.plugin.running', 'x'.repeat(200)]) t.match(await attempt({ topic }), { name: 'TypeError', message: /^nobody can publish under the topic/ }, topic);
    for (const pattern of ['', '**.a', 'a*', 'a.', 'x'.repeat(200)]) t.match(await attempt({ pattern }), { name: 'TypeError', message: /^nobody can subscribe to/ }, pattern);
    t.match(await attempt({ topic: 'a', options: { key: 'k' } }), { name: 'TypeError', message: /only orders durable ones/ });
    t.match(await attempt({ pattern: 'kernel.plugin.*', options: { durable: true } }), { name: 'TypeError', message: /not stored/ });
    t.match(await attempt({ pattern: 'a', options: { durable: true, attempts: 0 } }), { name: 'TypeError', message: /attempts/ });
    for (const [topics, problem] of [[{ 'a.*': {} }, /"a\.\*"/], [{ 'kernel.x': {} }, /only the kernel/], [{ a: { durable: 1 } }, /durable: true/]] as const) {
      await kernel.writePlugin('liar', `export default { name: 'liar', version: '1.0.0', topics: ${JSON.stringify(topics)} };`, 'plugin.js');
      t.match((await kernel.verb('load', 'liar')).json, { code: 'PLUGIN_LOAD_FAILED', message: problem });
    }
  });
});

t.test('every transition of a plugin is published by the kernel', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'hello' });
  await run(kernel, 'watch', ear('watch', 'kernel.plugin.*'));
  await kernel.verb('restart', 'hello');
  await kernel.writePlugin('broken', "export default { name: 'broken', version: '1.0.0', init() { throw new Error('leak'); } };", 'plugin.js');
  await kernel.verb('load', 'broken');
  const heard: [string, any, string][] = [];
  await eventually('it has heard of the failure', 3_000, async () => {
    heard.push(...(await kernel.get('/plugins/watch/heard')).json);
    return heard.some(([topic]) => topic === 'kernel.plugin.failed') || undefined;
  });
  const of = (name: string): string[] => heard.filter(([, { plugin }]) => plugin === name).map(([topic]) => topic.replace('kernel.plugin.', ''));
  t.strictSame(of('hello'), ['stopping', 'stopped', 'initialized', 'mounted', 'started', 'running']);
  t.strictSame(of('broken'), ['failed']);
  t.ok(heard.every(([, , publisher]) => publisher === 'kernel'));
  t.match(heard.find(([topic]) => topic === 'kernel.plugin.failed')![1], { plugin: 'broken', from: 'registered', to: 'failed', cause: /leak/ });
});

t.test('subscribers that do not keep up', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: '' });
  const BYTES = 60_000;
  const fitting = Math.floor(EVENTS_PENDING_MAX_BYTES / (BYTES + 100));
  await run(kernel, 'source', `export default { name: 'source', version: '1.0.0', routes(app, { events }) {
    app.post('/burst', async ({ body: { topic, count } }) => {
      const began = performance.now();
      for (let n = 0; n < count; n += 1) { events.publish(topic, { n, pad: 'x'.repeat(${BYTES}) }); if (n % 10 === 9) await new Promise((resolve) => setTimeout(resolve, 10)); }
      return { ms: performance.now() - began };
    }); } };`);
  // One handler never ends, one stands still with its whole thread, one is well.
  await run(kernel, 'stuck', `const heard = []; export default { name: 'stuck', version: '1.0.0',
    init({ events }) { events.subscribe('load.*', () => new Promise(() => {})); events.subscribe('other', () => { heard.push(1); }); },
    routes(app) { app.get('/heard', async () => heard.length); } };`);
  await run(kernel, 'asleep', `export default { name: 'asleep', version: '1.0.0',
    init({ events }) { events.subscribe('load.block', () => { Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 800); }); } };`);
  await run(kernel, 'well', `let heard = 0; export default { name: 'well', version: '1.0.0',
    init({ events }) { events.subscribe('load.*', () => { heard += 1; }); }, routes(app) { app.get('/heard', async () => heard); } };`);
  const count = fitting + 60;

  const { json: { ms } } = await kernel.request('POST', '/plugins/source/burst', { topic: 'load.big', count });
  t.ok(ms < 2_000, `the publisher took ${Math.round(ms)} ms`);
  await eventually('the one who is well has heard all', 5_000, async () => (await kernel.get('/plugins/well/heard')).json === count || undefined);
  const stuck = await eventually('what the stuck one has lost is known', 3_000, async () => {
    const { events } = await kernel.status('stuck');
    return events.dropped > 0 ? events : undefined;
  });
  t.ok(stuck.dropped >= count - fitting - 1, `${stuck.dropped} of ${count} events were dropped, and ${fitting} fit`);
  await kernel.request('POST', '/plugins/source/burst', { topic: 'other', count: 2 });
  await eventually('its other subscription goes on', 3_000, async () => (await kernel.get('/plugins/stuck/heard')).json === 2 || undefined);

  await kernel.request('POST', '/plugins/source/burst', { topic: 'load.block', count });
  const asleep = await eventually('the kernel drops for the one that stands still', 5_000, async () => {
    const { events } = await kernel.status('asleep');
    return events.dropped > 0 ? events : undefined;
  });
  t.ok(asleep.dropped > 0);
  await eventually('the one who is well has heard all again', 5_000, async () => (await kernel.get('/plugins/well/heard')).json === 2 * count || undefined);
  t.match((await kernel.status('well')).events, { published: 0, delivered: 2 * count, dropped: 0 });
  t.match((await kernel.status('source')).events, { published: 2 * count + 2, dropped: 0 });
  const told = kernel.logLines.filter(({ msg, plugin }) => msg === 'a subscriber does not keep up and loses events' && plugin === 'stuck');
  t.equal(told.length, 1, 'the log says so once, not once per event');
});

t.test('a subscriber that crashes loses what waits for it, and nobody else does', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: '' });
  await run(kernel, 'frail', `export default { name: 'frail', version: '1.0.0', init({ events, log }) { events.subscribe('news', (n) => { log.info({ n }, 'heard'); if (n === 2) setTimeout(() => { throw new Error('too much'); }); }); } };`);
  await run(kernel, 'firm', ear('firm', 'news'));
  const publish = (payload: number): Promise<unknown> => kernel.request('POST', '/plugins/firm/try', { topic: 'news', payload });
  const { generation } = await kernel.status('frail');
  for (const n of [1, 2]) await publish(n);
  await eventually('it is back', 5_000, async () => {
    const { status, generation: now } = await kernel.status('frail');
    return (status === 'running' && now > generation) || undefined;
  });
  await publish(3);
  await eventually('it hears again', 3_000, async () => kernel.logLines.some(({ msg, n }) => msg === 'heard' && n === 3) || undefined);
  t.strictSame(kernel.logLines.filter(({ msg }) => msg === 'heard').map(({ n }) => n), [1, 2, 3]);
  t.strictSame((await kernel.get('/plugins/firm/heard')).json.map(([, n]: [string, number]) => n), [1, 2, 3]);
});
