// A database that is away, at boot and later: who needs it hears so at once, nobody else notices, and all goes on when it is back.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { DATABASE_PING_TIMEOUT_MS, DATABASE_WATCH_INTERVAL_MS } from '../../protocol/database-limits.js';
import { eventually, startTestKernel, type TestKernel } from '../helpers/kernel.js';
import { startPostgres } from '../helpers/postgres.js';
import { startProxy } from '../helpers/proxy.js';

interface Hit { readonly at: number; readonly ms: number; readonly status: number; readonly code: string | undefined }

/** Asks every 10 ms, without waiting for answers. */
function watch(t: Test, kernel: TestKernel, path: string): Hit[] {
  const hits: Hit[] = [];
  const timer = setInterval(() => {
    const began = performance.now();
    void kernel.get(path).then(({ status, json }) => hits.push({ at: began, ms: performance.now() - began, status, code: json.code }), (error) => t.fail(`${path}: ${error}`));
  }, 10);
  t.teardown(() => clearInterval(timer));
  return hits;
}

const ready = async (kernel: TestKernel): Promise<unknown[]> => {
  const { status, json } = await kernel.get('/health/ready');
  return [status, json.status, json.database];
};

t.test('a kernel boots without its database, and plugins that need it come up when it comes', async (t) => {
  const proxy = await startProxy(t, (await startPostgres(t)).url);
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'hello,items', DATABASE_URL: proxy.url, DATABASE_WAIT_MS: '1500' });
  t.equal((await kernel.get('/plugins/hello/')).status, 200, 'a plugin without a database runs');
  t.strictSame(await ready(kernel), [503, 'starting', 'error']);
  t.match(await kernel.status('items'), { status: /restarting|failed/, error: /The database cannot be reached: connect ECONNREFUSED/ });
  t.match((await kernel.get('/items')).status, 503);
  t.ok(await eventually('the log says what to do', 3_000, async () => kernel.logLines.find(({ level, msg }) => level === 'error' && /not come within 1500 ms.*DATABASE_URL/.test(msg))));
  await delay(2_000); // the waits between restarts have grown
  await proxy.open();
  const began = performance.now();
  await kernel.until('items', 'running', 5_000);
  t.ok(performance.now() - began < 2_000, `it runs ${Math.round(performance.now() - began)} ms after the database was there`);
  t.equal((await kernel.request('POST', '/items', { name: 'anchor' })).status, 201);
  t.strictSame(await ready(kernel), [200, 'ok', 'ok']);
  t.ok(kernel.logLines.filter(({ level, msg }) => level === 'warn' && /database/.test(msg) && !/items:/.test(msg)).length <= 2, 'the outage is told once');
});

t.test('a boot waits as long as it may', async (t) => {
  const proxy = await startProxy(t, (await startPostgres(t)).url);
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'items', DATABASE_URL: proxy.url });
  t.strictSame(await ready(kernel), [503, 'starting', 'error']);
  await proxy.open();
  await eventually('it is ready', 2_000, async () => ((await ready(kernel))[0] === 200 ? true : undefined));
  t.strictSame(kernel.logLines.filter(({ level }) => level === 'error'), [], 'and nobody was alarmed');
});

t.test('a database that goes away under load', async (t) => {
  const proxy = await startProxy(t, (await startPostgres(t)).url);
  await proxy.open();
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'hello,items', DATABASE_URL: proxy.url });
  const { generation } = await kernel.status('items');
  const items = watch(t, kernel, '/items?limit=1');
  const hello = watch(t, kernel, '/plugins/hello/');
  await delay(500);

  for (const [how, silentMs] of [['cut', 0], ['mute', DATABASE_WATCH_INTERVAL_MS + DATABASE_PING_TIMEOUT_MS / 2]] as const) {
    const from = performance.now();
    await proxy[how]();
    await delay(silentMs + 1_500);
    const health = await kernel.get('/health');
    t.strictSame([health.status, health.json], [503, { status: 'error', database: 'error' }], `${how}: /health says so`);
    await proxy.open();
    const back = performance.now();
    await eventually('items answers again', 5_000, async () => ((await kernel.get('/items?limit=1')).status === 200 ? true : undefined));
    const ms = performance.now() - back;
    t.ok(ms < 2_000, `${how}: it answers again ${Math.round(ms)} ms after the database is back`);
    await delay(500);

    const during = items.filter(({ at }) => at > from + 50 && at < back - 50);
    t.ok(during.length > 20, `${during.length} requests came meanwhile`);
    t.strictSame([...new Set(during.map(({ status, code }) => `${status} ${code}`))], ['503 DATABASE_UNAVAILABLE'], `${how}: each request is told that the database is away`);
    // A server that says nothing is only known for one when it has been asked.
    const late = during.filter(({ at }) => at > from + silentMs + 300).map((hit) => hit.ms).sort((a, b) => a - b);
    t.ok(late[late.length * 0.9 | 0]! < 200, `${how}: at once, nine of ten within ${Math.round(late[late.length * 0.9 | 0]!)} ms`);
    t.equal(items.at(-1)!.status, 200);
  }
  t.equal((await kernel.status('items')).generation, generation, 'no plugin was restarted');
  t.strictSame(hello.filter(({ status }) => status !== 200), [], 'and who needs no database has not noticed');
});

t.test('a PostgreSQL that is stopped and started under load', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'hello,items' });
  const { generation } = await kernel.status('items');
  const items = watch(t, kernel, '/items?limit=1');
  const hello = watch(t, kernel, '/plugins/hello/');
  const postmaster = async (): Promise<number> => Number((await readFile(join(kernel.dataDir, 'postgres/postmaster.pid'), 'utf8')).split('\n')[0]);
  for (const signal of ['SIGINT', 'SIGQUIT', 'SIGKILL'] as const) {
    await delay(300);
    const pid = await postmaster();
    process.kill(pid, signal);
    await eventually('another server is there', 10_000, async () => ((await postmaster().catch(() => pid)) === pid ? undefined : true));
    await eventually('and ready', 10_000, async () => (/ready/.test(await readFile(join(kernel.dataDir, 'postgres/postmaster.pid'), 'utf8')) ? true : undefined));
    const back = performance.now();
    await eventually('items answers again', 5_000, async () => ((await kernel.get('/items?limit=1')).status === 200 ? true : undefined));
    t.ok(performance.now() - back < 2_000, `${signal}: ${Math.round(performance.now() - back)} ms after the server`);
  }
  await delay(200);
  t.strictSame([...new Set(items.map(({ status, code }) => `${status} ${code}`))].sort(), ['200 undefined', '503 DATABASE_UNAVAILABLE']);
  t.equal((await kernel.status('items')).generation, generation);
  t.strictSame(hello.filter(({ status }) => status !== 200), []);
});
