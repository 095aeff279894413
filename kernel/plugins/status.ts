// One plugin as `GET /plugins/status/{name}` shows it. Must not know HTTP.
import type { Death, Transition } from '../../protocol/lifecycle.js';
import type { PluginLimits } from '../../protocol/limits.js';
import type { WorkerMemory } from '../../protocol/status-block.js';
import type { TopicDeclaration } from '../../protocol/topics.js';
import type { Dispatcher, RequestCounts } from '../dispatch/dispatcher.js';
import type { EventCounts } from '../services/event-party.js';
import type { InterceptorStatus } from '../intercept/interceptors.js';
import type { Compartment } from './compartment.js';
import type { PluginRecord, PluginSummary } from './record.js';

export interface PluginDetails extends PluginSummary {
  /** Services that it requires and makes do without, while it runs. */
  readonly degraded: readonly string[];
  /** Workers that it shall have while it runs. */
  readonly threads: number;
  /** Those that it has now; fewer while some are on their way. */
  readonly workers: readonly {
    readonly generation: number;
    readonly threadId: number | null;
    /** In bytes, as the host last measured it. */
    readonly memory: WorkerMemory;
    readonly heapLimitMb: number;
    readonly loopLagMs: number;
    readonly unresponsive: boolean;
    /** Requests that it has begun or that wait for it. */
    readonly load: number;
    /** PostgreSQL connections lent to it. */
    readonly connections: number;
  }[];
  /** `waiting` for it to come back after a death. */
  readonly requests: RequestCounts & { readonly inFlight: number; readonly queued: number; readonly waiting: number };
  readonly limits: PluginLimits;
  readonly routes: readonly { readonly method: string; readonly url: string }[];
  readonly services: readonly string[];
  readonly events: EventCounts;
  /** Of its manifest. */
  readonly topics: Readonly<Record<string, TopicDeclaration>>;
  /** What it does with the requests of others, and how often it was asked since it was loaded. */
  readonly interceptors: readonly InterceptorStatus[];
  /** Oldest first, at most 20. */
  readonly transitions: readonly Transition[];
  /** Oldest first, at most 20. */
  readonly deaths: readonly Death[];
  /** Milliseconds since 1970, while a restart is due. */
  readonly restartAt: number | null;
}

export interface Surroundings {
  /** Requests that wait for it to come back. */
  readonly waiting: number;
  /** Services that it requires and that are not there. */
  readonly missing: readonly string[];
  readonly interceptors: readonly InterceptorStatus[];
}

export function statusOf(record: PluginRecord, compartments: readonly Compartment[], { waiting, missing, interceptors }: Surroundings): PluginDetails {
  const { state } = record;
  const sum = (count: (dispatcher: Dispatcher) => number): number => compartments.reduce((all, { dispatcher }) => all + (dispatcher === null ? 0 : count(dispatcher)), 0);
  return {
    ...record.summary(),
    degraded: record.is('running') ? missing : [],
    threads: record.threads,
    workers: compartments.map(({ number, generation, dispatcher, unresponsive, leases }) => ({
      generation: number,
      threadId: generation.threadId,
      memory: generation.status.memory,
      heapLimitMb: generation.build.heapMb,
      loopLagMs: Math.round(generation.status.loopLagMs),
      unresponsive,
      load: (dispatcher?.inFlight ?? 0) + (dispatcher?.queued ?? 0),
      connections: leases,
    })),
    requests: { ...record.requests, inFlight: sum(({ inFlight }) => inFlight), queued: sum(({ queued }) => queued), waiting },
    limits: record.limits,
    routes: record.routes.map(({ method, url }) => ({ method, url })),
    services: [...new Set(compartments.flatMap(({ services }) => services))],
    events: { ...record.events },
    topics: record.manifest?.topics ?? {},
    interceptors,
    transitions: [...record.transitions],
    deaths: [...record.deaths],
    restartAt: state.status === 'restarting' ? state.restartAt : null,
  };
}
