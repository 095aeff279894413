// One plugin as `GET /plugins/status/{name}` shows it. Must not know HTTP.
import type { Death, Transition } from '../../protocol/lifecycle.js';
import type { PluginLimits } from '../../protocol/limits.js';
import type { WorkerMemory } from '../../protocol/status-block.js';
import type { RequestCounts } from '../dispatch/dispatcher.js';
import type { Compartment } from './compartment.js';
import type { PluginRecord, PluginSummary } from './record.js';

export interface PluginDetails extends PluginSummary {
  /** The worker thread, while there is one. */
  readonly worker: {
    readonly threadId: number | null;
    /** In bytes, as the host last measured it. */
    readonly memory: WorkerMemory;
    readonly heapLimitMb: number;
    readonly loopLagMs: number;
    readonly unresponsive: boolean;
    /** PostgreSQL connections lent to it. */
    readonly connections: number;
  } | null;
  /** `waiting` for it to come back after a death. */
  readonly requests: RequestCounts & { readonly inFlight: number; readonly queued: number; readonly waiting: number };
  readonly limits: PluginLimits;
  readonly routes: readonly { readonly method: string; readonly url: string }[];
  readonly services: readonly string[];
  /** Oldest first, at most 20. */
  readonly transitions: readonly Transition[];
  /** Oldest first, at most 20. */
  readonly deaths: readonly Death[];
  /** Milliseconds since 1970, while a restart is due. */
  readonly restartAt: number | null;
}

export function statusOf(record: PluginRecord, compartment: Compartment | null, waiting: number): PluginDetails {
  const { state } = record;
  const generation = compartment?.generation;
  return {
    ...record.summary(),
    worker: compartment === null || generation === undefined ? null : {
      threadId: generation.threadId,
      memory: generation.status.memory,
      heapLimitMb: generation.build.heapMb,
      loopLagMs: Math.round(generation.status.loopLagMs),
      unresponsive: compartment.unresponsive,
      connections: compartment.leases,
    },
    requests: { ...record.requests, inFlight: compartment?.dispatcher?.inFlight ?? 0, queued: compartment?.dispatcher?.queued ?? 0, waiting },
    limits: record.limits,
    routes: record.routes.map(({ method, url }) => ({ method, url })),
    services: compartment?.services ?? [],
    transitions: [...record.transitions],
    deaths: [...record.deaths],
    restartAt: state.status === 'restarting' ? state.restartAt : null,
  };
}
