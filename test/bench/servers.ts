// Starts and ends the servers that are measured, each in a process of its own. Must not know what is measured.
import { fork, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { cpus } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export interface Server {
  readonly url: string;
  /** Of the one to be ended. */
  readonly process: ChildProcess;
  /** The one that serves. */
  readonly pid: number;
}

/** A kernel as in production, on a free port. */
export async function startKernel(environment: Readonly<Record<string, string>>): Promise<Server> {
  const { DATA_DIR = '' } = environment;
  const child = spawn(process.execPath, [join(findRoot(), 'dist/kernel/main.js')], {
    cwd: DATA_DIR, // without an .env
    env: { PATH: process.env['PATH'], PORT: '0', ...environment },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  for await (const line of createInterface({ input: child.stdout! })) {
    const { url, kernel } = JSON.parse(line) as { url?: string; kernel: number };
    if (url === undefined) continue;
    child.stdout!.resume();
    for (let attempts = 0; (await fetch(`${url}/health/ready`)).status !== 200; attempts += 1) {
      if (attempts > 300) throw new Error('the kernel is not ready after 30 s');
      await delay(100);
    }
    return { url, process: child, pid: kernel };
  }
  throw new Error('the kernel did not start');
}

/** Ways to isolate a plugin that are quickly built. */
export const NAIVE = ['one postMessage per request', 'piscina.run per request', 'child process behind @fastify/http-proxy'] as const;

/** Ways to call another thread. */
export const CALLERS = ['comlink', 'HTTP on loopback'] as const;

/** Starts a candidate other than the kernel. Without a database it has no plugins that want one. */
export async function startCandidate(role: 'in-process' | (typeof NAIVE)[number] | (typeof CALLERS)[number], databaseUrl: string): Promise<Server> {
  const child = fork(join(findRoot(), 'dist/bench/candidates.js'), ['serve', role, databaseUrl]);
  const [url] = (await once(child, 'message')) as [string];
  return { url, process: child, pid: child.pid! };
}

export async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGTERM');
  await once(child, 'exit');
}

/** The bench runs as a bundle below `dist/`. */
export function findRoot(): string {
  return resolve(fileURLToPath(new URL('.', import.meta.url)), '../..');
}

/** What was measured on, in one line. */
export function machine(): string {
  return `${cpus()[0]?.model.trim() ?? 'unknown'}, ${cpus().length} cores, Node ${process.version}, ${new Date().toISOString().slice(0, 10)}`;
}

export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
}
