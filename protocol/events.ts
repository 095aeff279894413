// Events between plugins, as a plugin sees them. Must not know how events travel.

/** The topics there are, by name, with the type of their payload; extended by declaration merging like `ServiceMap`. */
// eslint-disable-next-line @typescript-eslint/no-empty-object-type
export interface EventMap {}

type PayloadOf<T extends string> = T extends keyof EventMap ? EventMap[T] : unknown;

export interface Events {
  /**
   * Sends a payload (a structured clone, at most EVENT_PAYLOAD_MAX_BYTES) to all present subscribers, at most once each.
   * Throws `EVENT_TOO_LARGE`, and `EVENTS_TOO_MANY` above EVENTS_PER_SECOND_MAX.
   */
  publish<T extends string>(topic: T, payload: PayloadOf<T>): void;
  /** Calls the handler for each event of this exact topic; what it throws is logged. Returns the way to end it. */
  subscribe<T extends string>(topic: T, handler: (payload: PayloadOf<T>, publisher: string) => void | Promise<void>): () => void;
}
