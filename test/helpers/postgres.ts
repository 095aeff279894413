// The PostgreSQL servers that tests run against: the embedded one, and the one of this machine as an administrator would start it.
import { execFile, spawn } from 'node:child_process';
import { chown, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import type { Test } from 'tap';
import { findSystemPostgres, startEmbeddedDatabase, type EmbeddedDatabase } from '../../kernel/database/embedded.js';
import { credentials, findUnprivilegedAccount, run } from '../../kernel/database/system-account.js';
import { bringCluster, bringCopy } from './cluster.js';
import { eventually } from './kernel.js';

const silent = { info() {}, warn() {} };
const PASSWORD = 'of the harbour';
const installed = await findSystemPostgres(process.env['PATH']);

export async function startPostgres(t: Pick<Test, 'teardown'>): Promise<EmbeddedDatabase> {
  const dataDir = await mkdtemp(join(tmpdir(), 'postgres-test-'));
  const names = { user: 'bulkhead', database: 'ship' };
  await bringCluster(dataDir, names);
  const postgres = await startEmbeddedDatabase({ dataDir, ...names, log: silent });
  t.teardown(async () => {
    await postgres.stop();
    await rm(dataDir, { recursive: true, force: true });
  });
  return postgres;
}

/** Runs the test on each; on the second by TCP, with a password and with TLS. */
export function onEachServer(t: Test, title: string, work: (t: Test, url: string) => Promise<void>): void {
  void t.test(`${title}, on the embedded PostgreSQL`, { timeout: 240_000 }, async (t) => work(t, (await startPostgres(t)).url));
  void t.test(`${title}, on a PostgreSQL of the system`, { timeout: 240_000, skip: installed === undefined && 'none is installed here' }, async (t) => work(t, await startInstalled(t)));
}

async function startInstalled(t: Pick<Test, 'teardown'>): Promise<string> {
  const { initdb, postgres } = installed!;
  const account = process.getuid?.() === 0 ? await findUnprivilegedAccount() : undefined;
  const folder = await mkdtemp(join(tmpdir(), 'postgres-test-'));
  const own = async (path: string): Promise<void> => { if (account !== undefined) await chown(path, account.uid, account.gid); };
  await own(folder);
  const data = join(folder, 'data');
  await bringCopy(data, [initdb, PASSWORD], async (folder) => {
    await own(folder);
    const data = join(folder, 'data');
    const passwordFile = join(folder, 'password');
    await writeFile(passwordFile, PASSWORD);
    await own(passwordFile);
    await run(account, initdb, ['-D', data, '-U', 'bulkhead', '-A', 'scram-sha-256', '-E', 'UTF8', '--locale=C', `--pwfile=${passwordFile}`]);
    const [key, certificate] = [join(data, 'server.key'), join(data, 'server.crt')];
    await promisify(execFile)('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '3650', '-subj', '/CN=localhost', '-keyout', key, '-out', certificate]);
    for (const path of [key, certificate]) await own(path);
    return data;
  });

  const port = await freePort();
  const server = spawn(postgres, ['-D', data, '-p', String(port), '-k', folder, '-c', 'listen_addresses=127.0.0.1', '-c', 'ssl=on', '-c', 'fsync=off'], { ...credentials(account), cwd: '/', stdio: 'ignore' });
  const ended = new Promise((resolve) => server.once('exit', resolve));
  t.teardown(async () => {
    server.kill('SIGQUIT');
    await ended;
    await rm(folder, { recursive: true, force: true });
  });
  const url = (database: string): string => `postgresql://bulkhead:${encodeURIComponent(PASSWORD)}@127.0.0.1:${port}/${database}?sslmode=no-verify`;
  const client = await eventually('the server takes connections', 30_000, async () => {
    const attempt = new pg.Client(url('postgres'));
    return attempt.connect().then(() => attempt, () => undefined);
  });
  await client.query('CREATE DATABASE ship');
  await client.end();
  return url('ship');
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
