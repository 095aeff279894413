// The kernel's own services, which every plugin has without declaring them. Must not know who carries them out.
import type { WorkerMemory } from './status-block.js';

/** `kernel.logger`: what `ctx.log` writes, for code that has only services. */
export interface KernelLogger {
  write(level: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal', message: string, fields?: Readonly<Record<string, unknown>>): void;
}

/** `kernel.config`: the operator's settings for this plugin, as in `ctx.config`. */
export interface KernelConfig {
  get(name: string): string | undefined;
  all(): Readonly<Record<string, string>>;
}

/** Figures of one worker. */
export interface WorkerMetrics extends WorkerMemory {
  /** How late its event loop was at the last heartbeat, in milliseconds. */
  readonly loopLagMs: number;
  /** Share of its life that its event loop had something to do, from 0 to 1. */
  readonly loopUtilization: number;
  /** Calls to services of other plugins that wait for their result. */
  readonly callsMade: number;
  /** Calls of other plugins that run. */
  readonly callsServed: number;
}

/** `kernel.metrics`: of the worker that asks. */
export interface KernelMetrics { read(): WorkerMetrics }

/** `kernel.clock`: the time, and how much of it the request or call that asks has left. */
export interface KernelClock {
  /** `now` and `deadline` in milliseconds since 1970; both others are null where nobody waits. */
  read(): { readonly now: number; readonly deadline: number | null; readonly remainingMs: number | null };
}
