// How long the threads of a process have had a core. Must not know what they did.
import { readdir, readFile } from 'node:fs/promises';

/** In microseconds. */
export interface CpuTime {
  /** Of the process's main thread. */
  readonly main: number;
  readonly all: number;
}

/** The first figure of Linux's schedstat for each thread; null where there is none. Threads that have ended do not count. */
export async function cpuTime(pid: number): Promise<CpuTime | null> {
  const threads = await readdir(`/proc/${pid}/task`).catch(() => []);
  const times = await Promise.all(threads.map(async (thread) => [thread, Number((await readFile(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').catch(() => '0')).split(' ')[0]) / 1_000] as const));
  if (times.length === 0) return null;
  return { main: times.find(([thread]) => thread === String(pid))?.[1] ?? 0, all: times.reduce((sum, [, time]) => sum + time, 0) };
}
