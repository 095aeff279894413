// Events between plugins, as a plugin sees them. Must not know how events travel.
import type { PluginStatus, Transition } from './lifecycle.js';

/** What the kernel itself publishes: each change of state of any plugin. */
type KernelTopics = { readonly [S in PluginStatus as `kernel.plugin.${S}`]: Transition };

/**
 * The topics there are, by name, with the type of their payload; extended by declaration merging like `ServiceMap`:
 * ```ts
 * declare module 'bulkhead/protocol' { interface EventMap { 'order.placed': { id: number } } }
 * ```
 */
export interface EventMap extends KernelTopics {}

/** Whether pattern P hears topic T, segment by segment. */
type Hears<P extends string, T extends string> =
  P extends '**' ? true
  : P extends `${infer First}.${infer Rest}` ? (T extends `${infer F}.${infer R}` ? (First extends '*' | F ? Hears<Rest, R> : false) : false)
  : T extends `${string}.${string}` ? false
  : P extends '*' | T ? true : false;

type HeardBy<P extends string> = { [T in keyof EventMap]: Hears<P, T> extends true ? T : never }[keyof EventMap];

/** Of the topic, or of any topic that the pattern hears; unknown when none of them is declared. */
export type PayloadOf<P extends string> = P extends keyof EventMap ? EventMap[P] : [HeardBy<P>] extends [never] ? unknown : EventMap[HeardBy<P>];

/** What is known of an event besides its payload. */
export interface EventInfo {
  readonly topic: string;
  /** Name of the plugin that has published it, or `kernel`. */
  readonly publisher: string;
  /** When the kernel got it, in milliseconds since 1970. */
  readonly at: number;
}

/** The same for who has subscribed durably. */
export interface DurableEventInfo extends EventInfo {
  /** The same at each attempt, and for each subscriber: by it a handler knows what it has done already. */
  readonly id: string;
  readonly key: string | null;
  /** From 1. */
  readonly attempt: number;
}

export interface PublishOptions {
  /** Durable events of one key are handled one after the other, in the order of publishing; those of others meanwhile. At most EVENT_KEY_MAX_CHARACTERS. */
  readonly key?: string;
}

export interface DurableSubscribeOptions {
  readonly durable: true;
  /** How often an event is tried (1 to 100, by default EVENT_ATTEMPTS_MAX) before it becomes a dead letter. */
  readonly attempts?: number;
}

export interface Events {
  /**
   * Sends a payload (a structured clone, at most EVENT_PAYLOAD_MAX_BYTES) to all present subscribers, at most once each, and resolves at once.
   * An event of a topic that the manifest declares durable is stored first, for each durable subscriber, present or not: then it resolves when that is done, and
   * rejects with `EVENTS_BACKLOG`, `DATABASE_UNAVAILABLE`, `DATABASE_BUSY` or `DATABASE_SETUP_FAILED` when nothing was stored, or when that is not known.
   * Throws, in either case, a `TypeError` for what cannot be a topic or a key, `EVENT_TOO_LARGE`, and `EVENTS_TOO_MANY` above EVENTS_PER_SECOND_MAX.
   */
  publish<T extends string>(topic: T, payload: PayloadOf<T>, options?: PublishOptions): Promise<void>;
  /**
   * Calls the handler for each event of this topic, one at a time and in order; `*` in place of a segment stands for any one, `**` at the end for one or more. What it throws is logged.
   * One that does not keep up loses events beyond EVENTS_PENDING_MAX, which are counted. Returns the way to end it. Throws a `TypeError` for what cannot be a pattern.
   */
  subscribe<P extends string>(pattern: P, handler: (payload: PayloadOf<P>, event: EventInfo) => void | Promise<void>): () => void;
  /**
   * Durably: hears what is stored, from the end of the hook that subscribes on and over restarts of plugin and kernel, until `forget`. Each event comes at least once, to one of the plugin's workers; again, after a while, when
   * the handler throws, takes longer than EVENT_HANDLER_TIMEOUT_MS or dies of it, and as a dead letter to the operator in the end. Events of different keys are handled at the same time.
   * What is returned ends the listening of this worker only; events are kept meanwhile.
   */
  subscribe<P extends string>(pattern: P, handler: (payload: PayloadOf<P>, event: DurableEventInfo) => void | Promise<void>, options: DurableSubscribeOptions): () => void;
  /** Ends the durable subscription of the whole plugin to this pattern, and drops what waits for it. Rejects with `DATABASE_UNAVAILABLE` and its like. */
  forget(pattern: string): Promise<void>;
}
