// Weighs this process when it has come to rest, for tests that compare it with itself later.
import { readdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually, type TestKernel } from './kernel.js';

export const KIB = 1024;
export const MIB = 1024 * KIB;

export interface Sample {
  readonly heap: number;
  readonly rss: number;
  readonly threads: number;
  /** Of the process, for all its events. */
  readonly listeners: number;
  readonly handles: Readonly<Record<string, number>>;
}

/** Of this process, when what can be collected has been. */
export async function weigh(): Promise<{ readonly rss: number; readonly heap: number }> {
  for (let i = 0; i < 4; i += 1) {
    gc!();
    await delay(100); // finalisers and threads that are on their way out
  }
  const { rss, heapUsed } = process.memoryUsage();
  return { rss, heap: heapUsed };
}

/** Weighs when threads and handles have come to rest. A standby that boots has a timer, and on a busy machine for longer than it takes to see the same twice. */
export async function sample({ kernel: { supervisor } }: TestKernel): Promise<Sample> {
  await eventually('the standby waits', 20_000, async () => (supervisor.census().standbys === 1 ? true : undefined));
  let last = '';
  const { threads, handles } = await eventually('threads and handles are at rest', 20_000, async () => {
    await delay(500);
    const counts = { threads: await threadCount(), handles: handleCounts() };
    const text = JSON.stringify(counts);
    const atRest = text === last;
    last = text;
    return atRest ? counts : undefined;
  });
  const listeners = process.eventNames().reduce((sum, event) => sum + process.listenerCount(event), 0);
  return { threads, handles, listeners, ...(await weigh()) };
}

async function threadCount(): Promise<number> {
  if (process.platform === 'linux') return (await readdir('/proc/self/task')).length;
  return workerThreads();
}

/** Worker threads of this process, the dying ones included. */
export function workerThreads(): number {
  return (process.report.getReport() as unknown as { workers: unknown[] }).workers.length;
}

function handleCounts(): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo().sort()) counts[kind] = (counts[kind] ?? 0) + 1;
  return counts;
}

export function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`;
}

export function told({ heap, rss, threads, handles, listeners }: Sample): string {
  return `heap ${mib(heap)}, RSS ${mib(rss)}, ${threads} threads, ${listeners} listeners, handles ${JSON.stringify(handles)}`;
}
