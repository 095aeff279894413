// How long a plugin may have a connection, and for what: limits that hold whatever it says on it, and connections that go to who waits.
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import t from 'tap';
import { LEASE_WAIT_MS, LOAN_GRACE_MS, LOAN_LOOK_INTERVAL_MS, LOAN_RECALL_MS } from '../../protocol/database-limits.js';
import { LoanClock } from '../../kernel/database/loan-clock.js';
import { PLUGIN_LIMITS } from '../../protocol/limits.js';
import { startTestKernel } from '../helpers/kernel.js';
import { eventually, lend, openDatabase } from '../helpers/lent.js';
import { onEachServer } from '../helpers/postgres.js';

/** By how much the end of something may come after its limit. */
const LATE_MS = LOAN_GRACE_MS + LOAN_LOOK_INTERVAL_MS + 500;

onEachServer(t, 'limits of a loan', async (t, url) => {
  const admin = new pg.Pool({ connectionString: url, max: 2, application_name: 'test' });
  admin.on('error', () => {});
  t.teardown(() => admin.end());
  const backends = async (plugin: string): Promise<number> =>
    (await admin.query('SELECT count(*)::int AS count FROM pg_stat_activity WHERE application_name = $1', [`bulkhead/${plugin}`])).rows[0].count;
  const timed = async (work: Promise<unknown>): Promise<[error: Error & { code?: string }, ms: number]> => {
    const began = performance.now();
    const error = await work.then(() => t.fail('it went well'), (thrown: unknown) => thrown);
    return [error as Error, performance.now() - began];
  };

  await t.test('a statement that takes too long is cancelled by the server, and the connection is good after it', async (t) => {
    const { pool } = lend(t, url, { quota: 1, limits: { statementTimeoutMs: 200 } });
    const client = await pool.connect();
    const pid = (await client.query('SELECT pg_backend_pid() AS pid')).rows[0].pid;
    const [error, ms] = await timed(client.query('SELECT pg_sleep(30)'));
    t.match(error, { code: '57014', message: /statement timeout/ });
    t.ok(ms > 150 && ms < 1_000, `after ${ms.toFixed(0)} ms`);
    t.equal((await client.query('SELECT pg_backend_pid() AS pid')).rows[0].pid, pid);
    client.release();
  });

  await t.test('a plugin that turns the server\'s limit off loses the connection', async (t) => {
    const { pool } = lend(t, url, { quota: 1, plugin: 'stubborn', limits: { statementTimeoutMs: 200 } });
    await pool.query('SET statement_timeout TO 0');
    const [error, ms] = await timed(pool.query('SELECT pg_sleep(30)'));
    t.match(error, { code: 'DATABASE_UNAVAILABLE', message: /a statement took more than 200 ms; limits\.statementTimeoutMs may be more/ });
    t.ok(ms < 200 + LATE_MS, `after ${ms.toFixed(0)} ms`);
    await eventually('the server has stopped', async () => (await backends('stubborn')) === 0, 1_000);
    t.same((await pool.query('SELECT 1 AS one')).rows, [{ one: 1 }], 'and gets another one');
  });

  await t.test('many short statements take as long as they like together', async (t) => {
    const { pool } = lend(t, url, { quota: 1, limits: { statementTimeoutMs: 300 } });
    const client = await pool.connect();
    await Promise.all(Array.from({ length: 20 }, () => client.query('SELECT pg_sleep(0.05)')));
    client.release();
    t.pass('a second of them, sent at once');
  });

  await t.test('a transaction that is left open is ended', async (t) => {
    const { pool } = lend(t, url, { plugin: 'dreamer', limits: { transactionIdleMs: 200 } });
    for (const resist of [false, true]) {
      const client = await pool.connect();
      const ended = new Promise<Error>((resolve) => client.once('error', resolve));
      if (resist) await client.query('SET idle_in_transaction_session_timeout TO 0');
      await client.query('BEGIN');
      await client.query('CREATE TABLE dreams ()');
      const [error, ms] = await timed(ended.then((error) => { throw error; }));
      t.match(error, resist ? { code: 'DATABASE_UNAVAILABLE', message: /a transaction was left open for more than 200 ms/ } : { code: '25P03' });
      t.ok(ms < 200 + LATE_MS, `after ${ms.toFixed(0)} ms`);
      client.release(true);
    }
    await eventually('its backends are gone', async () => (await backends('dreamer')) === 0);
    t.same((await admin.query('SELECT to_regclass(\'dreams\') AS dreams')).rows, [{ dreams: null }], 'and rolled back');
  });

  await t.test('a connection that is lent for long enough is given back between two uses', async (t) => {
    const { pool } = lend(t, url, { quota: 1, limits: { loanMs: 500 } });
    const pid = async (): Promise<number> => (await pool.query('SELECT pg_backend_pid() AS pid, pg_sleep(0.02)')).rows[0].pid;
    const began = performance.now();
    let failed = 0;
    let loans = 0;
    pool.on('connect', () => (loans += 1));
    while (performance.now() - began < 1_250) await pid().catch(() => (failed += 1));
    t.ok(loans === 2 || loans === 3, `it was lent ${loans} times in 1.25 s`);
    t.equal(failed, 0, 'and no query noticed');
  });

  await t.test('and taken away when nobody gives it back', async (t) => {
    let now = 0;
    const clock = new LoanClock(PLUGIN_LIMITS, () => now);
    clock.begin();
    now = PLUGIN_LIMITS.loanMs;
    t.strictSame([clock.old, clock.overdue()], [false, null]);
    now += 1;
    t.strictSame([clock.old, clock.overdue()], [true, null]);
    now += LOAN_RECALL_MS;
    t.match(clock.overdue(), /it kept the connection for more than 3600000 ms/);
  });

  await t.test('a plugin that waits gets a connection of one that has more, which notices nothing', async (t) => {
    const database = openDatabase(t, url, 4);
    const greedy = lend(t, url, { database, plugin: 'greedy' });
    const modest = lend(t, url, { database, plugin: 'modest' });
    let busy = true;
    let failed = 0;
    const work = Promise.all(Array.from({ length: 16 }, async () => {
      while (busy) await greedy.pool.query('SELECT pg_sleep(0.01)').catch(() => (failed += 1));
    }));
    await eventually('the greedy one has them all', async () => (await backends('greedy')) === 4);
    const waits: number[] = [];
    for (let i = 0; i < 20; i += 1) {
      const began = performance.now();
      const client = await modest.pool.connect();
      waits.push(performance.now() - began);
      await client.query('SELECT 1');
      // Back to the kernel, not into the plugin's own pool.
      client.release(true);
      await sleep(20);
    }
    busy = false;
    await work;
    waits.sort((a, b) => a - b);
    t.ok(waits.at(-1)! < 500, `it waited for ${waits[10]!.toFixed(0)} ms in the median, ${waits.at(-1)!.toFixed(0)} at most`);
    t.equal(failed, 0);
  });

  await t.test('an idle connection is called in at once', async (t) => {
    const database = openDatabase(t, url, 2);
    const sleepy = lend(t, url, { database, plugin: 'sleepy' });
    const awake = lend(t, url, { database, plugin: 'awake' });
    await Promise.all([sleepy.pool.query('SELECT pg_sleep(0.05)'), sleepy.pool.query('SELECT pg_sleep(0.05)')]);
    t.equal(await backends('sleepy'), 2);
    const began = performance.now();
    await awake.pool.query('SELECT 1');
    t.ok(performance.now() - began < 500, `after ${(performance.now() - began).toFixed(0)} ms`);
    t.same((await sleepy.pool.query('SELECT 2 AS two')).rows, [{ two: 2 }]);
  });

  await t.test('when all have the same, who waits for too long hears that the database is busy', async (t) => {
    const database = openDatabase(t, url, 1);
    const first = lend(t, url, { database, plugin: 'first' });
    const statement = first.pool.query("SELECT pg_sleep(60) /* the first one's */").catch((error: unknown) => error);
    const second = lend(t, url, { database, plugin: 'second' });
    const [error, ms] = await timed(second.pool.query('SELECT 1'));
    t.match(error, { code: 'DATABASE_BUSY', statusCode: 503, message: /no connection became free within 5000 ms/ });
    t.ok(ms >= LEASE_WAIT_MS - 100 && ms < LEASE_WAIT_MS + 1_000);
    await admin.query("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'bulkhead/first'");
    t.match(await statement, { code: '57014' });
    t.same((await second.pool.query('SELECT 1 AS one')).rows, [{ one: 1 }]);
  });
});

t.test('a worker that dies inside a hundred transactions leaves nothing behind', async (t) => {
  const kernel = await startTestKernel(t, { DATABASE_POOL_MAX: '102' });
  await kernel.writePlugin('hundred', `
    export default {
      name: 'hundred', version: '1.0.0', limits: { connections: 100 },
      async init({ db }) { await db.query('CREATE TABLE IF NOT EXISTS rows (n int PRIMARY KEY)'); },
      routes(app, { db }) {
        app.post('/begin', async () => {
          await Promise.all(Array.from({ length: 100 }, async (_, n) => {
            const client = await db.connect();
            await client.query('BEGIN');
            await client.query('INSERT INTO rows VALUES ($1)', [n]);
          }));
          return {};
        });
        app.post('/exit', () => process.exit(1));
      },
    };`);
  for (const verb of ['load', 'start'] as const) t.equal((await kernel.verb(verb, 'hundred')).status, 200);
  const census = (): { connections: number } => kernel.kernel.supervisor.census();
  const backends = async (name = 'bulkhead/hundred'): Promise<number> => (await kernel.query<{ n: number }>('SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name = $1', [name]))[0]!.n;
  const median = (times: readonly number[]): number => [...times].sort((a, b) => a - b)[times.length >> 1]!;

  /** What PostgreSQL itself takes to end a hundred processes at once, whose clients hang up. */
  const plain: number[] = [];
  for (let round = 0; round < 5; round += 1) {
    const clients = Array.from({ length: 100 }, () => new pg.Client({ connectionString: kernel.databaseUrl, application_name: 'plain' }).on('error', () => {}));
    await Promise.all(clients.map(async (client, n) => {
      await client.connect();
      await client.query('BEGIN');
      await client.query('INSERT INTO plugin_hundred.rows VALUES ($1)', [n]);
    }));
    const began = Date.now();
    for (const client of clients) client.connection.stream.destroy();
    await eventually('they are gone', async () => (await backends('plain')) === 0);
    plain.push(Date.now() - began);
  }
  const times: number[] = [];
  for (let round = 0; round < 5; round += 1) {
    await kernel.until('hundred', 'running');
    t.equal((await kernel.request('POST', '/plugins/hundred/begin')).status, 200);
    t.equal(await backends(), 100, 'a hundred transactions are open');
    const exit = kernel.request('POST', `/plugins/hundred/exit?round=${round}`);
    await eventually('no backend is left', async () => (await backends()) === 0);
    const gone = Date.now();
    t.equal((await exit).status, 502);
    times.push(gone - (await kernel.status('hundred')).deaths.at(-1)!.at);
    await eventually('the pool is back to its size', () => census().connections === 0);
    t.strictSame(await kernel.query('SELECT * FROM plugin_hundred.rows'), [], 'all is rolled back');
  }
  t.ok(median(times) < 100 + median(plain), `the last backend was gone after ${times.join(', ')} ms; PostgreSQL itself takes ${plain.join(', ')} ms for a hundred`);
});

t.test('a statement that catches every cancellation ends with its plugin', async (t) => {
  const kernel = await startTestKernel(t);
  await kernel.writePlugin('stubborn', `
    export default {
      name: 'stubborn', version: '1.0.0', limits: { statementTimeoutMs: 300 },
      routes(app, { db }) {
        app.post('/cling', async () => {
          await db.query("SET client_connection_check_interval TO 0; DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(9); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$");
        });
        app.post('/exit', () => process.exit(1));
      },
    };`);
  for (const verb of ['load', 'start'] as const) t.equal((await kernel.verb(verb, 'stubborn')).status, 200);
  const backends = async (): Promise<number> => (await kernel.query<{ n: number }>("SELECT count(*)::int AS n FROM pg_stat_activity WHERE usename = 'plugin_stubborn' AND state = 'active'"))[0]!.n;
  const clinging = kernel.request('POST', '/plugins/stubborn/cling');
  await eventually('it clings', async () => (await backends()) === 1);
  t.match((await clinging).json, { statusCode: 503, code: 'DATABASE_UNAVAILABLE', message: /a statement took more than 300 ms/ });
  await eventually('it is gone from the server', async () => (await backends()) === 0, 3_000);
  void kernel.request('POST', '/plugins/stubborn/cling?again');
  await eventually('it clings again', async () => (await backends()) === 1);
  await kernel.request('POST', '/plugins/stubborn/exit');
  await eventually('nor does it outlive its plugin', async () => (await backends()) === 0, 3_000);
});

t.test('many plugins on few connections', async (t) => {
  const kernel = await startTestKernel(t, { DATABASE_POOL_MAX: '2' });
  const source = (name: string): string => `
    export default {
      name: '${name}', version: '1.0.0',
      routes(app, { db }) {
        app.get('/ask', async () => (await db.query('SELECT pg_sleep(0.005), 1 AS one')).rows[0]);
        app.get('/sleep', async () => { await db.query("SELECT pg_sleep(20) /* ${name} */"); return {}; });
        app.post('/hoard', async () => { await Promise.all([db.connect(), db.connect()]); return {}; });
      },
    };`;
  const names = ['north', 'east', 'south', 'west'];
  for (const name of names) {
    await kernel.writePlugin(name, source(name));
    for (const verb of ['load', 'start'] as const) t.equal((await kernel.verb(verb, name)).status, 200);
  }
  const ask = (name: string): Promise<number> => kernel.get(`/plugins/${name}/ask`).then(({ status }) => status);

  await t.test('all of them are served', async (t) => {
    const answers = await Promise.all(Array.from({ length: 100 }, (_, i) => ask(names[i % 4]!)));
    t.strictSame(answers.filter((status) => status !== 200), [], 'a hundred questions of four plugins on two connections');
  });

  await t.test('one that hoards connections without using them loses them to who waits', async (t) => {
    t.equal((await kernel.request('POST', '/plugins/north/hoard')).status, 200);
    const began = performance.now();
    const served = await kernel.get('/plugins/east/ask');
    t.equal(served.status, 200, served.text);
    t.ok(performance.now() - began < LEASE_WAIT_MS, `after ${Math.round(performance.now() - began)} ms`);
    t.equal(await ask('north'), 200, 'and has connections as before');
  });

  await t.test('a client that leaves ends its statement also there', async (t) => {
    const running = async (): Promise<number> => (await kernel.query<{ n: number }>("SELECT count(*)::int AS n FROM pg_stat_activity WHERE query LIKE '%pg_sleep(20)%' AND state = 'active' AND application_name <> 'test'"))[0]!.n;
    const controllers = Array.from({ length: 6 }, () => new AbortController());
    const gone = controllers.map(({ signal }) => fetch(`${kernel.url}/plugins/south/sleep`, { signal }).then(() => 'answered', () => 'gone'));
    await eventually('one of them runs, the others wait', async () => (await running()) >= 1);
    for (const controller of controllers) controller.abort();
    t.strictSame(await Promise.all(gone), controllers.map(() => 'gone'));
    await eventually('nothing runs any more', async () => (await running()) === 0, 1_000);
    t.equal(await ask('south'), 200);
  });
});
