// Takes from a worker what would reach the whole process and Node's permission model leaves open. Must not know the plugin.
import { syncBuiltinESMExports } from 'node:module';
import os from 'node:os';
import v8 from 'node:v8';
import workerThreads from 'node:worker_threads';
import type { Logger } from 'pino';

/** Signals and debuggers, the priority of the process, and flags of V8 that hold for all threads. */
const FORBIDDEN: readonly (readonly [owner: object, names: readonly string[]])[] = [
  [process, ['kill', '_kill', '_debugProcess', '_debugEnd']],
  [os, ['setPriority']],
  [v8, ['setFlagsFromString', 'setHeapSnapshotNearHeapLimit']],
];

/** Once, before the plugin's code is there. What is written to the process's own streams goes to the log. */
export function raiseWalls(log: Logger): void {
  for (const [owner, names] of FORBIDDEN) for (const name of names) if (name in owner) replace(owner, name, refusing(name));
  // A report shows the environment of the process.
  replace(process, 'report', undefined);
  // It tells where the kernel keeps its files.
  replace(process, 'execArgv', []);
  // The other ends of these are Piscina's, who would take anything for an answer.
  replace(workerThreads, 'parentPort', null);
  replace(workerThreads, 'workerData', null);
  for (const [stream, level] of [[process.stdout, 'info'], [process.stderr, 'warn']] as const) {
    stream.write = ((chunk: unknown, ...rest: unknown[]): boolean => {
      log[level](String(chunk).trimEnd());
      const done = rest.at(-1);
      if (typeof done === 'function') queueMicrotask(() => (done as () => void)());
      return true;
    }) as typeof stream.write;
  }
  syncBuiltinESMExports();
}

function refusing(name: string): () => never {
  return () => {
    throw Object.assign(new Error(`${name} is not available to plugins: it would reach the whole process`), { code: 'ERR_ACCESS_DENIED' });
  };
}

function replace(owner: object, name: string, value: unknown): void {
  Object.defineProperty(owner, name, { value, writable: false, configurable: false, enumerable: true });
}
