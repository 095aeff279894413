// One generation as a party to events: checks what it says, keeps what is on its way to it bounded, counts. Must not know other generations, or how events are stored.
import type { Logger } from 'pino';
import { BulkheadError, toPlainError } from '../../protocol/errors.js';
import type { EventAnswerFrame, EventFrame, EventFrameToHost, EventFrameToKernel } from '../../protocol/event-frames.js';
import {
  EVENT_ATTEMPTS_ALLOWED_MAX, EVENT_KEY_MAX_CHARACTERS, EVENTS_DROPPED_TOLD_INTERVAL_MS, EVENTS_PENDING_MAX, EVENTS_PENDING_MAX_BYTES, EVENTS_STORING_MAX, EVENTS_STORING_MAX_BYTES,
} from '../../protocol/event-limits.js';
import { CAUSE_MAX_CHARACTERS, EVENT_PAYLOAD_MAX_BYTES } from '../../protocol/limits.js';
import { isKernels, patternProblem, topicProblem, type TopicDeclaration } from '../../protocol/topics.js';
import type { DurableEvents } from './durable-events.js';
import type { EventBus, Hearer } from './event-bus.js';

/** Of all generations of one plugin. */
export interface EventCounts {
  /** Events that it has published, and that were stored where they are durable. */
  published: number;
  /** Handlers that have ended, with an error or without. */
  delivered: number;
  /** Events that were lost for it, because it did not keep up. */
  dropped: number;
}

export const noEvents = (): EventCounts => ({ published: 0, delivered: 0, dropped: 0 });

export interface EventPartyOptions {
  readonly plugin: string;
  readonly bus: EventBus;
  readonly durable: DurableEvents;
  /** Returns false when its worker has ended. */
  readonly send: (frame: EventFrameToHost) => boolean;
  readonly counts: EventCounts;
  readonly log: Pick<Logger, 'warn'>;
}

export class EventParty implements Hearer {
  readonly #options: EventPartyOptions;
  #topics: Readonly<Record<string, TopicDeclaration>> = {};
  /** Sizes of the events that are on their way, the oldest first, from `#first` on. */
  #sizes: number[] = [];
  #first = 0;
  #bytes = 0;
  readonly #storing = { events: 0, bytes: 0 };
  #untold = 0;
  #toldAt = -Infinity;

  constructor(options: EventPartyOptions) {
    this.#options = options;
  }

  get plugin(): string {
    return this.#options.plugin;
  }

  get send(): EventPartyOptions['send'] {
    return this.#options.send;
  }

  get counts(): EventCounts {
    return this.#options.counts;
  }

  /** What its manifest says. */
  declare(topics: Readonly<Record<string, TopicDeclaration>>): void {
    this.#topics = topics;
  }

  hear(event: EventFrame): void {
    const { byteLength } = event.payload;
    if (this.#sizes.length - this.#first >= EVENTS_PENDING_MAX || this.#bytes + byteLength > EVENTS_PENDING_MAX_BYTES) return this.#drop(1);
    if (!this.#options.send(event)) return;
    this.#sizes.push(byteLength);
    this.#bytes += byteLength;
  }

  /** What comes from a worker may be anything: throws when it is nothing that a host says. */
  handle(frame: EventFrameToKernel): void {
    const { bus, durable } = this.#options;
    switch (frame.kind) {
      case 'subscribe': {
        const pattern = checked(frame.pattern, patternProblem);
        if (frame.attempts === null) return bus.subscribe(this, pattern);
        return durable.subscribe(this, pattern, count(frame.attempts, EVENT_ATTEMPTS_ALLOWED_MAX));
      }
      case 'unsubscribe': {
        const pattern = checked(frame.pattern, patternProblem);
        return frame.durable === true ? durable.unsubscribe(this, pattern) : bus.unsubscribe(this, pattern);
      }
      case 'publish': return this.#publish(this.#event(frame.topic, frame.payload));
      case 'event-store': return this.#store(count(frame.ref), this.#event(frame.topic, frame.payload), frame.key === null ? null : checked(frame.key, keyProblem));
      case 'event-forget': return this.#answer(count(frame.ref), durable.forget(this.plugin, checked(frame.pattern, patternProblem)));
      case 'events-taken': return this.#taken(count(frame.taken), count(frame.delivered), count(frame.dropped));
      case 'event-handled': return durable.handled(this, count(frame.ref), frame.refused === true, frame.error === null ? null : text(frame.error).slice(0, CAUSE_MAX_CHARACTERS));
    }
  }

  /** Gets no further durable events. Resolves when those that it has are handled. */
  drained(): Promise<void> {
    return this.#options.durable.drained(this);
  }

  /** The generation is over, of `cause`; null when it was asked to end. */
  leave(cause: string | null): void {
    this.#options.bus.drop(this);
    this.#options.durable.leave(this, cause);
  }

  #event(topic: unknown, payload: unknown): EventFrame {
    const name = checked(topic, topicProblem);
    if (isKernels(name)) throw new TypeError('it publishes what only the kernel publishes');
    // Shared memory could change after it was read here.
    if (!(payload instanceof Uint8Array) || !(payload.buffer instanceof ArrayBuffer)) throw new TypeError('it has something else where bytes belong');
    // It is copied with all its memory for each that hears it.
    if (payload.buffer.byteLength > EVENT_PAYLOAD_MAX_BYTES) throw new RangeError('its payload is too large');
    return { kind: 'event', topic: name, payload, publisher: this.plugin, at: Date.now() };
  }

  #publish(event: EventFrame): void {
    this.counts.published += 1;
    this.#options.bus.publish(event);
  }

  #store(ref: number, event: EventFrame, key: string | null): void {
    const { topic, payload: { byteLength } } = event;
    if (!Object.hasOwn(this.#topics, topic) || this.#topics[topic]!.durable !== true) throw new TypeError('its manifest does not declare the topic durable');
    const storing = this.#storing;
    if (storing.events >= EVENTS_STORING_MAX || storing.bytes + byteLength > EVENTS_STORING_MAX_BYTES) {
      return this.#answer(ref, Promise.reject(new BulkheadError('DATABASE_BUSY', { reason: `${storing.events} events of the plugin wait to be stored already` })));
    }
    storing.events += 1;
    storing.bytes += byteLength;
    const stored = this.#options.durable.store({ ...event, key }).finally(() => {
      storing.events -= 1;
      storing.bytes -= byteLength;
    });
    // Who hears it at most once hears of nothing that was lost.
    this.#answer(ref, stored.then(() => this.#publish(event)));
  }

  #answer(ref: number, work: Promise<void>): void {
    const answer = (error: EventAnswerFrame['error']): boolean => this.#options.send({ kind: 'event-answer', ref, error });
    work.then(() => answer(null), (error: unknown) => answer(withoutStack(error)));
  }

  #taken(taken: number, delivered: number, dropped: number): void {
    if (taken > this.#sizes.length - this.#first) throw new RangeError('it has taken more events than it got');
    for (const end = this.#first + taken; this.#first < end; this.#first += 1) this.#bytes -= this.#sizes[this.#first]!;
    if (this.#first > this.#sizes.length / 2) {
      this.#sizes = this.#sizes.slice(this.#first);
      this.#first = 0;
    }
    this.counts.delivered += delivered;
    if (dropped > 0) this.#drop(dropped);
  }

  /** At most one line in EVENTS_DROPPED_TOLD_INTERVAL_MS, however many are lost. */
  #drop(events: number): void {
    this.counts.dropped += events;
    this.#untold += events;
    const now = performance.now();
    if (now - this.#toldAt < EVENTS_DROPPED_TOLD_INTERVAL_MS) return;
    this.#options.log.warn({ dropped: this.#untold, droppedInAll: this.counts.dropped }, 'a subscriber does not keep up and loses events');
    this.#toldAt = now;
    this.#untold = 0;
  }
}

function withoutStack(error: unknown): EventAnswerFrame['error'] {
  const { stack: _, ...plain } = toPlainError(error);
  return plain;
}

function keyProblem(key: unknown): string | null {
  return typeof key === 'string' && key !== '' && key.length <= EVENT_KEY_MAX_CHARACTERS && !key.includes('\0') ? null : 'it is no key';
}

function checked(value: unknown, problemOf: (value: unknown) => string | null): string {
  const problem = problemOf(value);
  if (problem !== null) throw new TypeError(problem);
  return value as string;
}

function text(value: unknown): string {
  if (typeof value !== 'string') throw new TypeError('it has something else where text belongs');
  return value;
}

function count(value: unknown, max = Number.MAX_SAFE_INTEGER): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0 || (value as number) > max) throw new TypeError('it has something else where a number belongs');
  return value as number;
}
