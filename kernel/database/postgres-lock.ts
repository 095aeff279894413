// Who holds a cluster: reads the lock file postmaster.pid. Must not write or remove it; PostgreSQL alone does.
import { execFile } from 'node:child_process';
import { readFile, readlink } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** A server whose kernel was killed notices within some 40 ms; a kernel that is started again at once must not be refused. */
const GRACE_MS = 1_000;
/** A server that is already stopping may take until its watcher ends it; see the bounds in postgres-server.ts. */
const STOPPING_GRACE_MS = 6_000;
const POLL_MS = 20;

export interface ClusterLock {
  readonly pid: number;
  /** `starting`, `ready`, `stopping` or, before the server has written one, empty. */
  readonly status: string;
}

export async function readLock(cluster: string): Promise<ClusterLock | undefined> {
  const lines = (await readFile(join(cluster, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n');
  const pid = Number(lines[0]);
  return pid > 0 ? { pid, status: lines[7]?.trim() ?? '' } : undefined;
}

/**
 * Waits until no living server holds the cluster, and gives the process id that a dead one has left in the lock file: a
 * stranger may have that number by now. Throws when a server keeps the cluster.
 */
export async function waitUntilFree(cluster: string): Promise<number | undefined> {
  const began = performance.now();
  for (;;) {
    const lock = await readLock(cluster);
    if (lock === undefined || !(await isServer(lock.pid, cluster))) return lock?.pid;
    if (performance.now() - began > (lock.status === 'stopping' ? STOPPING_GRACE_MS : GRACE_MS)) {
      throw new Error(
        `The database in ${cluster} is in use by process ${lock.pid}, most likely the server of another Bulkhead. ` +
          'Stop that Bulkhead, or set DATA_DIR to another folder.',
      );
    }
    await sleep(POLL_MS);
  }
}

/** Whether that process is alive, no zombie, and a PostgreSQL server that works in the cluster's folder. */
async function isServer(pid: number, cluster: string): Promise<boolean> {
  if (process.platform !== 'linux') {
    const answer = await new Promise<string>((resolve) => {
      execFile('/bin/ps', ['-p', String(pid), '-o', 'stat=', '-o', 'comm='], (_error, stdout) => resolve(stdout.trim()));
    });
    return !answer.startsWith('Z') && basename(answer) === 'postgres';
  }
  const [, name, state] = /\((.*)\) (\w)/.exec(await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')) ?? [];
  if (name !== 'postgres' || state === 'Z') return false;
  // Unreadable for other users' processes in some containers: then the name has to do.
  const folder = await readlink(`/proc/${pid}/cwd`).catch(() => cluster);
  return folder === cluster;
}
