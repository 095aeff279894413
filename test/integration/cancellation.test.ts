// What a request has set going ends with it: a client that leaves, and a deadline that passes, cancel its SQL and its service calls.
import { cp, readFile } from 'node:fs/promises';
import { request as httpRequest, type ClientRequest } from 'node:http';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import t from 'tap';
import { LEASE_IDLE_MS } from '../../protocol/database-limits.js';
import { SERVICE_CALL_TIMEOUT_MS } from '../../protocol/service-limits.js';
import { eventually, FIXTURES, startTestKernel, type TestKernel } from '../helpers/kernel.js';

interface Outcome { readonly name?: string; readonly code?: string; readonly message?: string; readonly done?: boolean; readonly at: number }
interface Asking { readonly method?: string; readonly headers?: Record<string, string>; readonly body?: readonly string[] }

/** How long the whole way to the server may take when the machine is busy; it should take a third. */
const SOON_MS = 300;
const LEFT = { name: 'AbortError', code: 'ABORT_ERR', message: 'the request was given up: the client went away', isError: true };
const NOBODY_WAITS = { name: 'AbortError', message: 'the call was given up: nobody waits for its result any more' };

/** A client that can leave. */
class Client {
  /** Null when the connection ended without an answer. */
  readonly status: Promise<number | null>;
  readonly #request: ClientRequest;

  constructor(url: string, { method = 'GET', headers = {}, body = [] }: Asking = {}) {
    this.#request = httpRequest(url, { method, agent: false, headers });
    this.status = new Promise((resolve) => {
      this.#request.once('response', (answer) => resolve(answer.resume().statusCode!)).on('error', () => resolve(null));
    });
    for (const piece of body) this.#request.write(piece);
    this.#request.end();
  }

  /** Returns when. */
  leave(): number {
    this.#request.destroy();
    return Date.now();
  }
}

/** The fixture once more, under another name, and perhaps with other limits. */
async function startTwin(kernel: TestKernel, name: string, limits = 'timeoutMs: 15_000'): Promise<void> {
  await cp(join(FIXTURES, 'clerk'), join(kernel.pluginsDir, name), { recursive: true });
  const source = await readFile(join(FIXTURES, 'clerk/plugin.ts'), 'utf8');
  await kernel.writePlugin(name, source.replace(`name: 'clerk'`, `name: '${name}'`).replace('timeoutMs: 15_000', limits));
  for (const verb of ['load', 'start'] as const) {
    const { status, text } = await kernel.verb(verb, name);
    if (status !== 200) throw new Error(text);
  }
}

t.test('what a request has set going', { timeout: 240_000 }, async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'clerk', LOG_LEVEL: 'debug' });
  const admin = new pg.Pool({ connectionString: kernel.databaseUrl, max: 2, application_name: 'test' });
  admin.on('error', () => {});
  t.teardown(() => admin.end());
  await startTwin(kernel, 'vault');
  await startTwin(kernel, 'porter');

  const generations = (): Promise<number[]> => Promise.all(['clerk', 'vault', 'porter'].map(async (plugin) => (await kernel.status(plugin)).generation));
  const atFirst = await generations();
  const count = async (condition: string, ...values: unknown[]): Promise<number> =>
    (await admin.query(`SELECT count(*)::int AS count FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND ${condition}`, values)).rows[0].count as number;

  let names = 0;
  const newName = (): string => `n${++names}x`;
  const ask = (path: string, name: string, { plugin = 'clerk', ...asking }: Asking & { plugin?: string } = {}): Client =>
    new Client(`${kernel.url}/plugins/${plugin}${encodeURI(path)}?name=${name}`, asking);
  const sleepers = (name: string): Promise<number> => count(`state = 'active' AND query LIKE $1`, `%/* ${name} */%`);
  const asleep = (name: string, expected = 1): Promise<true> => eventually(`"${name}" sleeps in the database`, 5_000, async () => ((await sleepers(name)) === expected ? true : undefined));
  /** Milliseconds from `since` until nothing of that name runs. */
  const awake = async (name: string, since: number): Promise<number> => {
    while ((await sleepers(name)) > 0) if (Date.now() - since > 10_000) throw new Error(`after 10 s "${name}" still sleeps in the database`);
    return Date.now() - since;
  };
  const outcome = (name: string, plugin = 'clerk'): Promise<Outcome> => eventually(`${plugin} knows what became of "${name}"`, 5_000, async () => {
    const { status, json } = await kernel.get(`/plugins/${plugin}/outcome/${encodeURIComponent(name)}`);
    return status === 200 ? json as Outcome : undefined;
  });
  const lines = async (): Promise<string[]> => (await kernel.get('/plugins/clerk/lines')).json as string[];

  // Takes ten seconds; what comes of it is looked at in the end.
  const tooLong = newName();
  const slowCall = ask('/way/service', tooLong);
  await asleep(tooLong);

  for (const way of [
    'query', 'query with a callback', 'query with parameters', 'query of a client', 'client in a callback', 'query after the callback of another', 'queries at once',
    'query after awaits', 'transaction', 'service', 'service that uses a service', 'library with errors of its own',
  ]) {
    t.test(`a client that leaves cancels the ${way}`, async (t) => {
      const name = newName();
      const client = ask(`/way/${way}`, name);
      await asleep(name, way === 'queries at once' ? 2 : 1);
      const left = client.leave();
      const ms = await awake(name, left);
      const { at, ...error } = await outcome(name);
      t.match(error, way.startsWith('library') ? { message: 'the library failed' } : LEFT);
      t.ok(ms < SOON_MS, `the server has stopped after ${ms} ms`);
      t.ok(at - left < SOON_MS, `the handler knows after ${at - left} ms`);
      t.ok(await outcome(`signal ${name}`), 'and its signal is aborted');
      t.strictSame((await kernel.get('/plugins/clerk/quick')).json, { one: 1 }, 'the plugin goes on');
    });
  }

  t.test('the signal fires within 50 ms, and the statement has ended within 100', async (t) => {
    const times: number[] = [];
    const ends: number[] = [];
    for (let i = 0; i < 9; i += 1) {
      const name = newName();
      const client = ask('/way/query', name);
      await asleep(name);
      const left = client.leave();
      times.push((await outcome(`signal ${name}`)).at - left);
      ends.push(await awake(name, left));
    }
    for (const measured of [times, ends]) measured.sort((a, b) => a - b);
    t.ok(times[4]! < 50, `for half of those who left within ${times[4]} ms, for all within ${times.at(-1)} ms`);
    t.ok(ends[4]! < 100, `half of the statements had ended after ${ends[4]} ms, all after ${ends.at(-1)} ms`);
  });

  t.test('what began after a body had streamed in is cancelled', async (t) => {
    const name = newName();
    const client = ask('/way/query', name, { method: 'POST', headers: { 'content-type': 'application/json', 'transfer-encoding': 'chunked' }, body: ['{"a":', '"b"}'] });
    await asleep(name);
    const ms = await awake(name, client.leave());
    t.ok(ms < SOON_MS, `after ${ms} ms`);
    t.match(await outcome(name), LEFT);
  });

  t.test('a deadline that passes cancels as well', async (t) => {
    await startTwin(kernel, 'hasty', 'timeoutMs: 300');
    // Of a client that leaves during the handshake the kernel hears only when it answers.
    const websocket = { 'connection': 'upgrade', 'upgrade': 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==' };
    for (const [what, path, headers] of [['query', '/way/query', {}], ['service', '/way/service', {}], ['handshake of a tunnel', '/handshake', websocket]] as const) {
      const name = newName();
      const client = ask(path, name, { plugin: 'hasty', headers });
      await asleep(name);
      t.equal(await client.status, 504);
      const ms = await awake(name, Date.now());
      t.ok(ms < SOON_MS, `the ${what} ${ms} ms after the answer`);
      t.match(await outcome(name, 'hasty'), { name: 'AbortError', message: 'the request was given up: it was not answered in time' });
    }
    await kernel.verb('unload', 'hasty');
  });

  t.test('a transaction is rolled back, and a handler that asks for that hears that it is', async (t) => {
    const name = newName();
    const client = ask('/way/transaction', name);
    await asleep(name);
    await awake(name, client.leave());
    t.match(await outcome(name), LEFT, 'the first error is the one that counts');
    t.match(await outcome('rollback'), { command: 'ROLLBACK' });
    t.notOk((await lines()).includes(name), 'what it has written is gone');
    t.equal(await count(`state LIKE 'idle in transaction%'`), 0);
  });

  t.test('what begins after the client has left may run, also on a connection that it had', async (t) => {
    const name = newName();
    const client = ask('/between-statements', name);
    await outcome(`ready ${name}`);
    client.leave();
    t.match(await outcome(name), { message: 'enough' }, 'its statements ran, its rollback too');
    const written = await lines();
    t.ok(written.includes(`cleaned up after ${name}`));
    t.notOk(written.includes(name));
  });

  t.test('a connection that listens for all survives the request that has opened it', async (t) => {
    const name = newName();
    const client = ask('/listen', name);
    await outcome(`ready ${name}`);
    client.leave();
    await outcome(`signal ${name}`);
    await admin.query(`NOTIFY news, 'land ahoy'`);
    await eventually('it still listens', 3_000, async () => ((await kernel.get('/plugins/clerk/heard')).json.includes('land ahoy') ? true : undefined));
    t.equal((await kernel.get('/plugins/clerk/hang-up')).status, 200);
  });

  t.test('what goes on after the answer is left alone', async (t) => {
    const name = newName();
    const client = ask('/answers-first', name, {});
    t.equal(await client.status, 200);
    client.leave();
    t.ok((await outcome(name)).done);
    t.ok((await lines()).includes(name));
  });

  t.test('what others wait for too is left alone, when it was begun outside of the request', async (t) => {
    const name = newName();
    const [first, second] = [ask('/common', name), ask('/common', name)];
    await asleep(name);
    first.leave();
    t.equal(await second.status, 200);
  });

  t.test('a plugin lives on when nobody in it hears of the cancellation, or not yet', async (t) => {
    for (const path of ['/awaits-it-late', '/never-awaits-it']) {
      const name = newName();
      const client = ask(path, name);
      await asleep(name);
      await awake(name, client.leave());
      t.match(await outcome(name), LEFT);
      await delay(400);
    }
    t.strictSame(await generations(), atFirst);
  });

  t.test('a call is given up at the provider, and at the provider\'s', async (t) => {
    const name = newName();
    const client = ask('/way/service that uses a service', name);
    await asleep(name);
    client.leave();
    t.match(await outcome(name), LEFT, 'the caller hears why');
    for (const plugin of ['porter', 'vault']) t.match(await outcome(name, plugin), NOBODY_WAITS, plugin);
  });

  t.test('who waits for a free connection waits no longer, and the place goes to the next', async (t) => {
    const plugin = 'narrow';
    await startTwin(kernel, plugin, 'connections: 1');
    const [holding, waiting] = [newName(), newName()];
    const holder = ask('/way/query', holding, { plugin });
    await asleep(holding);
    const waiter = ask('/way/query', waiting, { plugin });
    await delay(50);
    const next = ask('/quick', newName(), { plugin });
    await delay(50);
    const left = waiter.leave();
    const { at, ...error } = await outcome(waiting, plugin);
    t.match(error, LEFT);
    t.ok(at - left < SOON_MS, `after ${at - left} ms`);
    holder.leave();
    t.equal(await next.status, 200);
    await kernel.verb('unload', plugin);
  });

  t.test('a plugin that dies takes the calls along that it has made', async (t) => {
    const plugin = 'mortal';
    await startTwin(kernel, plugin);
    const name = newName();
    const client = ask('/way/service', name, { plugin, method: 'POST' });
    await asleep(name);
    const died = Date.now();
    ask('/die', name, { plugin, method: 'POST' });
    t.equal(await client.status, 502);
    const ms = await awake(name, died);
    t.ok(ms < 2 * SOON_MS, `within ${ms} ms`);
    t.match(await outcome(name, 'vault'), { name: 'AbortError', message: 'the call was given up: the plugin that has made it went away' });
    await kernel.verb('unload', plugin);
  });

  t.test('nonsense on a direct port cancels nothing and breaks nothing', async (t) => {
    const name = newName();
    const client = ask('/way/service', name);
    await asleep(name);
    t.strictSame((await kernel.get('/plugins/clerk/garbage')).json, { ports: 1, answer: 2 });
    t.equal(await sleepers(name), 1, 'the call of somebody else goes on');
    await awake(name, client.leave());
    t.strictSame(await generations(), atFirst, 'and nobody has died');
  });

  t.test('a storm of clients that leave hits nobody who stays, and leaves nothing behind', async (t) => {
    const failures: unknown[] = [];
    let answered = 0;
    let storming = true;
    const stayers = Array.from({ length: 3 }, async () => {
      while (storming) {
        const { status, json } = await kernel.get('/plugins/clerk/quick');
        if (status === 200 && json.one === 1) answered += 1;
        else failures.push(json);
      }
    });
    // One connection of the plugin's four is left to the others.
    await Promise.all(Array.from({ length: 3 }, async (_, lane) => {
      for (let i = 0; i < 34; i += 1) {
        const client = ask(`/way/${['query', 'transaction', 'service', 'query of a client'][(i + lane) % 4]}`, newName());
        await delay(Math.random() * 40);
        client.leave();
      }
    }));
    storming = false;
    await Promise.all(stayers);
    t.strictSame(failures, [], 'no other request has failed');
    t.ok(answered > 10, `${answered} were answered while 102 were given up`);
    await eventually('nothing sleeps but the slow call', 2_000, async () => ((await count(`state = 'active' AND query LIKE '%pg_sleep%' AND query NOT LIKE '%/* ${tooLong} */%'`)) === 0 ? true : undefined));
    t.strictSame(await generations(), atFirst, 'nobody has died');
  });

  t.test('a call that takes too long is given up at the provider', async (t) => {
    t.equal(await slowCall.status, 503);
    await awake(tooLong, Date.now());
    t.match(await outcome(tooLong), { code: 'SERVICE_UNAVAILABLE', message: new RegExp(`within ${SERVICE_CALL_TIMEOUT_MS} ms`) });
    t.match(await outcome(tooLong, 'vault'), NOBODY_WAITS);
  });

  t.test('after all of this everything is at rest', async (t) => {
    await eventually('no request is open and every connection is back', LEASE_IDLE_MS + 3_000, async () => {
      const { requests, connections } = kernel.kernel.supervisor.census();
      return requests === 0 && connections === 0 ? true : undefined;
    });
    t.equal(await count(`application_name LIKE 'bulkhead/%'`), 0);
  });

  t.test('and none of it is an error in the log', async (t) => {
    // The server has a word of its own for connections that a killed worker leaves in the middle of a statement, when it sees their end before the cancellation.
    const ofMortal = ({ plugin, msg }: Record<string, unknown>): boolean => plugin === 'mortal' || msg === 'postgres: FATAL:  connection to client lost';
    const errors = kernel.logLines.filter((line) => ['warn', 'error', 'fatal'].includes(line['level'] as string) && !ofMortal(line));
    // A handler's own error, and a call that was not answered in time.
    t.strictSame(errors.filter(({ err }) => err?.message !== 'enough' && err?.code !== 'SERVICE_UNAVAILABLE'), []);
    t.ok(kernel.logLines.some(({ level, err }) => level === 'debug' && err?.code === 'ABORT_ERR'), 'who wants to know finds it at level debug');
  });
});
