// Services between plugins, as a plugin sees them. Must not know how calls travel.
import type { KernelClock, KernelConfig, KernelLogger, KernelMetrics } from './own-services.js';

/**
 * The services there are, by name. A plugin that provides one declares it, so that consumers are typed:
 * ```ts
 * declare module 'bulkhead/protocol' { interface ServiceMap { 'items.count': () => Promise<number> } }
 * ```
 */
export interface ServiceMap {
  'kernel.logger': KernelLogger;
  'kernel.config': KernelConfig;
  'kernel.metrics': KernelMetrics;
  'kernel.clock': KernelClock;
}

export type ServiceName = keyof ServiceMap;
/** Those that plugins provide. */
export type PluginServiceName = Exclude<ServiceName, `kernel.${string}`>;

/** What `services` in a definition may have. */
export type OfferedServices = { readonly [N in PluginServiceName]?: ServiceMap[N] };

type AnyFunction = (...args: never[]) => unknown;
/** A stream can be iterated at once, or awaited first. */
export type RemoteStream<V> = Promise<AsyncIterable<V>> & AsyncIterable<V>;
type RemoteFunction<F> = F extends (...args: infer A) => infer R ? (...args: A) => Awaited<R> extends AsyncIterable<infer V> ? RemoteStream<V> : Promise<Awaited<R>> : never;

/** A service as its consumer sees it: every function answers with a promise or a stream; what is no function is not there. */
export type Remote<T> = T extends AnyFunction
  ? RemoteFunction<T>
  : { readonly [K in keyof T as T[K] extends AnyFunction ? K : never]: RemoteFunction<T[K]> };

/** What stands in for a service that is not there: the same methods, or some of them. */
export type Fallback<T> = T extends AnyFunction
  ? (...args: Parameters<T>) => Awaited<ReturnType<T>> | Promise<Awaited<ReturnType<T>>>
  : { readonly [K in keyof T as T[K] extends AnyFunction ? K : never]?: T[K] extends AnyFunction ? (...args: Parameters<T[K]>) => Awaited<ReturnType<T[K]>> | Promise<Awaited<ReturnType<T[K]>>> : never };

export interface Services {
  /**
   * A handle on a service that the plugin has in its `requires` or `optional`, or on one of the kernel's own; throws `SERVICE_FORBIDDEN` for any other.
   * Arguments and results are structured clones, or moved with `transfer`. An AbortSignal among the arguments ends the call, and the provider has the call's own in its place.
   *
   * The handle survives restarts of the provider: while it is on its way back, calls wait. A call rejects with `SERVICE_UNKNOWN`, or with `SERVICE_UNAVAILABLE`
   * when the provider is down or dies during the call, unless the method is `idempotent`: then the next generation gets it. It never waits longer than SERVICE_CALL_TIMEOUT_MS, nor than
   * the request or call has left that it is made in. When that is given up, it rejects at once with an `AbortError` (`code` `ABORT_ERR`). Whenever nobody waits
   * for its result any more, what it has set going at the provider, statements and further calls, is given up in the same way.
   *
   * With a `fallback`, what would reject with one of those two codes calls that instead.
   */
  get<N extends ServiceName>(name: N, fallback?: Fallback<ServiceMap[N]>): Remote<ServiceMap[N]>;
}
