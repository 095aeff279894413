// Migrations of plugins: once, in order, all or none, whoever asks and however often.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import t from 'tap';
import { MIGRATIONS_LOCK_WAIT_MS } from '../../protocol/database-limits.js';
import { migrate } from '../../kernel/database/migrations.js';
import { Scopes } from '../../kernel/database/scopes.js';
import { startTestKernel, type TestKernel } from '../helpers/kernel.js';
import { openDatabase } from '../helpers/lent.js';
import { onEachServer } from '../helpers/postgres.js';

const plugin = (name: string): string => `
  export default { name: '${name}', version: '1.0.0', routes(app, { db }) { app.get('/', async () => (await db.query('SELECT * FROM goods ORDER BY 1')).rows); } };`;

const ledger = (kernel: TestKernel, name: string): Promise<{ number: number; name: string }[]> => kernel.query(`SELECT number, name FROM plugin_${name}.bulkhead_migrations ORDER BY number`);

onEachServer(t, 'migrations run once, in order, before init()', async (t, url) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'items', DATABASE_URL: url });
  t.strictSame(await ledger(kernel, 'items'), [{ number: 1, name: '0001-items.sql' }], 'the table of items arrives this way');
  t.equal((await kernel.request('POST', '/items', { name: 'anchor' })).status, 201);

  await kernel.writePlugin('shop', plugin('shop'));
  await kernel.writePlugin('shop', 'ALTER TABLE goods ADD COLUMN price integer NOT NULL DEFAULT 7;', 'migrations/0002-price.sql');
  await kernel.writePlugin('shop', "CREATE TABLE goods (name text); INSERT INTO goods VALUES ('rope');", 'migrations/0001-goods.sql');
  await kernel.writePlugin('shop', 'Read me.', 'migrations/README.md');
  for (const verb of ['load', 'start'] as const) t.equal((await kernel.verb(verb, 'shop')).status, 200);
  t.strictSame((await kernel.get('/plugins/shop')).json, [{ name: 'rope', price: 7 }]);

  for (const verb of ['restart', 'unload', 'load', 'start', 'stop', 'start'] as const) t.equal((await kernel.verb(verb, 'shop')).status, 200);
  t.strictSame((await kernel.get('/plugins/shop')).json, [{ name: 'rope', price: 7 }], 'and never again');
  await kernel.writePlugin('shop', "INSERT INTO goods VALUES ('tar', 9);", 'migrations/0010-tar.sql');
  t.equal((await kernel.verb('restart', 'shop')).status, 200);
  t.strictSame((await kernel.get('/plugins/shop')).json, [{ name: 'rope', price: 7 }, { name: 'tar', price: 9 }], 'a new one runs at the next load');
  t.strictSame((await ledger(kernel, 'shop')).map(({ number }) => number), [1, 2, 10]);
  t.match(kernel.logLines.find(({ migrations }) => migrations?.includes('0010-tar.sql')), { plugin: 'shop', level: 'info' });

  await rm(join(kernel.pluginsDir, 'shop/migrations/0010-tar.sql'));
  t.equal((await kernel.verb('restart', 'shop')).status, 200, 'an older version of the plugin still runs');
  t.match(kernel.logLines.find(({ migration }) => migration === '0010-tar.sql'), { level: 'warn', msg: /older version/ });

  t.test('a kernel that follows does not run them again', async (t) => {
    await kernel.stop();
    const next = await startTestKernel(t, { PLUGINS_ENABLED: 'items', DATA_DIR: kernel.dataDir, DATABASE_URL: url });
    t.match((await next.get('/items')).json, [{ name: 'anchor' }]);
  });
});

onEachServer(t, 'a migration that fails leaves the database as it was, and the plugin failed', async (t, url) => {
  const kernel = await startTestKernel(t, { DATABASE_URL: url });
  await kernel.writePlugin('shop', plugin('shop'));
  const tables = (): Promise<object[]> => kernel.query("SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'plugin_shop' AND relkind = 'r'");
  const write = (sql: string, file = '0002-second.sql'): Promise<void> => kernel.writePlugin('shop', sql, `migrations/${file}`);
  await write('CREATE TABLE goods (name text);', '0001-first.sql');
  const cases: [sql: string, reason: RegExp][] = [
    ['INSERT INTO goods VALUES (1);\n\nSELECT  nowhere;', /column "nowhere" does not exist \(SQLSTATE 42703\) at line 3, column 9\. The database is as it was/],
    ['CREATE TABLE more (a int);\nCREATE TABLE goods (b int);', /relation "goods" already exists \(SQLSTATE 42P07\)/],
    ["-- ünïcödé 🚢\nSELEC 1", /syntax error at or near "SELEC" \(SQLSTATE 42601\) at line 2, column 1/],
    ['CREATE TABLE a (n int PRIMARY KEY); CREATE TABLE b (n int REFERENCES a DEFERRABLE INITIALLY DEFERRED); INSERT INTO b VALUES (1)', /violates foreign key constraint .*\(SQLSTATE 23503\)\. The database is as it was/],
    ["DO $$ BEGIN RAISE EXCEPTION 'no wind'; END $$", /no wind \(SQLSTATE P0001\)/],
    ['DROP TABLE pg_catalog.pg_class', /must be owner/],
    ['SET ROLE bulkhead', /permission denied/],
    ['CREATE TABLE more (a int); SELECT pg_terminate_backend(pg_backend_pid())', /terminating connection|Connection terminated/],
  ];
  for (const [sql, reason] of cases) {
    await write(sql);
    const answer = await kernel.verb('load', 'shop');
    t.match(answer.json.message, reason);
    t.match(await kernel.status('shop'), { status: 'failed', error: reason, workers: [] }, 'the status says it too');
    if (/SQLSTATE/.test(answer.json.message)) t.match(answer, { status: 422, json: { code: 'PLUGIN_MIGRATION_FAILED', message: /0002-second\.sql of plugin "shop"/ } });
    t.strictSame(await tables(), [], 'not even the first one has run');
  }
  await write('COMMIT; CREATE TABLE more (a int)');
  t.match((await kernel.verb('load', 'shop')).json, { code: 'PLUGIN_MIGRATION_FAILED', message: /ends the transaction/ });
  await kernel.query('DROP TABLE plugin_shop.goods, plugin_shop.bulkhead_migrations');

  await write('SELECT 1');
  t.equal((await kernel.verb('load', 'shop')).status, 200, 'mended, it loads');
  await write('SELECT 2');
  t.match((await kernel.verb('restart', 'shop')).json, { code: 'PLUGIN_MIGRATION_FAILED', message: /0002-second\.sql.*is not what ran as 0002-second\.sql; leave a migration as it is/ });
  await write('SELECT 1');
  await write('SELECT 3', '0002-twin.sql');
  t.match((await kernel.verb('load', 'shop')).json.message, /another one has the same number/);
  await rm(join(kernel.pluginsDir, 'shop/migrations/0002-twin.sql'));
  await write('SELECT 3', '3-third.sql');
  t.match((await kernel.verb('load', 'shop')).json.message, /3-third\.sql.*four digits and a word/);
  await rm(join(kernel.pluginsDir, 'shop/migrations/3-third.sql'));
  t.equal((await kernel.verb('start', 'shop')).status, 200);
});

t.test('a plugin that holds the lock of another keeps it from being loaded, and no more', async (t) => {
  const kernel = await startTestKernel(t);
  const other = new pg.Client(kernel.databaseUrl);
  await other.connect();
  await other.query("SELECT pg_advisory_lock(hashtext('bulkhead'), hashtext('plugin_items'))");
  const began = performance.now();
  t.match(await kernel.verb('load', 'items'), { status: 503, json: { code: 'DATABASE_BUSY', message: /somebody else.*pg_locks/ } });
  t.ok(performance.now() - began < MIGRATIONS_LOCK_WAIT_MS + 3_000);
  await other.end();
  t.equal((await kernel.verb('start', 'items')).status, 200);
});

t.test('two kernels on one database take turns', async (t) => {
  const kernel = await startTestKernel(t);
  await kernel.writePlugin('shop', plugin('shop'));
  for (let i = 1; i <= 5; i += 1) await kernel.writePlugin('shop', `CREATE TABLE t${i} (a int); SELECT pg_sleep(0.05);`, `migrations/000${i}-t.sql`);
  const log = { info() {}, warn() {} };
  await Promise.all(Array.from({ length: 4 }, async () => {
    const database = openDatabase(t, kernel.databaseUrl);
    await migrate({ database, scopes: new Scopes({ database, roles: true, log }), plugin: 'shop', folder: join(kernel.pluginsDir, 'shop'), log });
  }));
  t.strictSame((await ledger(kernel, 'shop')).map(({ number }) => number), [1, 2, 3, 4, 5], 'each ran once');
});
