// Each plugin in its own part of the database: what it finds there, what others let it do, and what no SQL can get it.
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import t, { type Test } from 'tap';
import { Scopes } from '../../kernel/database/scopes.js';
import type { Grant } from '../../protocol/grants.js';
import { applyGrants } from '../../kernel/database/grants.js';
import { eventually, startTestKernel, type TestKernel } from '../helpers/kernel.js';
import { openDatabase } from '../helpers/lent.js';
import { onEachServer, startPostgres } from '../helpers/postgres.js';

/** A plugin that runs what it is told. */
const shell = (name: string, grants: readonly Grant[] = [], sql = `CREATE TABLE IF NOT EXISTS secrets (secret text); INSERT INTO secrets VALUES ('of ${name}')`): string => `
  export default {
    name: '${name}', version: '1.0.0', grants: ${JSON.stringify(grants)},
    async init({ db }) { await db.query(${JSON.stringify(sql)}); },
    routes(app, { db }) {
      app.post('/sql', async ({ body }) => {
        try {
          const answers = [await db.query(body.sql)].flat();
          return { rows: answers.at(-1).rows };
        } catch (error) { return { error: error.message, code: error.code }; }
      });
      // As a client of its own that keeps its session for all that it is told.
      app.post('/session', async ({ body }) => {
        const client = await db.connect();
        const said = [];
        for (const sql of body.statements) said.push(await client.query(sql).then((result) => [result].flat().at(-1).rows, (error) => error.code));
        client.release(true); // the next one asks for a loan of its own
        return said;
      });
    },
  };`;

async function board(t: Test, environment: Record<string, string> = {}): Promise<{ kernel: TestKernel; ask: (plugin: string, sql: string) => Promise<any>; talk: (plugin: string, statements: string[]) => Promise<any[]> }> {
  const kernel = await startTestKernel(t, environment);
  return {
    kernel,
    ask: async (plugin, sql) => (await kernel.request('POST', `/plugins/${plugin}/sql`, { sql })).json,
    talk: async (plugin, statements) => (await kernel.request('POST', `/plugins/${plugin}/session`, { statements })).json as unknown[],
  };
}

async function run(kernel: TestKernel, name: string, source: string): Promise<void> {
  await kernel.writePlugin(name, source);
  for (const verb of ['load', 'start'] as const) {
    const { status, text } = await kernel.verb(verb, name);
    if (status !== 200) throw new Error(`${verb} ${name}: ${text}`);
  }
}

onEachServer(t, 'a plugin has a schema and a role of its own', async (t, url) => {
  const { kernel, ask, talk } = await board(t, { PLUGINS_ENABLED: 'items,analytics', DATABASE_URL: url });
  await run(kernel, 'vault', shell('vault'));
  await run(kernel, 'thief-1', shell('thief-1'));

  t.strictSame(await talk('thief-1', ['SELECT current_user, session_user', 'SHOW search_path', 'SELECT secret FROM secrets', "SELECT current_setting('application_name') AS name"]), [
    [{ current_user: 'plugin_thief-1', session_user: 'plugin_thief-1' }], [{ search_path: '"plugin_thief-1", public' }], [{ secret: 'of thief-1' }], [{ name: 'bulkhead/thief-1' }],
  ]);
  t.strictSame(await kernel.query("SELECT schemaname, tableowner FROM pg_tables WHERE schemaname LIKE 'plugin%' AND tablename <> 'bulkhead_migrations' ORDER BY 1"), [
    { schemaname: 'plugin_items', tableowner: 'plugin_items' }, { schemaname: 'plugin_thief-1', tableowner: 'plugin_thief-1' }, { schemaname: 'plugin_vault', tableowner: 'plugin_vault' },
  ], 'what it makes is its own');
  t.strictSame((await kernel.get('/plugins/analytics/count')).json, { items_count: 0 }, 'items lets analytics read');
  t.match(await ask('thief-1', 'SELECT * FROM plugin_items.items'), { code: '42501' }, 'and nobody else');

  const before = await kernel.query("SELECT (SELECT count(*) FROM plugin_vault.secrets) AS secrets, (SELECT count(*) FROM pg_roles) AS roles, (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'plugin%') AS schemas");
  const sleep = ask('vault', 'SELECT pg_sleep(3)');
  const vault = await eventually('it sleeps', 2_000, async () => (await kernel.query<{ pid: number }>("SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3)' AND state = 'active' AND usename = 'plugin_vault'"))[0]);
  const kernelUser = (await kernel.query<{ user: string }>('SELECT current_user AS user'))[0]!.user;
  /** Each must fail with one of these codes: forbidden, or not there for this role. */
  const hostile = [
    `SELECT pg_terminate_backend(${vault.pid})`, `SELECT pg_cancel_backend(${vault.pid})`, `SELECT pg_terminate_backend(${(await kernel.query<{ pid: number }>('SELECT pg_backend_pid() AS pid'))[0]!.pid})`,
    'SELECT * FROM plugin_vault.secrets', 'INSERT INTO plugin_vault.secrets VALUES (1)', 'DROP TABLE plugin_vault.secrets', 'DROP SCHEMA plugin_vault CASCADE', 'CREATE TABLE plugin_vault.mine (a int)',
    'ALTER SCHEMA plugin_vault OWNER TO CURRENT_USER', 'GRANT ALL ON plugin_vault.secrets TO CURRENT_USER', 'TRUNCATE plugin_items.items', 'BEGIN; LOCK TABLE plugin_items.items', 'SELECT * FROM plugin_items.bulkhead_migrations',
    `SET ROLE ${kernelUser}`, 'SET ROLE plugin_vault', `SET SESSION AUTHORIZATION ${kernelUser}`, 'SET SESSION AUTHORIZATION plugin_vault', `RESET SESSION AUTHORIZATION; SET ROLE ${kernelUser}`,
    'CREATE ROLE pirate SUPERUSER', 'ALTER ROLE CURRENT_USER SUPERUSER', 'ALTER ROLE CURRENT_USER CREATEROLE', "ALTER ROLE plugin_vault PASSWORD 'mine'", `GRANT ${kernelUser} TO CURRENT_USER`, 'GRANT plugin_vault TO CURRENT_USER', 'GRANT pg_read_all_data TO CURRENT_USER',
    'SELECT * FROM pg_authid', 'SELECT * FROM pg_shadow', 'SELECT * FROM pg_hba_file_rules', "SELECT pg_read_file('/etc/passwd')", "SELECT pg_ls_dir('.')", "SELECT lo_import('/etc/passwd')",
    "COPY (SELECT 1) TO PROGRAM 'touch /tmp/pirate'", "COPY secrets FROM PROGRAM 'id'", "COPY secrets FROM '/etc/passwd'", "COPY secrets TO '/tmp/pirate'", "LOAD 'auto_explain'",
    'CREATE EXTENSION dblink', 'CREATE EXTENSION file_fdw', 'CREATE SCHEMA mine', 'CREATE TABLE public.mine (a int)', 'CREATE DATABASE mine', 'DROP DATABASE postgres', "CREATE TABLESPACE mine LOCATION '/tmp'",
    "ALTER SYSTEM SET work_mem TO '1GB'", 'SELECT pg_reload_conf()', "CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'libc', 'getpid'",
    'CREATE EVENT TRIGGER t ON ddl_command_start EXECUTE FUNCTION now()', 'ALTER DEFAULT PRIVILEGES FOR ROLE plugin_vault GRANT ALL ON TABLES TO PUBLIC', "SET session_preload_libraries TO 'auto_explain'", 'CHECKPOINT', 'REASSIGN OWNED BY plugin_vault TO CURRENT_USER',
    'CREATE SUBSCRIPTION s CONNECTION \'host=localhost\' PUBLICATION p',
  ];
  for (const sql of hostile) {
    const { code, error } = await ask('thief-1', sql);
    t.ok(['42501', '0A000', '3F000', '42704', '0LP01'].includes(code), `${sql}: ${code} ${error}`);
  }
  t.strictSame((await sleep).error, undefined, 'the sleeper was not woken');
  t.strictSame(await ask('thief-1', 'SELECT query FROM pg_stat_activity WHERE usename = \'plugin_vault\' AND query NOT LIKE \'<insufficient%\''), { rows: [] }, 'it cannot see what others ask');
  t.strictSame(await kernel.query("SELECT (SELECT count(*) FROM plugin_vault.secrets) AS secrets, (SELECT count(*) FROM pg_roles) AS roles, (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'plugin%') AS schemas"), before, 'nothing has changed');

  t.test('what it does to its own session and role harms nobody, and is mended when it is loaded again', async (t) => {
    await talk('thief-1', ['SET search_path TO pg_catalog', "SET statement_timeout TO 0", 'SET ROLE NONE', "ALTER ROLE CURRENT_USER PASSWORD 'forgotten'", "ALTER ROLE CURRENT_USER SET search_path TO nowhere", 'CREATE TEMP TABLE secrets (secret int)']);
    t.strictSame(await talk('thief-1', ['SHOW search_path', 'SELECT secret FROM secrets']), [[{ search_path: '"plugin_thief-1", public' }], [{ secret: 'of thief-1' }]], 'the next loan is as the first');
    t.equal((await kernel.verb('restart', 'thief-1')).status, 200);
    t.strictSame(await ask('thief-1', 'SELECT count(*)::int AS secrets, session_user FROM secrets'), { rows: [{ secrets: 2, session_user: 'plugin_thief-1' }] });
    for (const library of ['/tmp/x', 'nope']) {
      await talk('thief-1', [`ALTER ROLE CURRENT_USER SET local_preload_libraries TO '${library}'`]);
      await kernel.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'plugin_thief-1'");
      const answers = await eventually('its role is mended', 5_000, async () => ((await ask('thief-1', 'SELECT session_user')).rows as object[] | undefined));
      t.strictSame(answers, [{ session_user: 'plugin_thief-1' }], 'a role that cannot log in is mended by the next loan, and never replaced by the kernel\'s');
    }
    t.equal((await kernel.get('/plugins/analytics/count')).status, 200);
    t.strictSame(kernel.logLines.filter(({ msg }) => /database.*(cannot be reached|does not answer|is back)/.test(msg)), [], 'and nobody takes that for an outage');
  });

  t.test('roles share the places of the pool, idle ones make room', async (t) => {
    const small = await board(t, { DATABASE_POOL_MAX: '3' });
    const names = ['a', 'b', 'c', 'd', 'e', 'f'];
    for (const name of names) await run(small.kernel, name, shell(name));
    const answers = await Promise.all(Array.from({ length: 10 }, () => names.map((name) => small.ask(name, 'SELECT secret, pg_sleep(0.01) FROM secrets'))).flat());
    t.strictSame(answers.map(({ rows }) => rows?.[0].secret), Array.from({ length: 10 }, () => names.map((name) => `of ${name}`)).flat(), 'sixty questions of six roles on three connections');
    const [{ count }] = await small.kernel.query<{ count: number }>("SELECT count(*)::int AS count FROM pg_stat_activity WHERE application_name <> 'test' AND backend_type = 'client backend'") as [{ count: number }];
    t.ok(count <= 4, `there are ${count} connections: three, and one for the health check`);
  });
});

t.test('grants follow the manifest', async (t) => {
  const { kernel, ask } = await board(t);
  const tables = 'CREATE TABLE IF NOT EXISTS open (a int); CREATE TABLE IF NOT EXISTS shut (a int)';
  await run(kernel, 'owner', shell('owner', [{ to: 'reader', tables: ['open'], privileges: ['select'] }, { to: 'writer', tables: ['open', 'shut'], privileges: ['insert', 'update'] }], tables));
  for (const name of ['reader', 'writer', 'other']) await run(kernel, name, shell(name));
  const may = async (plugin: string): Promise<string[]> => {
    const all = ['SELECT * FROM plugin_owner.open', 'INSERT INTO plugin_owner.open VALUES (1)', 'UPDATE plugin_owner.open SET a = 1', 'DELETE FROM plugin_owner.open', 'SELECT * FROM plugin_owner.shut', 'INSERT INTO plugin_owner.shut VALUES (1)', 'DROP TABLE plugin_owner.open'];
    const answers: { error?: string }[] = [];
    for (const sql of all) answers.push(await ask(plugin, sql));
    return all.filter((_, i) => answers[i]!.error === undefined);
  };
  t.strictSame(await may('reader'), ['SELECT * FROM plugin_owner.open']);
  t.strictSame(await may('writer'), ['INSERT INTO plugin_owner.open VALUES (1)', 'UPDATE plugin_owner.open SET a = 1', 'INSERT INTO plugin_owner.shut VALUES (1)']);
  t.strictSame(await may('other'), []);

  await kernel.writePlugin('owner', shell('owner', [{ to: 'other', tables: ['shut'], privileges: ['select'] }], tables));
  t.equal((await kernel.verb('restart', 'owner')).status, 200);
  t.strictSame([await may('reader'), await may('writer'), await may('other')], [[], [], ['SELECT * FROM plugin_owner.shut']], 'those that are gone from it are revoked');

  await kernel.writePlugin('owner', shell('owner', [{ to: 'other', tables: ['nothing'], privileges: ['select'] }], tables));
  t.match(await kernel.verb('restart', 'owner'), { status: 500, json: { code: 'DATABASE_SETUP_FAILED', message: /grants.*"plugin_owner\.nothing" does not exist/ } });
  t.match(await kernel.status('owner'), { status: 'failed', error: /nothing/ });
  t.strictSame(await may('other'), ['SELECT * FROM plugin_owner.shut'], 'and all is as it was');
  for (const [grants, problem] of [[{}, /must be an array/], [[{ to: 'no name', tables: ['a'], privileges: ['select'] }], /grants\[0\]\.to.*not allowed/], [[{ to: 'a', tables: [], privileges: ['select'] }], /tables/], [[{ to: 'a', tables: ['a'], privileges: ['select', 'drop'] }], /privileges.*select, insert, update, delete/], [[null], /to.*string/], [[{ to: 'owner', tables: ['open'], privileges: ['select'] }], /own tables needs no grant/]] as const) {
    await kernel.writePlugin('owner', shell('owner', grants as unknown as Grant[]));
    t.match(await kernel.verb('restart', 'owner'), { status: 422, json: { code: 'PLUGIN_LOAD_FAILED', message: problem } });
  }
});

t.test('a grant that is gone is revoked also when its plugin uses the database late', async (t) => {
  const { url } = await startPostgres(t);
  const first = await board(t, { DATABASE_URL: url });
  await run(first.kernel, 'other', shell('other'));
  await run(first.kernel, 'late', shell('late', [{ to: 'other', tables: ['t'], privileges: ['select'] }], 'CREATE TABLE IF NOT EXISTS t (a int)'));
  t.strictSame(await first.ask('other', 'SELECT * FROM plugin_late.t'), { rows: [] });
  await first.kernel.stop();

  const next = await board(t, { DATABASE_URL: url });
  await run(next.kernel, 'other', shell('other'));
  await run(next.kernel, 'late', shell('late').replace(/async init.*/, ''));
  t.strictSame(await next.ask('other', 'SELECT * FROM plugin_late.t'), { rows: [] }, 'it has not used it yet');
  await next.ask('late', 'SELECT 1');
  await eventually('the grant is revoked', 5_000, async () => ((await next.ask('other', 'SELECT * FROM plugin_late.t')).code === '42501' ? true : undefined));
});

onEachServer(t, 'by the rights of the database user', async (t, url) => {
  const admin = new pg.Client(url);
  await admin.connect();
  t.teardown(() => admin.end());
  /** A database user with these rights, as the kernel's own. */
  const kernelAs = async (name: string, rights: string, create = true): Promise<{ database: ReturnType<typeof openDatabase>; scopes: Scopes; warnings: string[] }> => {
    await admin.query(`CREATE ROLE ${name} LOGIN PASSWORD 'secret' ${rights}`);
    if (create) await admin.query(`GRANT CREATE ON DATABASE ship TO ${name}`);
    const own = new URL(url);
    own.username = name;
    own.password = 'secret';
    const database = openDatabase(t, own.href);
    const warnings: string[] = [];
    return { database, scopes: new Scopes({ database, roles: true, log: { warn: (text: string) => void warnings.push(text) } as never }), warnings };
  };
  const owner = async (schema: string): Promise<string> => (await admin.query<{ owner: string }>('SELECT nspowner::regrole::text AS owner FROM pg_namespace WHERE nspname = $1', [schema])).rows[0]!.owner;

  t.test('one that may create roles need not be a superuser', async (t) => {
    const { database, scopes, warnings } = await kernelAs('creator', 'CREATEROLE');
    t.match(await scopes.of('a'), { schema: 'plugin_a', login: { user: 'plugin_a' } });
    t.equal(await owner('plugin_a'), 'plugin_a');
    t.match(await scopes.of('b'), { login: { user: 'plugin_b' } });
    const a = await database.connect({ login: (await scopes.of('a')).login });
    await a.query('CREATE TABLE plugin_a.t (a int)');
    a.release();
    await applyGrants({ database, scopes }, 'a', [{ to: 'b', tables: ['t'], privileges: ['select'] }]);
    const b = await database.connect({ login: (await scopes.of('b')).login });
    t.strictSame((await b.query('SELECT * FROM plugin_a.t')).rows, []);
    await t.rejects(b.query('INSERT INTO plugin_a.t VALUES (1)'), { code: '42501' });
    b.release();
    scopes.forget('a');
    t.match(await scopes.of('a'), { login: { user: 'plugin_a' } }, 'what is there is used again');
    t.strictSame(warnings, []);
  });

  t.test('one that may not shares itself, says so once, and hands over when it may', async (t) => {
    const { database, scopes, warnings } = await kernelAs('sharer', 'NOCREATEROLE');
    t.strictSame([await scopes.of('c'), await scopes.of('d')], [{ schema: 'plugin_c', login: null }, { schema: 'plugin_d', login: null }]);
    t.equal(warnings.length, 1);
    t.match(warnings[0], /share the database user sharer.*ALTER ROLE "sharer" CREATEROLE/);
    await applyGrants({ database, scopes }, 'c', [{ to: 'd', tables: ['t'], privileges: ['select'] }]);
    const client = await database.connect();
    await client.query(`SET search_path TO plugin_c; CREATE TABLE t (id serial PRIMARY KEY, m text); CREATE VIEW v AS SELECT * FROM t; CREATE TYPE mood AS ENUM ('fair'); CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE SEQUENCE s; RESET search_path`);
    client.release();
    await admin.query('ALTER ROLE sharer CREATEROLE');
    scopes.forget('c');
    const { login } = await scopes.of('c');
    t.match(login, { user: 'plugin_c' });
    const own = await database.connect({ login });
    await own.query(`SET search_path TO plugin_c; INSERT INTO t (m) VALUES ('x'); ALTER TABLE t ADD COLUMN n int; DROP VIEW v; ALTER TYPE mood ADD VALUE 'foul'; DROP FUNCTION one(); DROP SEQUENCE s; DROP TABLE t; RESET search_path`);
    own.release();
    t.pass('all that it made belongs to the role');
  });

  t.test('one that may not create schemas is told what it lacks', async (t) => {
    const { scopes } = await kernelAs('beggar', 'NOCREATEROLE', false);
    await t.rejects(scopes.of('e'), { code: 'DATABASE_SETUP_FAILED', message: /beggar may not create the schema plugin_e; let it with GRANT CREATE ON DATABASE "ship" TO "beggar"/ });
    await admin.query('CREATE SCHEMA plugin_e; GRANT ALL ON SCHEMA plugin_e TO beggar');
    t.match(await scopes.of('e'), { schema: 'plugin_e', login: null }, 'unless somebody has made it');
  });

  t.test('a role with more rights than a plugin may have is not used', async (t) => {
    await admin.query('CREATE ROLE plugin_f LOGIN SUPERUSER');
    const { scopes } = await kernelAs('careful', 'SUPERUSER');
    await t.rejects(scopes.of('f'), { code: 'DATABASE_SETUP_FAILED', message: /plugin_f may do more than a plugin's may/ });
  });

  t.test('two kernels that begin at once both get there', async (t) => {
    const kernels = await Promise.all([0, 1, 2].map((i) => kernelAs(`twin${i}`, 'SUPERUSER')));
    const scopes = await Promise.all(kernels.flatMap((kernel) => ['x', 'y', 'z'].map((name) => kernel.scopes.of(name))));
    t.ok(scopes.every(({ schema, login }) => login?.user === schema));
  });
});

t.test('with passwords', async (t) => {
  const { url } = await startPostgres(t);
  const admin = new pg.Client(url);
  await admin.connect();
  t.teardown(() => admin.end());
  const [{ file }] = (await admin.query<{ file: string }>("SELECT current_setting('hba_file') AS file")).rows as [{ file: string }];
  const { writeFile } = await import('node:fs/promises');
  await admin.query("CREATE ROLE kernel LOGIN SUPERUSER PASSWORD 'the-kernels-own'");
  const rules = async (...lines: string[]): Promise<void> => {
    await writeFile(file, ['local all bulkhead trust', ...lines].join('\n'));
    await admin.query('SELECT pg_reload_conf()');
  };
  await rules('local all all scram-sha-256');
  const own = new URL(url);
  own.username = 'kernel';
  own.password = 'the-kernels-own';
  const warnings: string[] = [];
  const log = { info() {}, warn: (...words: unknown[]) => void warnings.push(String(words.at(-1))) };
  const database = openDatabase(t, own.href);
  const scopes = new Scopes({ database, roles: true, log: log as never });
  await eventually('the rules hold', 5_000, async () => (await new pg.Client({ connectionString: own.href.replace('the-kernels-own', randomUUID()) }).connect().then(() => false, () => true)) || undefined);

  const { login } = await scopes.of('guarded');
  t.match(login, { user: 'plugin_guarded', password: /^[\w-]{43}$/ }, 'a role logs in with a password of its own');
  (await database.connect({ login })).release();
  t.strictSame((await new Scopes({ database: openDatabase(t, own.href), roles: true, log: log as never }).of('guarded')).login, login, 'which another kernel with the same user finds as well');
  t.match((await admin.query("SELECT rolpassword FROM pg_authid WHERE rolname = 'plugin_guarded'")).rows, [{ rolpassword: /^SCRAM-SHA-256\$4096:/ }], 'the server has never seen it');

  await rules('local all kernel scram-sha-256', 'local all all reject');
  await eventually('the rules hold', 5_000, async () => (await new pg.Client({ ...{ connectionString: url.replace('bulkhead@', 'plugin_guarded@') } }).connect().then(() => false, (error) => /reject/.test(error.message))) || undefined);
  await t.rejects(scopes.of('kept-out'), { code: 'DATABASE_SETUP_FAILED', message: /the server does not let its role plugin_kept-out in .*pg_hba\.conf.*DATABASE_ROLES=false/ }, 'where the server does not let roles in, no plugin gets the kernel\'s login instead');
  const sharing = new Scopes({ database, roles: false, log: log as never });
  t.strictSame(await sharing.of('kept-out'), { schema: 'plugin_kept-out', login: null }, 'unless the operator says so');
  t.strictSame(warnings, []);
});
