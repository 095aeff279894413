// Services between plugins, as a plugin sees them. Must not know how calls travel.

/**
 * The services there are, by name. A plugin that provides one declares it, so that consumers are typed:
 * ```ts
 * declare module 'bulkhead/protocol' { interface ServiceMap { 'items.count': () => Promise<number> } }
 * ```
 */
// eslint-disable-next-line @typescript-eslint/no-empty-object-type
export interface ServiceMap {}

type AnyFunction = (...args: never[]) => unknown;
type RemoteFunction<F> = F extends (...args: infer A) => infer R ? (...args: A) => Promise<Awaited<R>> : never;

/** A service as its consumer sees it: every function answers with a promise; what is no function is not there. */
export type Remote<T> = T extends AnyFunction
  ? RemoteFunction<T>
  : { readonly [K in keyof T as T[K] extends AnyFunction ? K : never]: RemoteFunction<T[K]> };

type ServiceOf<N extends string> = N extends keyof ServiceMap ? ServiceMap[N] : Record<string, (...args: any[]) => any>;
/** A service without a declared type may be any object or function. */
type Offered<N extends string> = N extends keyof ServiceMap ? ServiceMap[N] : object;

export interface Services {
  /**
   * Offers a function, or the methods of an object, to other plugins under this name. Arguments and results are structured clones.
   * Throws `PLUGIN_CONFLICT` when this plugin has provided the name already.
   */
  provide<N extends string>(name: N, service: Offered<N>): void;
  /**
   * A handle on another plugin's service. It survives restarts of the provider. A call rejects with `SERVICE_UNKNOWN`,
   * or with `SERVICE_UNAVAILABLE` while the provider is down, and never waits longer than SERVICE_CALL_TIMEOUT_MS. When the request that has made it
   * is given up, it rejects at once with an `AbortError` (`code` `ABORT_ERR`). Whenever nobody waits for its result any more, what it has set going at
   * the provider, statements and further calls, is given up in the same way.
   */
  get<N extends string>(name: N): Remote<ServiceOf<N>>;
}
