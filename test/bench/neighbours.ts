// Measures what a plugin loses to a slow one under load beside it, and what one in-process Fastify with the same two loses.
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { load, type LoadResult } from '../helpers/load.js';
import { cpuTime } from './cpu.js';
import { withDatabase } from './database.js';
import { end, findRoot, median, startCandidate, startKernel, type Server } from './servers.js';
import { table } from './table.js';

export const NEIGHBOURS = 'neighbours';

const ROUNDS = 3;
const MEASURED_MS = 1_000;
const FAST = { path: '/plugins/hello/', connections: 32 } as const;
const VARIANTS = [
  { name: 'beside 100 ms of waiting', path: '/plugins/slow/wait', connections: 64 },
  { name: 'beside 5 ms of work', path: '/plugins/slow/work', connections: 4 },
  { name: 'beside 200,000 rows', path: '/plugins/slow/rows', connections: 1 },
] as const;
/** Share of its own requests per second that the fast plugin keeps of each core that the slow one leaves. */
const TARGET = 0.9;
const MICROSECONDS = 1e6;

type Variant = (typeof VARIANTS)[number];

interface Round {
  readonly solo: LoadResult;
  readonly together: LoadResult;
  /** Requests per second of the slow plugin, alone and beside the fast one. */
  readonly slowSolo: number;
  readonly slowTogether: number;
  /** Cores that the slow plugin's requests have taken, on either side of the worker's wall, while both were under load; null where the system does not tell. */
  readonly slowCores: number | null;
}

interface Row {
  readonly variant: string;
  readonly candidate: string;
  readonly solo: LoadResult;
  readonly together: LoadResult;
  readonly slowSolo: number;
  readonly slowTogether: number;
  /** Requests per second of the fast plugin beside the slow one, for one of those alone. */
  readonly ratio: number;
  /** How much longer its p99 is beside the slow one. */
  readonly p99Times: number;
  readonly slowCores: number | null;
  /** `ratio` for the share of the cores that the slow plugin has left: 1 when it has taken nothing but its own time. */
  readonly perCoreLeft: number | null;
}

export interface NeighboursReport {
  readonly rounds: number;
  readonly measuredMs: number;
  readonly cores: number;
  readonly target: number;
  readonly rows: readonly Row[];
}

export async function measureNeighbours(): Promise<NeighboursReport> {
  return withDatabase(async (dataDir, databaseUrl) => {
    const folders = [join(findRoot(), 'plugins'), join(findRoot(), 'test/bench/plugins')].join(':');
    const servers: Server[] = [];
    try {
      servers.push(await startCandidate('in-process', databaseUrl));
      servers.push(await startKernel({ DATABASE_URL: databaseUrl, DATA_DIR: dataDir, PLUGINS_DIR: folders, PLUGINS_ENABLED: 'hello,slow' }));
      const rows: Row[] = [];
      for (const variant of VARIANTS) {
        const rounds = servers.map((): Round[] => []);
        for (const server of servers) await measure(server, variant); // the first is for warmth
        for (let round = 0; round < ROUNDS; round += 1) for (const [at, server] of servers.entries()) rounds[at]!.push(await measure(server, variant));
        rows.push(...rounds.map((measured, at) => rowOf(variant.name, at === 0 ? 'in-process' : 'kernel', measured)));
      }
      return { rounds: ROUNDS, measuredMs: MEASURED_MS, cores: availableParallelism(), target: TARGET, rows };
    } finally {
      await Promise.all(servers.map(({ process }) => end(process)));
    }
  });
}

async function measure({ url, pid }: Server, variant: Variant): Promise<Round> {
  const ask = ({ path, connections }: typeof FAST | Variant): Promise<LoadResult> => load({ url: url + path, connections, durationMs: MEASURED_MS });
  const solo = await ask(FAST);
  const [before, began] = [await cpuTime(pid), performance.now()];
  const { requestsPerSecond: slowSolo } = await ask(variant);
  const [after, seconds] = [await cpuTime(pid), (performance.now() - began) / 1_000];
  const [together, { requestsPerSecond: slowTogether }] = await Promise.all([ask(FAST), ask(variant)]);
  // What one of its requests costs is the same in company.
  const slowCores = before === null || after === null ? null : ((after.all - before.all) / (slowSolo * seconds)) * slowTogether / MICROSECONDS;
  return { solo, together, slowSolo, slowTogether, slowCores };
}

function rowOf(variant: string, candidate: string, rounds: readonly Round[]): Row {
  const of = (value: (round: Round) => number): number => median(rounds.map(value));
  const medians = (which: 'solo' | 'together'): LoadResult =>
    ({ requestsPerSecond: of((round) => round[which].requestsPerSecond), p50: of((round) => round[which].p50), p99: of((round) => round[which].p99) });
  const ratio = ({ solo, together }: Round): number => together.requestsPerSecond / solo.requestsPerSecond;
  const known = rounds.every(({ slowCores }) => slowCores !== null);
  const cores = availableParallelism();
  return {
    variant, candidate, solo: medians('solo'), together: medians('together'), slowSolo: of(({ slowSolo }) => slowSolo), slowTogether: of(({ slowTogether }) => slowTogether),
    ratio: of(ratio),
    p99Times: of(({ solo, together }) => together.p99 / solo.p99),
    slowCores: known ? of(({ slowCores }) => slowCores!) : null,
    perCoreLeft: known ? of((round) => ratio(round) / (1 - round.slowCores! / cores)) : null,
  };
}

export function neighboursTable({ rounds, measuredMs, cores, target, rows }: NeighboursReport): string {
  return [
    `hello under load from ${FAST.connections} connections, alone and beside a slow plugin; medians of ${rounds} rounds of ${measuredMs / 1_000} s, ${cores} cores\n`,
    table([
      [NEIGHBOURS, 'alone req/s', 'p99 ms', 'beside req/s', 'p99 ms', 'p99 times', 'ratio', 'cores the slow one took', 'per core left', 'target', 'slow req/s', 'alone'],
      ...rows.map(({ variant, candidate, solo, together, slowSolo, slowTogether, ratio, p99Times, slowCores, perCoreLeft }) => [
        candidate === 'in-process' ? variant : `  ${candidate}`, solo.requestsPerSecond.toFixed(0), solo.p99.toFixed(2), together.requestsPerSecond.toFixed(0), together.p99.toFixed(2), p99Times.toFixed(1),
        ratio.toFixed(2), slowCores?.toFixed(2) ?? '', perCoreLeft?.toFixed(2) ?? '', candidate === 'in-process' ? '' : target.toFixed(2), slowTogether.toFixed(0), slowSolo.toFixed(0),
      ]),
    ]),
  ].join('');
}
