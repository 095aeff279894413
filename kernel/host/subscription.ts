// One handler's subscription in a host: its events wait in their order, and one is handled at a time. Must not know other subscriptions, or the kernel.
import { deserialize } from 'node:v8';
import { EVENT_HANDLER_TIMEOUT_MS, EVENTS_PENDING_MAX, EVENTS_PENDING_MAX_BYTES } from '../../protocol/event-limits.js';
import type { EventFrame } from '../../protocol/event-frames.js';
import type { EventInfo } from '../../protocol/events.js';
import { hears, segmentsOf } from '../../protocol/topics.js';

export type Handler<Info extends EventInfo = EventInfo> = (payload: never, event: Info) => void | Promise<void>;

/** Told of each event that was offered: how its handler ended, or that there was no room for it. */
export interface Outcomes {
  delivered(): void;
  dropped(): void;
  failed(frame: EventFrame, error: unknown): void;
}

export class Subscription {
  readonly pattern: string;
  readonly #segments: readonly string[];
  readonly #handler: Handler;
  readonly #outcomes: Outcomes;
  #waiting: EventFrame[] = [];
  #bytes = 0;
  #busy = false;

  constructor(pattern: string, handler: Handler, outcomes: Outcomes) {
    this.pattern = pattern;
    this.#segments = segmentsOf(pattern);
    this.#handler = handler;
    this.#outcomes = outcomes;
  }

  hears(topic: readonly string[]): boolean {
    return hears(this.#segments, topic);
  }

  /** Handles it, now or after those before it; one that finds no room is lost. */
  offer(frame: EventFrame): void {
    if (!this.#busy) return this.#handle(frame);
    const { byteLength } = frame.payload;
    if (this.#waiting.length >= EVENTS_PENDING_MAX || this.#bytes + byteLength > EVENTS_PENDING_MAX_BYTES) return this.#outcomes.dropped();
    this.#waiting.push(frame);
    this.#bytes += byteLength;
  }

  /** What waits is handled no more. */
  end(): void {
    this.#waiting = [];
    this.#bytes = 0;
  }

  #next(): void {
    while (!this.#busy) {
      const frame = this.#waiting.shift();
      if (frame === undefined) return;
      this.#bytes -= frame.payload.byteLength;
      this.#handle(frame);
    }
  }

  #handle(frame: EventFrame): void {
    const { topic, publisher, at } = frame;
    try {
      // Anew for each handler: none sees what another has done to it.
      const result = this.#handler(deserialize(frame.payload) as never, { topic, publisher, at });
      // A plugin may have promises of its own making.
      if (typeof result?.then === 'function') return this.#await(frame, Promise.resolve(result));
    } catch (error) {
      this.#outcomes.failed(frame, error);
    }
    this.#outcomes.delivered();
  }

  /** A handler that never ends holds up its own subscription only, and for a while only. */
  #await(frame: EventFrame, result: Promise<void>): void {
    let over = false;
    this.#busy = true;
    const end = (error?: unknown): void => {
      clearTimeout(timer);
      if (error !== undefined) this.#outcomes.failed(frame, error);
      if (over) return;
      over = true;
      this.#busy = false;
      this.#outcomes.delivered();
      this.#next();
    };
    const timer = setTimeout(() => end(new Error(`it took longer than ${EVENT_HANDLER_TIMEOUT_MS} ms`)), EVENT_HANDLER_TIMEOUT_MS).unref();
    result.then(() => end(), (error: unknown) => end(error ?? new Error('it rejected with nothing')));
  }
}
