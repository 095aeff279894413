// Measures the kernel beside one in-process Fastify with the same plugins and the same database, in turns. Each server has a process of its own; the load comes from this one.
import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import type { LoadResult } from '../helpers/load.js';
import { CASES, ROWS, type Case } from './cases.js';
import { CALLS, callsTable, measureCalls } from './calls.js';
import { cpuTime } from './cpu.js';
import { withDatabase, withInstalledDatabase } from './database.js';
import { IDLE, idleTable, measureIdle } from './idle.js';
import { measureNeighbours, NEIGHBOURS, neighboursTable } from './neighbours.js';
import { measureRecovery } from './recovery.js';
import { end, findRoot, machine, median, NAIVE, startCandidate, startKernel, type Server } from './servers.js';
import { table } from './table.js';

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

interface Candidate {
  readonly name: string;
  readonly server: Server;
  /** Runs in these cases only; in all by default. */
  readonly only?: (asked: Case) => boolean;
}
interface Measured { readonly candidate: Candidate; readonly results: LoadResult[]; cpu: { main: number; all: number; requests: number } | null }

const only = process.argv.slice(2).filter((word) => !word.startsWith('--')).join(' ');
const json = process.argv.includes('--json');

const isAsked = (name: string): boolean => name.includes(only);

async function main(): Promise<void> {
  const cases = CASES.filter(({ name }) => isAsked(name));
  const rows = cases.length > 0 ? await compare(cases) : [];
  const neighbours = isAsked(NEIGHBOURS) ? await measureNeighbours() : null;
  const calls = isAsked(CALLS) ? await measureCalls() : null;
  const idle = isAsked(IDLE) ? await measureIdle() : null;
  if (json) return void process.stdout.write(`${JSON.stringify({ machine: machine(), rounds: ROUNDS, measuredMs: MEASURED_MS, rows, neighbours, calls, idle }, null, 2)}\n`);
  const tables = [...(rows.length > 0 ? [comparison(rows)] : []), ...(neighbours === null ? [] : [neighboursTable(neighbours)]), ...(calls === null ? [] : [callsTable(calls)]), ...(idle === null ? [] : [idleTable(idle)])];
  process.stdout.write(`${machine()}\n${tables.join('\n')}`);
}

async function compare(cases: readonly Case[]): Promise<Row[]> {
  return withDatabase((dataDir, url) => withInstalledDatabase(async (installed) => {
    const root = findRoot();
    const candidates: Candidate[] = [];
    try {
      candidates.push({ name: 'in-process', server: await startCandidate('in-process', url) });
      const folders = `${join(root, 'plugins')}:${join(root, 'test/bench/plugins')}`;
      const environment = { DATABASE_URL: url, DATA_DIR: dataDir, PLUGINS_DIR: folders };
      candidates.push({ name: 'kernel', server: await startKernel({ ...environment, PLUGINS_ENABLED: 'hello,items,freight' }) });
      const twoThreads = { ...environment, DATA_DIR: await mkdtemp(join(dataDir, 'two-threads-')), PLUGINS_ENABLED: 'freight', PLUGIN_FREIGHT_THREADS: '2' };
      candidates.push({ name: 'kernel, 2 threads', server: await startKernel(twoThreads), only: (asked) => asked.twoThreads === true });
      if (installed !== null) {
        const server = await startKernel({ ...environment, DATABASE_URL: installed.url, DATA_DIR: installed.dataDir, PLUGINS_ENABLED: 'items' });
        candidates.push({ name: `kernel, PostgreSQL ${installed.version} as installed`, server, only: (asked) => asked.database === true });
        await fill(installed.url);
      }
      for (const name of NAIVE) candidates.push({ name, server: await startCandidate(name, url), only: (asked) => asked.naive === true });
      await fill(url);
      const rows: Row[] = [];
      for (const asked of cases) rows.push(...(await measure(asked, candidates.filter((candidate) => candidate.only?.(asked) ?? true))));
      return rows;
    } finally {
      await Promise.all(candidates.map(({ server }) => end(server.process)));
    }
  }));
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

function comparison(rows: readonly Row[]): string {
  return `medians of ${ROUNDS} rounds of ${MEASURED_MS / 1_000} s\n${table([
    ['', 'connections', 'req/s', 'p50 ms', 'p99 ms', 'ratio', 'target', 'CPU µs', 'main', 'others'],
    ...rows.map(({ name, candidate, connections, result, ratio, target, cpu }) => [
      candidate === 'in-process' ? name : `  ${candidate}`, String(connections), result.requestsPerSecond.toFixed(0), result.p50.toFixed(2), result.p99.toFixed(2),
      ratio.toFixed(2), target?.toFixed(2) ?? '', ...(cpu === null ? ['', '', ''] : [cpu.mainThread + cpu.otherThreads, cpu.mainThread, cpu.otherThreads].map((time) => time.toFixed(1))),
    ]),
  ])}`;
}

async function fill(databaseUrl: string): Promise<void> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  await client.query(`INSERT INTO plugin_items.items (name, description) SELECT 'item ' || n, 'the description of item ' || n FROM generate_series(1, ${ROWS}) AS n`);
  await client.end();
}

function medians(results: readonly LoadResult[]): LoadResult {
  const of = (key: keyof LoadResult): number => median(results.map((result) => result[key]));
  return { requestsPerSecond: of('requestsPerSecond'), p50: of('p50'), p99: of('p99') };
}

if (only === 'recovery') await measureRecovery();
else await main();
