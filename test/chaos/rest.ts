// What a kernel at rest holds, and what is left over when it is not. Must not know what happened before.
import type pg from 'pg';
import type { Census } from '../../kernel/plugins/census.js';
import { countFolders } from '../helpers/clean.js';
import type { TestKernel } from '../helpers/kernel.js';
import { workerThreads } from '../helpers/scales.js';

/** Everything that must be as it was. */
export interface Rest {
  readonly held: Census;
  readonly states: Readonly<Record<string, string>>;
  /** Handles of the kernel's thread by kind, without the sockets of its pool, which come and go with the load. */
  readonly handles: Readonly<Record<string, number>>;
  /** Of workers, as the file system has them. */
  readonly folders: number;
  readonly threads: number;
  readonly backendsInTransaction: number;
}

export async function look(kernel: TestKernel, db: pg.Client): Promise<Rest> {
  const { rows: [backends] } = await db.query<{ pooled: number; transactions: number }>(`
    SELECT count(*) FILTER (WHERE application_name LIKE 'bulkhead%')::int AS pooled, count(*) FILTER (WHERE state LIKE 'idle in transaction%')::int AS transactions
    FROM pg_stat_activity WHERE datname = current_database()`);
  const { supervisor } = kernel.kernel;
  return {
    held: supervisor.census(),
    states: Object.fromEntries((await supervisor.list()).map(({ name, status }) => [name, status])),
    handles: handles(backends!.pooled),
    folders: await countFolders(kernel),
    threads: workerThreads(),
    backendsInTransaction: backends!.transactions,
  };
}

/** What one has that the other has not, in words; empty when nothing is left over. */
export function leftOver(before: Rest, now: Rest): string[] {
  const was = flat(before);
  // Fewer handles are no remainder.
  return Object.entries(flat(now)).filter(([what, value]) => (what.startsWith('handles ') ? value > (was[what] ?? 0) : value !== was[what]))
    .map(([what, value]) => `${what} was ${was[what] ?? 'not there'} and is ${value}`);
}

function flat(rest: Rest): Record<string, number | string> {
  const found: Record<string, number | string> = {};
  for (const [part, value] of Object.entries(rest) as [string, number | Record<string, number | string>][]) {
    if (typeof value === 'number') found[part] = value;
    else for (const [key, one] of Object.entries(value)) found[`${part} ${key}`] = one;
  }
  return found;
}

function handles(pooled: number): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) counts[kind] = (counts[kind] ?? 0) + 1;
  counts['sockets'] = (counts['TCPSocketWrap'] ?? 0) + (counts['PipeWrap'] ?? 0) - pooled;
  delete counts['TCPSocketWrap'];
  delete counts['PipeWrap'];
  return counts;
}
