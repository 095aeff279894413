// The services that every plugin has of its own host: its logger, configuration, figures and the clock of its requests. Must not know other plugins.
import { performance } from 'node:perf_hooks';
import type { Logger } from 'pino';
import type { KernelClock, KernelConfig, KernelLogger, KernelMetrics } from '../../protocol/own-services.js';
import type { StatusBlock } from '../../protocol/status-block.js';
import type { Tasks } from './task.js';

export interface OwnServicesOptions {
  readonly log: Logger;
  readonly config: Readonly<Record<string, string>>;
  readonly tasks: Tasks;
  readonly status: StatusBlock;
  /** Calls to other plugins that wait, and calls of others that run. */
  readonly calls: () => { readonly made: number; readonly served: number };
}

const LEVELS: ReadonlySet<string> = new Set(['trace', 'debug', 'info', 'warn', 'error', 'fatal']);

/** By name. Nothing of them leaves the worker. */
export function ownServices({ log, config, tasks, status, calls }: OwnServicesOptions): Readonly<Record<string, object>> {
  const logger: KernelLogger = {
    write(level, message, fields = {}) {
      if (!LEVELS.has(level)) throw new TypeError(`"${String(level)}" is no level; there are ${[...LEVELS].join(', ')}`);
      log[level](fields, message);
    },
  };
  const settings: KernelConfig = { get: (name) => (Object.hasOwn(config, name) ? config[name] : undefined), all: () => config };
  const metrics: KernelMetrics = {
    read: () => ({ ...status.memory, loopLagMs: status.loopLagMs, loopUtilization: performance.eventLoopUtilization().utilization, callsMade: calls().made, callsServed: calls().served }),
  };
  const clock: KernelClock = {
    read() {
      const now = Date.now();
      const remainingMs = (tasks.current?.deadline ?? Infinity) - performance.now();
      return remainingMs === Infinity ? { now, deadline: null, remainingMs: null } : { now, deadline: now + remainingMs, remainingMs };
    },
  };
  return { 'kernel.logger': logger, 'kernel.config': settings, 'kernel.metrics': metrics, 'kernel.clock': clock };
}
