// Starts and ends the servers that are measured, each in a process of its own. Must not know what is measured.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { cpus } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export interface Server {
  readonly url: string;
  readonly process: ChildProcess;
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
    const { url } = JSON.parse(line) as { url?: string };
    if (url === undefined) continue;
    child.stdout!.resume();
    for (let attempts = 0; (await fetch(`${url}/health/ready`)).status !== 200; attempts += 1) {
      if (attempts > 300) throw new Error('the kernel is not ready after 30 s');
      await delay(100);
    }
    return { url, process: child };
  }
  throw new Error('the kernel did not start');
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
