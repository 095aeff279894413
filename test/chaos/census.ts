// Counts what a kernel at rest holds: requests, leases, services, threads, handles, folders, backends. Must not know what happened before.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type pg from 'pg';
import type { TestKernel } from '../helpers/kernel.js';

/** Everything that must be as it was. */
export interface Census {
  /** By plugin: its state, requests under way, connections lent, services. */
  readonly plugins: Readonly<Record<string, string>>;
  readonly workers: number;
  /** Folders of live workers; a standby worker has none yet. */
  readonly berths: number;
  /** Handles of the kernel's thread by kind, without the sockets of its pool, which come and go with the load. */
  readonly handles: Readonly<Record<string, number>>;
  readonly backendsInTransaction: number;
}

export async function takeCensus(kernel: TestKernel, db: pg.Client, plugins: readonly string[]): Promise<Census> {
  const rows = await Promise.all(plugins.map(async (plugin) => {
    // Not over HTTP, whose connections would count.
    const { status, requests, worker, services } = await kernel.kernel.supervisor.details(plugin);
    return [plugin, `${status}, ${requests.inFlight} in flight, ${requests.queued} queued, ${requests.waiting} waiting, ${worker?.connections ?? 'no'} leases, services ${services.join(' ') || 'none'}`];
  }));
  const { rows: backends } = await db.query<{ pooled: number; transactions: number }>(`
    SELECT count(*) FILTER (WHERE application_name LIKE 'bulkhead%')::int AS pooled, count(*) FILTER (WHERE state LIKE 'idle in transaction%')::int AS transactions
    FROM pg_stat_activity WHERE datname = current_database()`);
  return {
    plugins: Object.fromEntries(rows) as Record<string, string>,
    workers: (process.report.getReport() as unknown as { workers: unknown[] }).workers.length,
    berths: (await readdir(join(kernel.dataDir, 'berths'))).length,
    handles: handles(backends[0]!.pooled),
    backendsInTransaction: backends[0]!.transactions,
  };
}

/** What one has that the other has not, in words; empty when nothing is left over. */
export function leftOver(before: Census, now: Census): string[] {
  const lines: string[] = [];
  for (const [plugin, state] of Object.entries(now.plugins)) if (state !== before.plugins[plugin]) lines.push(`${plugin} was "${before.plugins[plugin]}" and is "${state}"`);
  for (const kind of ['workers', 'berths', 'backendsInTransaction'] as const) if (now[kind] !== before[kind]) lines.push(`${kind} were ${before[kind]} and are ${now[kind]}`);
  for (const [kind, count] of Object.entries(now.handles)) if (count > (before.handles[kind] ?? 0)) lines.push(`handles of kind ${kind} were ${before.handles[kind] ?? 0} and are ${count}`);
  return lines;
}

function handles(pooled: number): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) counts[kind] = (counts[kind] ?? 0) + 1;
  counts['sockets'] = (counts['TCPSocketWrap'] ?? 0) + (counts['PipeWrap'] ?? 0) - pooled;
  delete counts['TCPSocketWrap'];
  delete counts['PipeWrap'];
  return counts;
}
