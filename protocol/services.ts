// Services and events between plugins, as a plugin sees them. Must not know how calls and events travel.

/**
 * The services there are, by name. A plugin that provides one declares it, so that consumers are typed:
 * ```ts
 * declare module 'bulkhead/protocol' { interface ServiceMap { 'items.count': () => Promise<number> } }
 * ```
 */
// eslint-disable-next-line @typescript-eslint/no-empty-object-type
export interface ServiceMap {}

/** The topics there are, by name, with the type of their payload; extended like `ServiceMap`. */
// eslint-disable-next-line @typescript-eslint/no-empty-object-type
export interface EventMap {}

type AnyFunction = (...args: never[]) => unknown;
type RemoteFunction<F> = F extends (...args: infer A) => infer R ? (...args: A) => Promise<Awaited<R>> : never;

/** A service as its consumer sees it: every function answers with a promise; what is no function is not there. */
export type Remote<T> = T extends AnyFunction
  ? RemoteFunction<T>
  : { readonly [K in keyof T as T[K] extends AnyFunction ? K : never]: RemoteFunction<T[K]> };

type ServiceOf<N extends string> = N extends keyof ServiceMap ? ServiceMap[N] : Record<string, (...args: any[]) => any>;
/** A service without a declared type may be any object or function. */
type Offered<N extends string> = N extends keyof ServiceMap ? ServiceMap[N] : object;
type PayloadOf<T extends string> = T extends keyof EventMap ? EventMap[T] : unknown;

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

export interface Events {
  /**
   * Sends a payload (a structured clone, at most EVENT_PAYLOAD_MAX_BYTES) to all present subscribers, at most once each.
   * Throws `EVENT_TOO_LARGE`, and `EVENTS_TOO_MANY` above EVENTS_PER_SECOND_MAX.
   */
  publish<T extends string>(topic: T, payload: PayloadOf<T>): void;
  /** Calls the handler for each event of this exact topic; what it throws is logged. Returns the way to end it. */
  subscribe<T extends string>(topic: T, handler: (payload: PayloadOf<T>, publisher: string) => void | Promise<void>): () => void;
}
