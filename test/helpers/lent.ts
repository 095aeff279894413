// Both ends of lent connections in one thread, and the PostgreSQL behind them, which is real.
import { setTimeout as sleep } from 'node:timers/promises';
import { MessageChannel } from 'node:worker_threads';
import type pg from 'pg';
import type { Test } from 'tap';
import { Lending } from '../../kernel/database/lending.js';
import { createDatabase, type Database } from '../../kernel/database/pool.js';
import type { Scope } from '../../kernel/database/scopes.js';
import { createLentPool, type LentPool } from '../../kernel/host/database-client.js';
import { Tasks } from '../../kernel/host/task.js';
import { Channel } from '../../protocol/channel.js';
import type { HostToKernelFrame, KernelToHostFrame, LeaseDataFrame } from '../../protocol/frames.js';
import { PLUGIN_LIMITS, type PluginLimits } from '../../protocol/limits.js';

export const silent = { info() {}, warn() {}, debug() {} };
export async function eventually(sentence: string, attempt: () => Promise<boolean> | boolean, limitMs = 5_000): Promise<number> {
  const began = performance.now();
  while (!(await attempt())) {
    if (performance.now() - began > limitMs) throw new Error(`${sentence}: not within ${limitMs} ms`);
    await sleep(5);
  }
  return performance.now() - began;
}

export function openDatabase(t: Test, url: string, poolMax = 10, log = silent): Database {
  const database = createDatabase({ url, poolMax, applicationName: 'bulkhead', log });
  t.teardown(() => database.close());
  return database;
}

export interface Pair {
  readonly database: Database;
  readonly lending: Lending;
  readonly lent: LentPool;
  readonly pool: pg.Pool;
  /** Most bytes that were on their way to the plugin at one time. */
  readonly peakBytes: () => number;
}

/** All plugins in one schema, as one user. */
export const shared = async (): Promise<Scope> => ({ schema: 'public', login: null });

let plugins = 0;

/** Both ends, joined by a real port in one thread. */
export function lend(t: Test, url: string, options: { poolMax?: number; quota?: number; connections?: number; plugin?: string; limits?: Partial<PluginLimits>; database?: Database } = {}): Pair {
  const { poolMax = 10, quota = 4, plugin = `plugin${++plugins}` } = options;
  const database = options.database ?? openDatabase(t, url, poolMax);
  const { port1, port2 } = new MessageChannel();
  let bytes = 0;
  let peak = 0;
  const lending = new Lending({
    database, plugin, quota, scope: shared, onRefused() {}, limits: { ...PLUGIN_LIMITS, ...options.limits }, log: silent,
    send(frame, transfer) {
      if (frame.kind === 'lease-data') peak = Math.max(peak, (bytes += frame.data.byteLength));
      kernel.send(frame, transfer);
    },
  });
  const kernel = new Channel<KernelToHostFrame, HostToKernelFrame>(port1, {
    onFrame(frame) {
      if (frame.kind === 'lease-credit') bytes -= frame.bytes;
      lending.handle(frame as LeaseDataFrame);
    },
  });
  const host = new Channel<HostToKernelFrame, KernelToHostFrame>(port2, { onFrame: (frame) => lent.handle(frame as LeaseDataFrame) });
  const lent = createLentPool({ send: (frame, transfer) => host.send(frame, transfer), connections: options.connections ?? quota, tasks: new Tasks(), log: silent });
  t.teardown(async () => {
    await lent.close();
    await lending.revokeAll();
    kernel.close();
  });
  return { database, lending, lent, pool: lent.pool, peakBytes: () => peak };
}
