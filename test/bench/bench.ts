// Measures the kernel beside one in-process Fastify with the same plugins and the same database, in turns. Each server has a process of its own; the load comes from this one.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import type * as EmbeddedModule from '../../kernel/database/embedded.js';
import type { LoadResult } from '../helpers/load.js';
import { CASES, ROWS, type Case } from './cases.js';
import { cpuTime } from './cpu.js';
import { measureRecovery } from './recovery.js';
import { end, findRoot, machine, median, NAIVE, startCandidate, startKernel, type Server } from './servers.js';

const ROUNDS = 5;
const MEASURED_MS = 1_000;
const WARM_UP_MS = 700;

interface Row {
  readonly name: string;
  readonly candidate: string;
  readonly connections: number;
  readonly result: LoadResult;
  /** Requests per second for one of the in-process Fastify: the median over the rounds, whose halves met the same weather. */
  readonly ratio: number;
  readonly target?: number;
  /** Time that the server's threads had a core, in microseconds per request; null where the system does not tell. */
  readonly cpu: { readonly mainThread: number; readonly otherThreads: number } | null;
}

interface Candidate { readonly name: string; readonly server: Server }
interface Measured { readonly candidate: Candidate; readonly results: LoadResult[]; cpu: { main: number; all: number; requests: number } | null }

const only = process.argv.slice(2).filter((word) => !word.startsWith('--')).join(' ');
const json = process.argv.includes('--json');

async function main(): Promise<void> {
  const root = findRoot();
  const dataDir = await mkdtemp(join(tmpdir(), 'bulkhead-bench-'));
  const { startEmbeddedDatabase } = (await import(join(root, 'dist/kernel/database/embedded.js'))) as typeof EmbeddedModule;
  const silent = { info() {}, warn() {}, error() {} };
  const database = await startEmbeddedDatabase({ dataDir, user: 'bench', database: 'bench', log: silent as unknown as EmbeddedModule.EmbeddedDatabaseOptions['log'] });
  const candidates: Candidate[] = [];
  try {
    candidates.push({ name: 'in-process', server: await startCandidate('in-process', database.url) });
    const folders = `${join(root, 'plugins')}:${join(root, 'test/bench/plugins')}`;
    candidates.push({ name: 'kernel', server: await startKernel({ DATABASE_URL: database.url, DATA_DIR: dataDir, PLUGINS_DIR: folders, PLUGINS_ENABLED: 'hello,items,freight' }) });
    for (const name of NAIVE) candidates.push({ name, server: await startCandidate(name, database.url) });
    await fill(database.url);
    const rows: Row[] = [];
    for (const asked of CASES.filter(({ name }) => name.includes(only))) {
      rows.push(...(await measure(asked, asked.naive === true ? candidates : candidates.slice(0, 2))));
    }
    report(rows);
  } finally {
    await Promise.all(candidates.map(({ server }) => end(server.process)));
    await database.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
}

async function measure({ name, connections, target, run }: Case, candidates: readonly Candidate[]): Promise<Row[]> {
  const all = candidates.map((candidate): Measured => ({ candidate, results: [], cpu: { main: 0, all: 0, requests: 0 } }));
  for (const { candidate: { server: { url } } } of all) await run(url, WARM_UP_MS);
  for (let round = 0; round < ROUNDS; round += 1) {
    // Each goes first now and then, because what follows a load finds a warmer machine and a busier database.
    const turn = round % all.length;
    for (const measured of [...all.slice(turn), ...all.slice(0, turn)]) await once(measured, run);
  }
  const reference = all[0]!.results;
  return all.map(({ candidate, results, cpu }, at) => ({
    name, connections, candidate: candidate.name,
    result: medians(results),
    ratio: median(results.map(({ requestsPerSecond }, round) => requestsPerSecond / reference[round]!.requestsPerSecond)),
    ...(at === 1 && target !== undefined && { target }),
    cpu: cpu === null ? null : { mainThread: cpu.main / cpu.requests, otherThreads: (cpu.all - cpu.main) / cpu.requests },
  }));
}

async function once(measured: Measured, run: Case['run']): Promise<void> {
  const { url, pid } = measured.candidate.server;
  const [before, began] = [await cpuTime(pid), performance.now()];
  const result = await run(url, MEASURED_MS);
  const [after, seconds] = [await cpuTime(pid), (performance.now() - began) / 1_000];
  measured.results.push(result);
  if (before === null || after === null || measured.cpu === null) measured.cpu = null;
  else {
    measured.cpu.main += after.main - before.main;
    measured.cpu.all += after.all - before.all;
    measured.cpu.requests += result.requestsPerSecond * seconds;
  }
}

function report(rows: readonly Row[]): void {
  if (json) {
    process.stdout.write(`${JSON.stringify({ machine: machine(), rounds: ROUNDS, measuredMs: MEASURED_MS, rows }, null, 2)}\n`);
    return;
  }
  const table = [
    ['', 'connections', 'req/s', 'p50 ms', 'p99 ms', 'ratio', 'target', 'CPU µs', 'main', 'others'],
    ...rows.map(({ name, candidate, connections, result, ratio, target, cpu }) => [
      candidate === 'in-process' ? name : `  ${candidate}`, String(connections), result.requestsPerSecond.toFixed(0), result.p50.toFixed(2), result.p99.toFixed(2),
      ratio.toFixed(2), target?.toFixed(2) ?? '', ...(cpu === null ? ['', '', ''] : [cpu.mainThread + cpu.otherThreads, cpu.mainThread, cpu.otherThreads].map((time) => time.toFixed(1))),
    ]),
  ];
  const widths = table[0]!.map((_, column) => Math.max(...table.map((line) => line[column]!.length)));
  const lines = table.map((line) => line.map((cell, column) => (column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!))).join('  '));
  process.stdout.write(`${machine()}; medians of ${ROUNDS} rounds of ${MEASURED_MS / 1_000} s\n${lines.join('\n')}\n`);
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

if (only === 'recovery') await measureRecovery();
else await main();
