// Measures calls between two workers beside what somebody would use instead: comlink over a MessagePort, and HTTP on loopback between two threads.
import { join } from 'node:path';
import type { Drive } from './drive.js';
import { withDatabase } from './database.js';
import { CALLERS, end, findRoot, median, startCandidate, startKernel, type Server } from './servers.js';
import { table } from './table.js';

export const CALLS = 'calls';

const ROUNDS = 5;
const MEASURED_MS = 1_000;
const OUTSTANDING = [64, 1] as const;
/** Calls per second of a service for one of comlink, with as many outstanding as the first has. */
const TARGET = 2;

interface Row extends Drive {
  readonly candidate: string;
  readonly outstanding: number;
  /** Calls per second for one of comlink's: the median over the rounds. */
  readonly ratio: number;
}

export interface CallsReport {
  readonly rounds: number;
  readonly measuredMs: number;
  readonly target: number;
  readonly rows: readonly Row[];
}

export async function measureCalls(): Promise<CallsReport> {
  return withDatabase(async (dataDir, databaseUrl) => {
    const servers: { readonly name: string; readonly server: Server; readonly path: string }[] = [];
    try {
      for (const name of CALLERS) servers.push({ name, server: await startCandidate(name, ''), path: '/drive' });
      const folders = join(findRoot(), 'test/bench/plugins');
      servers.push({ name: 'service', server: await startKernel({ DATABASE_URL: databaseUrl, DATA_DIR: dataDir, PLUGINS_DIR: folders, PLUGINS_ENABLED: 'adder,caller' }), path: '/plugins/caller/drive' });
      const ask = async ({ server, path }: (typeof servers)[number], outstanding: number): Promise<Drive> =>
        (await (await fetch(`${server.url}${path}?outstanding=${outstanding}&ms=${MEASURED_MS}`)).json()) as Drive;
      const rows: Row[] = [];
      for (const outstanding of OUTSTANDING) {
        const results = servers.map((): Drive[] => []);
        for (const server of servers) await ask(server, outstanding); // for warmth
        for (let round = 0; round < ROUNDS; round += 1) for (const [at, server] of servers.entries()) results[at]!.push(await ask(server, outstanding));
        rows.push(...servers.map(({ name }, at): Row => ({
          candidate: name, outstanding,
          perSecond: median(results[at]!.map(({ perSecond }) => perSecond)),
          p50: median(results[at]!.map(({ p50 }) => p50)),
          ratio: median(results[at]!.map(({ perSecond }, round) => perSecond / results[0]![round]!.perSecond)),
        })));
      }
      return { rounds: ROUNDS, measuredMs: MEASURED_MS, target: TARGET, rows };
    } finally {
      await Promise.all(servers.map(({ server }) => end(server.process)));
    }
  });
}

export function callsTable({ rounds, measuredMs, target, rows }: CallsReport): string {
  return `calls from one thread to another; medians of ${rounds} rounds of ${measuredMs / 1_000} s\n${table([
    [CALLS, 'outstanding', 'calls/s', 'p50 ms', 'ratio', 'target'],
    ...rows.map(({ candidate, outstanding, perSecond, p50, ratio }) => [
      candidate, String(outstanding), perSecond.toFixed(0), p50.toFixed(3), ratio.toFixed(2), candidate === 'service' && outstanding === OUTSTANDING[0] ? target.toFixed(2) : '',
    ]),
  ])}`;
}
