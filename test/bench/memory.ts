// How much memory a process has. Must not know what for.
import { readFile } from 'node:fs/promises';

const KIB_PER_MIB = 1_024;

/** Resident set in MiB, as Linux counts it; null where there is no /proc, or no such process. */
export async function residentMb(pid: number): Promise<number | null> {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, 'utf8').catch(() => ''))?.[1];
  return kib === undefined ? null : Number(kib) / KIB_PER_MIB;
}
