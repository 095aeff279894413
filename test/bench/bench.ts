// Measures the kernel beside one in-process Fastify with the same plugins and the same database, in turns. Each server has a process of its own; the load comes from this one.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fastify from 'fastify';
import pg from 'pg';
import type { PluginApp, PluginContext } from 'bulkhead/protocol';
import type * as EmbeddedModule from '../../kernel/database/embedded.js';
import hello from '../../plugins/hello/plugin.js';
import items from '../../plugins/items/plugin.js';
import { PLUGIN_LIMITS } from '../../protocol/limits.js';
import { load, type LoadOptions, type LoadResult } from '../helpers/load.js';
import { measureRecovery } from './recovery.js';
import { end, findRoot, machine, median, startKernel, type Server } from './servers.js';

const ROUNDS = 5;
const MEASURED_MS = 1_500;
const WARM_UP_MS = 1_000;
const ROWS = 100;

type Request = Omit<LoadOptions, 'url' | 'durationMs'> & { readonly name: string; readonly path: string };
const REQUESTS: readonly Request[] = [
  { name: 'hello', path: '/plugins/hello/', connections: 64 },
  { name: 'hello, one connection', path: '/plugins/hello/', connections: 1 },
  { name: 'items get', path: '/items/50', connections: 64 },
  { name: `items list, ${ROWS} rows`, path: `/items/?limit=${ROWS}`, connections: 64 },
  { name: 'items create', path: '/items/', method: 'POST', body: { name: 'anchor', description: 'heavy' }, connections: 64 },
];

interface Row {
  readonly name: string;
  readonly connections: number;
  readonly inProcess: LoadResult;
  readonly kernel: LoadResult;
  /** Requests per second of the kernel for one of the in-process Fastify: the median over the rounds, whose halves met the same weather. */
  readonly ratio: number;
}

async function main(): Promise<void> {
  const root = findRoot();
  const dataDir = await mkdtemp(join(tmpdir(), 'bulkhead-bench-'));
  const { startEmbeddedDatabase } = (await import(join(root, 'dist/kernel/database/embedded.js'))) as typeof EmbeddedModule;
  const silent = { info() {}, warn() {}, error() {} };
  const database = await startEmbeddedDatabase({ dataDir, user: 'bench', database: 'bench', log: silent as unknown as EmbeddedModule.EmbeddedDatabaseOptions['log'] });
  const servers: Server[] = [];
  try {
    const kernel = await startKernel({ DATABASE_URL: database.url, DATA_DIR: dataDir, PLUGINS_DIR: join(root, 'plugins'), PLUGINS_ENABLED: 'hello,items' });
    servers.push(kernel);
    const inProcess = await startInProcess(database.url);
    servers.push(inProcess);
    await fill(database.url);
    report(await measure(inProcess.url, kernel.url));
  } finally {
    await Promise.all(servers.map(({ process }) => end(process)));
    await database.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
}

async function measure(inProcess: string, kernel: string): Promise<Row[]> {
  const rows: Row[] = [];
  for (const { name, path, ...request } of REQUESTS) {
    const candidates = [{ url: inProcess + path, results: [] as LoadResult[] }, { url: kernel + path, results: [] as LoadResult[] }] as const;
    for (const { url } of candidates) await load({ ...request, url, durationMs: WARM_UP_MS });
    for (let round = 0; round < ROUNDS; round += 1) {
      // Each goes first every other time, because what follows a load finds a warmer machine and a busier database.
      for (const { url, results } of round % 2 === 0 ? candidates : [...candidates].reverse()) results.push(await load({ ...request, url, durationMs: MEASURED_MS }));
    }
    const [theirs, ours] = candidates.map(({ results }) => results) as [LoadResult[], LoadResult[]];
    rows.push({
      name,
      connections: request.connections,
      inProcess: medians(theirs),
      kernel: medians(ours),
      ratio: median(ours.map(({ requestsPerSecond }, round) => requestsPerSecond / theirs[round]!.requestsPerSecond)),
    });
  }
  return rows;
}

function report(rows: readonly Row[]): void {
  if (process.argv.includes('--json')) {
    process.stdout.write(`${JSON.stringify({ machine: machine(), rounds: ROUNDS, rows }, null, 2)}\n`);
    return;
  }
  const cells = (result: LoadResult): string[] => [result.requestsPerSecond.toFixed(0), result.p50.toFixed(2), result.p99.toFixed(2)];
  const table = [
    ['', 'connections', 'in-process req/s', 'p50 ms', 'p99 ms', 'kernel req/s', 'p50 ms', 'p99 ms', 'ratio'],
    ...rows.map(({ name, connections, inProcess, kernel, ratio }) => [name, String(connections), ...cells(inProcess), ...cells(kernel), ratio.toFixed(2)]),
  ];
  const widths = table[0]!.map((_, column) => Math.max(...table.map((line) => line[column]!.length)));
  const lines = table.map((line) => line.map((cell, column) => (column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!))).join('  '));
  process.stdout.write(`${machine()}; medians of ${ROUNDS} rounds of ${MEASURED_MS / 1_000} s\n${lines.join('\n')}\n`);
}

async function startInProcess(databaseUrl: string): Promise<Server> {
  const child = fork(fileURLToPath(import.meta.url), ['in-process', databaseUrl]);
  const [url] = (await once(child, 'message')) as [string];
  return { url, process: child };
}

/** The child: the plugins' own routes in one Fastify, with a pool of the size that a plugin has. */
async function serveInProcess(databaseUrl: string): Promise<void> {
  const db = new pg.Pool({ connectionString: databaseUrl, max: PLUGIN_LIMITS.connections });
  const context = { db, services: { provide() {} } } as unknown as PluginContext;
  const app = fastify();
  app.decorateRequest('mount', '/items');
  for (const [prefix, plugin] of [['/plugins/hello', hello], ['/items', items]] as const) {
    await plugin.init?.(context);
    await app.register(async (scope) => plugin.routes?.(scope as unknown as PluginApp, context), { prefix });
  }
  await app.listen({ host: '127.0.0.1', port: 0 });
  process.send!(`http://127.0.0.1:${(app.server.address() as AddressInfo).port}`);
  process.once('disconnect', () => process.exit());
}

async function fill(databaseUrl: string): Promise<void> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  await client.query(`INSERT INTO items (name, description) SELECT 'item ' || n, 'the description of item ' || n FROM generate_series(1, ${ROWS}) AS n`);
  await client.end();
}

function medians(results: readonly LoadResult[]): LoadResult {
  const of = (key: keyof LoadResult): number => median(results.map((result) => result[key]));
  return { requestsPerSecond: of('requestsPerSecond'), p50: of('p50'), p99: of('p99') };
}

const [, , role, databaseUrl] = process.argv;
if (role === 'in-process') await serveInProcess(databaseUrl!);
else if (role === 'recovery') await measureRecovery();
else await main();
