// Whether the kernel holds what it held before a fault, and nothing more. In one place, for every test that ends a worker.
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Test } from 'tap';
import type { Census } from '../../kernel/plugins/census.js';
import { eventually, FIXTURES, type TestKernel } from './kernel.js';

export interface Holdings extends Census {
  /** Folders of workers, as the file system has them: those that live and have a plugin. */
  readonly folders: number;
  /** Ends of channels in the kernel's thread, those that Node needs for each worker included. */
  readonly ports: number;
  /** PostgreSQL backends with a transaction that nobody goes on with. */
  readonly transactions: number;
}

export async function holdings(kernel: TestKernel): Promise<Holdings> {
  const [row] = await kernel.query<{ transactions: number }>("SELECT count(*)::integer AS transactions FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'");
  return { ...kernel.kernel.supervisor.census(), folders: await countFolders(kernel), ports: process.getActiveResourcesInfo().filter((kind) => kind === 'MessagePort').length, transactions: row!.transactions };
}

/** Folders of workers, as the file system has them: a standby has none yet. */
export async function countFolders({ dataDir }: TestKernel): Promise<number> {
  return (await readdir(join(dataDir, 'berths')).catch(() => [])).length;
}

/**
 * Waits until the kernel holds what it did; fails with what is too much, or too little. Requests of other plugins come and go, so a moment without is waited for.
 * Fewer connections are right too: what a plugin has not used for a while goes back.
 */
export async function assertClean(t: Test, kernel: TestKernel, before: Holdings, timeoutMs = 8_000): Promise<void> {
  const look = async (): Promise<Holdings> => {
    const now = await holdings(kernel);
    return { ...now, connections: Math.max(now.connections, before.connections) };
  };
  const deadline = Date.now() + timeoutMs;
  let now = await look();
  while (JSON.stringify(now) !== JSON.stringify(before) && Date.now() < deadline) {
    await delay(20);
    now = await look();
  }
  t.strictSame(now, before, 'the kernel holds what it held before, and no more');
}

/** What a kernel holds when nothing is in flight and its standby waits. */
export async function atRest(kernel: TestKernel): Promise<Holdings> {
  let last: Holdings | null = null;
  return eventually('the kernel is at rest', 20_000, async () => {
    const now = await holdings(kernel);
    // Requests of the neighbours come and go; between two of them is rest enough.
    const still = last !== null && JSON.stringify({ ...last, requests: 0 }) === JSON.stringify(now);
    last = now;
    return still && now.standbys === 1 && now.workers === now.watched + 1 && now.transactions === 0 ? now : undefined;
  });
}

/** A plugin with the code of `unruly` and a name of its own; `fault` is what its fault.txt says, `limits` are further ones. */
export async function writeUnruly(kernel: TestKernel, name: string, fault: string, limits = ''): Promise<void> {
  for (const file of await readdir(join(FIXTURES, 'unruly'))) {
    const source = await readFile(join(FIXTURES, 'unruly', file), 'utf8');
    await kernel.writePlugin(name, source.replace("name: 'unruly'", `name: '${name}'`).replace('limits: {', `limits: { ${limits}`), file);
  }
  await kernel.writePlugin(name, fault, 'fault.txt');
}
