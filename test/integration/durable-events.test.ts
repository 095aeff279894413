// Durable events: stored in PostgreSQL, delivered at least once and in order per key, whatever ends in between.
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { EVENTS_BACKLOG_MAX } from '../../protocol/event-limits.js';
import { eventually, startTestKernel, type TestKernel } from '../helpers/kernel.js';
import { startPostgres } from '../helpers/postgres.js';
import { startProxy } from '../helpers/proxy.js';

const SHOP = `export default { name: 'shop', version: '1.0.0', topics: { 'order.placed': { durable: true }, 'order.paid': { durable: true } },
  routes(app, { events }) {
    app.post('/publish', async ({ body }) => {
      const outcomes = [];
      for (const { topic = 'order.placed', payload, key } of body) {
        outcomes.push(await events.publish(topic, payload, { ...(key !== undefined && { key }) }).then(() => 'stored', (error) => ({ code: error.code, statusCode: error.statusCode, message: error.message })));
      }
      return outcomes;
    });
    app.post('/bytes', async () => { await events.publish('order.placed', { n: 0, bytes: new Uint8Array(3) }); return {}; });
    app.post('/at-once', async ({ body }) => { await Promise.all(body.map(({ payload, key }) => events.publish('order.placed', payload, { key }))); return {}; });
  } };`;

/** Notes in the log what it hears, and does what the payload says. */
const books = (options = '{ durable: true, attempts: 3 }', more = '', pattern = 'order.**'): string => `export default { name: 'books', version: '1.0.0', ${more}
  init({ events, log }) {
    globalThis.end = events.subscribe('${pattern}', async (payload, event) => {
      log.info({ n: payload.n, event, ...(payload.bytes && { memory: payload.bytes.buffer.byteLength }) }, 'heard');
      if (payload.exit >= event.attempt) process.exit(3);
      if (payload.fail >= event.attempt) throw new Error('no room for ' + payload.n + String.fromCharCode(0));
      if (payload.hang >= event.attempt) await new Promise(() => {});
      if (payload.ms) await new Promise((resolve) => setTimeout(resolve, payload.ms));
      log.info({ n: payload.n }, 'handled');
    }, ${options});
  },
  routes(app, { events, db }) {
    app.post('/forget', async () => { await events.forget('${pattern}'); return {}; });
    app.post('/end', async () => { globalThis.end(); return {}; });
    app.post('/query', async ({ body }) => db.query(body).then(({ rows }) => rows, (error) => error.code));
  } };`;

interface Heard { readonly n: number; readonly event: { readonly id: string; readonly topic: string; readonly publisher: string; readonly key: string | null; readonly attempt: number; readonly at: number } }

const run = async (kernel: TestKernel, name: string, source: string): Promise<void> => {
  await kernel.writePlugin(name, source, 'plugin.js');
  for (const verb of ['load', 'start'] as const) {
    const { status, text } = await kernel.verb(verb, name);
    if (status !== 200) throw new Error(text);
  }
};
const publish = async (kernel: TestKernel, events: { topic?: string; payload: object; key?: string }[]): Promise<any[]> => (await kernel.request('POST', '/plugins/shop/publish', events)).json;
const heardOf = (kernel: TestKernel): Heard[] => kernel.logLines.filter(({ msg }) => msg === 'heard') as unknown as Heard[];
const handledOf = (kernel: TestKernel): number[] => kernel.logLines.filter(({ msg }) => msg === 'handled').map(({ n }) => n as number);
const waiting = async (kernel: TestKernel): Promise<number> => (await kernel.query<{ count: number }>('SELECT count(*)::int AS count FROM bulkhead.event_deliveries'))[0]!.count;
/** All that was stored is handled, or has become a dead letter. */
const settled = (kernel: TestKernel, timeoutMs = 8_000): Promise<unknown> => eventually('nothing waits any more', timeoutMs, async () => ((await waiting(kernel)) === 0 ? true : undefined));

async function board(t: Pick<Test, 'teardown'>, environment: Record<string, string> = {}, source = books()): Promise<TestKernel> {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: '', ...environment });
  await run(kernel, 'shop', SHOP);
  await run(kernel, 'books', source);
  return kernel;
}

t.test('what is published while nobody hears it is delivered later, in order per key', async (t) => {
  const { url } = await startPostgres(t);
  const first = await board(t, { DATABASE_URL: url });
  const some = (from: number): { payload: object; key: string }[] => Array.from({ length: 10 }, (_, i) => ({ payload: { n: from + i }, key: `order-${i % 2}` }));
  const inOrder = (kernel: TestKernel, n: readonly number[]): void => {
    for (const parity of [0, 1]) t.strictSame(handledOf(kernel).filter((one) => one % 2 === parity), n.filter((one) => one % 2 === parity), `key ${parity}, in order and once`);
  };
  const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

  t.strictSame(await publish(first, some(0)), Array(10).fill('stored'));
  await settled(first);
  inOrder(first, range(0, 10));
  t.match(heardOf(first)[0]!.event, { id: /^\d+$/, topic: 'order.placed', publisher: 'shop', key: 'order-0', attempt: 1, at: Number });
  t.strictSame((await first.status('shop')).topics, { 'order.placed': { durable: true }, 'order.paid': { durable: true } });
  t.match((await first.status('books')).events, { delivered: 10, dropped: 0 });

  await first.verb('stop', 'books');
  t.strictSame(await publish(first, some(10)), Array(10).fill('stored'), 'while it is stopped');
  t.equal(await waiting(first), 10);
  await first.verb('start', 'books');
  await settled(first);
  inOrder(first, range(0, 20));

  await first.verb('unload', 'books');
  t.strictSame(await publish(first, some(20)), Array(10).fill('stored'), 'while it is not even loaded');
  await first.stop();
  const second = await board(t, { DATABASE_URL: url });
  await settled(second);
  inOrder(second, range(20, 30));
  await second.request('POST', '/plugins/shop/at-once', range(30, 130).map((n) => ({ payload: { n }, key: `order-${n % 2}` })));
  await settled(second);
  inOrder(second, range(20, 130));
});

t.test('handling', async (t) => {
  const kernel = await board(t);
  const lines = (): number => kernel.logLines.length;
  const since = (from: number): Heard[] => kernel.logLines.slice(from).filter(({ msg }) => msg === 'heard') as unknown as Heard[];

  t.test('an event whose worker died with it comes again, and those that were with it too', async (t) => {
    const from = lines();
    const { generation } = await kernel.status('books');
    await publish(kernel, [{ payload: { n: 1, ms: 400 }, key: 'a' }, { payload: { n: 2, exit: 1 }, key: 'b' }, { payload: { n: 3 }, key: 'b' }]);
    await settled(kernel);
    t.ok((await kernel.status('books')).generation > generation, 'it has died');
    t.strictSame(since(from).map(({ n, event }) => [n, event.attempt]).sort(), [[1, 1], [1, 2], [2, 1], [2, 2], [3, 1]]);
    t.strictSame(since(from).filter(({ event }) => event.key === 'b').map(({ n }) => n), [2, 2, 3], 'in order');
    t.equal(new Set(since(from).filter(({ n }) => n === 2).map(({ event }) => event.id)).size, 1, 'under the same id');
  });

  t.test('one that ends every worker takes no others along', async (t) => {
    const from = lines();
    await publish(kernel, [{ payload: { n: 1, ms: 300 }, key: 'a' }, { payload: { n: 2, exit: 9 }, key: 'b' }, { payload: { n: 3, ms: 300 }, key: 'c' }]);
    await settled(kernel, 15_000);
    const handled = kernel.logLines.slice(from).filter(({ msg }) => msg === 'handled').map(({ n }) => n);
    t.strictSame([...new Set(handled)].sort(), [1, 3]);
    t.match((await kernel.get('/plugins/dead-letters/books')).json, [{ key: 'b', attempts: 3, error: /^its worker ended: it called process\.exit\(3\)/ }]);
    await kernel.query('DELETE FROM bulkhead.event_dead_letters');
    await kernel.verb('restart', 'books');
  });

  t.test('one that fails is tried again, holds up its key only, and is a dead letter in the end', async (t) => {
    const from = lines();
    await publish(kernel, [{ payload: { n: 1, fail: 2 }, key: 'a' }, { payload: { n: 2 }, key: 'a' }, { payload: { n: 3 }, key: 'b' }, { payload: { n: 4, fail: 3 } }, { payload: { n: 5 } }]);
    await eventually('the others are handled', 3_000, async () => [3, 5].every((n) => since(from).some((heard) => heard.n === n)) || undefined);
    t.notOk(since(from).some(({ n }) => n === 2), 'what comes after it waits');
    await settled(kernel);
    t.strictSame(since(from).filter(({ event }) => event.key === 'a').map(({ n, event }) => [n, event.attempt]), [[1, 1], [1, 2], [1, 3], [2, 1]]);
    const { status, json } = await kernel.get('/plugins/dead-letters/books');
    t.equal(status, 200);
    t.match(json, [{ topic: 'order.placed', pattern: 'order.**', publisher: 'shop', key: null, attempts: 3, error: 'Error: no room for 4' }]);
    t.equal(json.length, 1);
    t.ok(kernel.logLines.some(({ level, msg, plugin }) => level === 'error' && plugin === 'books' && /is a dead letter now/.test(msg)));

    t.strictSame((await kernel.request('POST', '/plugins/dead-letters/books/retry')).json, { retried: 1 }, 'the operator has it tried again');
    await eventually('it is a dead letter again', 5_000, async () => (await kernel.get('/plugins/dead-letters/books')).json.length === 1 || undefined);
    t.strictSame(since(from).filter(({ n }) => n === 4).map(({ event }) => event.attempt), [1, 2, 3, 1, 2, 3]);
    t.equal((await kernel.request('POST', '/plugins/dead-letters/books')).status, 405);
    t.equal((await kernel.request('PUT', '/plugins/dead-letters/books/retry')).status, 405);
    t.match((await kernel.get('/plugins/dead-letters/Books')).json, { code: 'PLUGIN_NAME_INVALID' });
  });

  t.test('a slow key leaves room for others, however much waits behind it', async (t) => {
    const from = lines();
    const events = Array.from({ length: 80 }, (_, n) => ({ payload: { n, ms: n === 0 ? 600 : 0 }, key: 'slow' }));
    await kernel.request('POST', '/plugins/shop/at-once', [...events, { payload: { n: 100 }, key: 'other' }]);
    await eventually('the other is handled', 3_000, async () => since(from).some(({ n }) => n === 100) || undefined);
    t.ok(since(from).length <= 2, 'before the first of the slow key is');
    await settled(kernel);
    t.strictSame(since(from).filter(({ event }) => event.key === 'slow').map(({ n }) => n), events.map((_, n) => n), 'which come in order');
  });

  t.test('who subscribes without a word hears durable events too, those that were stored', async (t) => {
    await run(kernel, 'plain', `const heard = []; export default { name: 'plain', version: '1.0.0', init({ events }) { events.subscribe('order.*', (payload, event) => { heard.push([payload.n, event.topic, Object.keys(event)]); }); }, routes(app) { app.get('/heard', async () => heard); } };`);
    await publish(kernel, [{ topic: 'order.paid', payload: { n: 7 } }]);
    t.strictSame((await kernel.get('/plugins/plain/heard')).json, [[7, 'order.paid', ['topic', 'publisher', 'at']]]);
    await settled(kernel);
  });

  t.test('a plugin cannot read what is stored', async (t) => {
    for (const sql of ['SELECT * FROM bulkhead.event_deliveries', 'DELETE FROM bulkhead.event_subscriptions', 'CREATE TABLE bulkhead.mine (a int)']) {
      t.equal((await kernel.request('POST', '/plugins/books/query', sql, { 'content-type': 'text/plain' })).text, '42501', sql);
    }
  });

  t.test('a worker that says what no host says is ended, and nobody else is harmed', async (t) => {
    const payload = 'new Uint8Array(3)';
    const garbage = [
      "{ kind: 'subscribe', pattern: '**.a', attempts: null }", "{ kind: 'subscribe', pattern: 'a', attempts: 1e9 }", "{ kind: 'subscribe', pattern: {}, attempts: 1 }", `{ kind: 'publish', topic: 'kernel.plugin.running', payload: ${payload} }`,
      `{ kind: 'publish', topic: 'a b', payload: ${payload} }`, "{ kind: 'publish', topic: 'a', payload: 'text' }", "{ kind: 'publish', topic: 'a', payload: new Uint8Array(1e6) }", "{ kind: 'publish', topic: 'a', payload: new Uint8Array(new SharedArrayBuffer(3)) }",
      `{ kind: 'event-store', ref: 1, topic: 'undeclared', key: null, payload: ${payload} }`, `{ kind: 'event-store', ref: 'x', topic: 'mine', key: null, payload: ${payload} }`, `{ kind: 'event-store', ref: 1, topic: 'mine', key: 'a\\0b', payload: ${payload} }`,
      "{ kind: 'events-taken', taken: 1, delivered: 0, dropped: 0 }", "{ kind: 'events-taken', taken: 0, delivered: -1, dropped: 0 }", "{ kind: 'event-handled', ref: 1.5, refused: false, error: null }", "{ kind: 'event-handled', ref: 1, refused: false, error: {} }", "{ kind: 'event-forget', ref: 1, pattern: null }",
    ];
    // The port is the one on which its log travels.
    const source = `import { MessagePort } from 'node:worker_threads';
      let port;
      const post = MessagePort.prototype.postMessage;
      MessagePort.prototype.postMessage = function (batch, ...more) { if (batch?.[0]?.kind === 'log') port = this; return post.call(this, batch, ...more); };
      export default { name: 'liar', version: '1.0.0', topics: { mine: { durable: true } }, init({ log }) { log.info('aye'); },
      routes(app) { app.post('/say', async ({ body }) => { port.postMessage([eval('(' + body + ')')]); await new Promise((resolve) => setTimeout(resolve, 2_000)); }); } };`;
    await run(kernel, 'liar', source);
    for (const frame of garbage) {
      const { generation } = await kernel.status('liar');
      t.equal((await kernel.request('POST', '/plugins/liar/say', frame, { 'content-type': 'text/plain' })).status, 502, frame);
      const { deaths } = await kernel.status('liar');
      t.match(deaths.at(-1), { generation, cause: /^it sent a (subscribe|publish|event\S+) frame that cannot be handled/ });
      await kernel.verb('restart', 'liar');
    }
    // An answer to what was never asked, as after its time, is no lie.
    const late = kernel.request('POST', '/plugins/liar/say', "{ kind: 'event-handled', ref: 12345678, refused: false, error: null }", { 'content-type': 'text/plain' });
    t.equal((await late).status, 200);
    const from = lines();
    await publish(kernel, [{ payload: { n: 1 } }]);
    await settled(kernel);
    t.equal(since(from).length, 1);
  });

  t.test('who ends its listening is missed, who forgets is not', async (t) => {
    await kernel.request('POST', '/plugins/books/end');
    await publish(kernel, [{ payload: { n: 1 } }]);
    await delay(100);
    t.equal(await waiting(kernel), 1, 'it is kept for the next');
    await kernel.request('POST', '/plugins/books/forget');
    t.equal(await waiting(kernel), 0);
    t.strictSame(await publish(kernel, [{ payload: { n: 2 } }]), ['stored'], 'for nobody');
    t.equal(await waiting(kernel), 0);
  });
});

t.test('each event goes to one of the workers of a plugin', async (t) => {
  const kernel = await board(t, {}, books('{ durable: true }', 'threads: 2,'));
  await kernel.request('POST', '/plugins/shop/at-once', Array.from({ length: 60 }, (_, n) => ({ payload: { n, ms: 5 }, key: `k${n}` })));
  await settled(kernel);
  t.strictSame(handledOf(kernel).sort((a, b) => a - b), Array.from({ length: 60 }, (_, n) => n), 'once');
  t.equal(new Set(kernel.logLines.filter(({ msg }) => msg === 'handled').map(({ generation }) => generation)).size, 2, 'both had some');
});

t.test('too many for one subscriber are refused, with its name', async (t) => {
  const kernel = await board(t);
  await publish(kernel, [{ payload: { n: 0 } }]);
  await settled(kernel);
  await kernel.verb('stop', 'books');
  await kernel.query(`INSERT INTO bulkhead.event_deliveries (subscription, event, topic, publisher, payload, published_at)
    SELECT s.id, -n, 'order.placed', 'shop', '', now() FROM bulkhead.event_subscriptions s, generate_series(1, ${EVENTS_BACKLOG_MAX - 2}) AS n`);
  const events = [1, 2, 3].map((n) => ({ payload: { n } }));
  t.match(await publish(kernel, events), ['stored', 'stored', { code: 'EVENTS_BACKLOG', statusCode: 503, message: new RegExp(`${EVENTS_BACKLOG_MAX} events wait for its durable subscriber "books"`) }]);
  t.equal(await waiting(kernel), EVENTS_BACKLOG_MAX);
  await kernel.query('DELETE FROM bulkhead.event_deliveries WHERE event < 0');
  t.strictSame(await publish(kernel, events), ['stored', 'stored', 'stored'], 'until there is room');
});

t.test('a payload comes with memory of its own, and none of the kernel\'s', async (t) => {
  const kernel = await board(t);
  await kernel.request('POST', '/plugins/shop/bytes');
  const { memory } = (await eventually('it is heard', 3_000, async () => heardOf(kernel)[0])) as unknown as { memory: number };
  t.ok(memory > 0 && memory < 100, `its bytes lie among ${memory}`);
});

t.test('a database that is away', async (t) => {
  const proxy = await startProxy(t, (await startPostgres(t)).url);
  await proxy.open();
  const kernel = await board(t, { DATABASE_URL: proxy.url });
  await publish(kernel, [{ payload: { n: 1 } }]);
  await eventually('it is handled', 3_000, async () => handledOf(kernel).includes(1) || undefined);

  // While an event is under way, whose end cannot be recorded then.
  await publish(kernel, [{ payload: { n: 2, ms: 600 }, key: 'a' }, { payload: { n: 3 }, key: 'a' }]);
  await eventually('it is under way', 3_000, async () => heardOf(kernel).some(({ n }) => n === 2) || undefined);
  await proxy.cut();
  t.match(await publish(kernel, [{ payload: { n: 4 } }]), [{ code: 'DATABASE_UNAVAILABLE', statusCode: 503 }], 'what cannot be stored is refused');
  await eventually('the one under way is handled all the same', 3_000, async () => handledOf(kernel).includes(2) || undefined);
  await delay(200);
  await proxy.open();
  await eventually('publishing works again', 5_000, async () => (await publish(kernel, [{ payload: { n: 5 } }]))[0] === 'stored' || undefined);
  await eventually('and so does delivery', 5_000, async () => [3, 5].every((n) => handledOf(kernel).includes(n)) || undefined);
  t.strictSame(handledOf(kernel).filter((n) => n < 4), [1, 2, 3], 'nothing twice that could be recorded, all in order');
  t.equal(heardOf(kernel).length, handledOf(kernel).length);
});

t.test('a plugin that subscribes while the database is away hears all that is stored after that', async (t) => {
  const proxy = await startProxy(t, (await startPostgres(t)).url);
  const kernel = await board(t, { DATABASE_URL: proxy.url });
  t.match(await publish(kernel, [{ payload: { n: 1 } }]), [{ code: 'DATABASE_UNAVAILABLE' }]);
  await proxy.open();
  await eventually('publishing works', 5_000, async () => (await publish(kernel, [{ payload: { n: 2 } }]))[0] === 'stored' || undefined);
  await eventually('it is heard', 3_000, async () => handledOf(kernel).includes(2) || undefined);
});
