// Events as one host sees them: its subscriptions, and what it publishes. Must not know the other plugins.
import { serialize } from 'node:v8';
import type { Logger } from 'pino';
import { BulkheadError } from '../../protocol/errors.js';
import type { EventFrame, EventFrameToHost, EventFrameToKernel } from '../../protocol/event-frames.js';
import { EVENT_ATTEMPTS_ALLOWED_MAX, EVENT_ATTEMPTS_MAX, EVENT_KEY_MAX_CHARACTERS } from '../../protocol/event-limits.js';
import type { DurableEventInfo, DurableSubscribeOptions, Events, PublishOptions } from '../../protocol/events.js';
import { ownedBytes } from '../../protocol/flow.js';
import { EVENT_PAYLOAD_MAX_BYTES } from '../../protocol/limits.js';
import { Rate } from '../../protocol/rate.js';
import { isKernels, patternProblem, segmentsOf, topicProblem, type TopicDeclaration } from '../../protocol/topics.js';
import { Answers } from './answers.js';
import { DurableHandlers } from './durable-handlers.js';
import { Subscription, type Handler } from './subscription.js';

export type SendEvent = (frame: EventFrameToKernel, transfer?: readonly ArrayBuffer[]) => void;

export interface HostEventsOptions {
  readonly send: SendEvent;
  /** Events may be published. */
  readonly perSecond: number;
  /** Of the plugin's manifest. */
  readonly topics: Readonly<Record<string, TopicDeclaration>>;
  readonly log: Logger;
}

const DONE = Promise.resolve();

export class HostEvents implements Events {
  readonly #options: HostEventsOptions;
  readonly #rate: Rate;
  /** By pattern, each of which the kernel is told of once. */
  readonly #subscriptions = new Map<string, Set<Subscription>>();
  readonly #durable: DurableHandlers;
  readonly #answers = new Answers();
  #report = { taken: 0, delivered: 0, dropped: 0 };
  #reporting = false;

  constructor(options: HostEventsOptions) {
    this.#options = options;
    this.#rate = new Rate(options.perSecond);
    this.#durable = new DurableHandlers(options.send, options.log);
  }

  publish(topic: string, payload: unknown, { key }: PublishOptions = {}): Promise<void> {
    const { send, topics, perSecond } = this.#options;
    const durable = isTopic(topic) && Object.hasOwn(topics, topic) && topics[topic]!.durable === true;
    if (key !== undefined) checkKey(topic, key, durable);
    if (!this.#rate.admit()) throw new BulkheadError('EVENTS_TOO_MANY', { topic, perSecond }, { retryAfterSeconds: 1 });
    const bytes = ownedBytes(serialize(payload));
    if (bytes.byteLength > EVENT_PAYLOAD_MAX_BYTES) throw new BulkheadError('EVENT_TOO_LARGE', { topic, bytes: bytes.byteLength, maxBytes: EVENT_PAYLOAD_MAX_BYTES });
    if (durable) return this.#answers.ask((ref) => send({ kind: 'event-store', ref, topic, key: key ?? null, payload: bytes }, [bytes.buffer]));
    send({ kind: 'publish', topic, payload: bytes }, [bytes.buffer]);
    return DONE;
  }

  subscribe(pattern: string, handler: Handler | Handler<DurableEventInfo>, options?: DurableSubscribeOptions): () => void {
    checkPattern(pattern);
    if (typeof handler !== 'function') throw new TypeError(`the handler for "${pattern}" must be a function`);
    if (options?.durable === true) return this.#durable.add(pattern, handler as Handler<DurableEventInfo>, attemptsOf(options));
    return this.#listen(pattern, handler as Handler);
  }

  forget(pattern: string): Promise<void> {
    checkPattern(pattern);
    this.#durable.remove(pattern);
    return this.#answers.ask((ref) => this.#options.send({ kind: 'event-forget', ref, pattern }));
  }

  handle(frame: EventFrameToHost): void {
    switch (frame.kind) {
      case 'event': return this.#take(frame);
      case 'durable-event': return void this.#durable.handle(frame);
      case 'event-answer': return this.#answers.settle(frame.ref, frame.error);
    }
  }

  #listen(pattern: string, handler: Handler): () => void {
    const { send } = this.#options;
    const subscription = new Subscription(pattern, handler, this.#outcomes);
    const subscriptions = this.#subscriptions.get(pattern) ?? new Set();
    if (subscriptions.size === 0) {
      this.#subscriptions.set(pattern, subscriptions);
      send({ kind: 'subscribe', pattern, attempts: null });
    }
    subscriptions.add(subscription);
    return () => {
      subscription.end();
      if (!subscriptions.delete(subscription) || subscriptions.size > 0) return;
      this.#subscriptions.delete(pattern);
      send({ kind: 'unsubscribe', pattern, durable: false });
    };
  }

  #take(frame: EventFrame): void {
    const topic = segmentsOf(frame.topic);
    this.#report.taken += 1;
    this.#reportSoon();
    for (const subscriptions of [...this.#subscriptions.values()]) {
      for (const subscription of [...subscriptions]) if (subscription.hears(topic)) subscription.offer(frame);
    }
  }

  readonly #outcomes = {
    delivered: (): void => {
      this.#report.delivered += 1;
      this.#reportSoon();
    },
    dropped: (): void => {
      this.#report.dropped += 1;
      this.#reportSoon();
    },
    failed: ({ topic }: EventFrame, error: unknown): void => this.#options.log.error({ err: error, topic }, `a subscriber of "${topic}" failed`),
  };

  /** Once a turn, however many events it has had. */
  #reportSoon(): void {
    if (this.#reporting) return;
    this.#reporting = true;
    setImmediate(() => {
      this.#reporting = false;
      this.#options.send({ kind: 'events-taken', ...this.#report });
      this.#report = { taken: 0, delivered: 0, dropped: 0 };
    });
  }
}

function isTopic(topic: string): boolean {
  const problem = topicProblem(topic) ?? (isKernels(topic) ? 'only the kernel publishes under "kernel."' : null);
  if (problem === null) return true;
  throw new TypeError(`nobody can publish under the topic ${JSON.stringify(topic)}: ${problem}`);
}

function checkPattern(pattern: string): void {
  const problem = patternProblem(pattern);
  if (problem !== null) throw new TypeError(`nobody can subscribe to ${JSON.stringify(pattern)}: ${problem}`);
}

function checkKey(topic: string, key: unknown, durable: boolean): void {
  if (!durable) throw new TypeError(`an event of "${topic}" cannot have a key, which only orders durable ones; declare it with topics: { "${topic}": { durable: true } }`);
  if (typeof key !== 'string' || key === '' || key.length > EVENT_KEY_MAX_CHARACTERS || key.includes('\0')) throw new TypeError(`the key of an event must be text of 1 to ${EVENT_KEY_MAX_CHARACTERS} characters, none of them NUL`);
}

function attemptsOf({ attempts = EVENT_ATTEMPTS_MAX }: DurableSubscribeOptions): number {
  if (Number.isInteger(attempts) && attempts >= 1 && attempts <= EVENT_ATTEMPTS_ALLOWED_MAX) return attempts;
  throw new TypeError(`\`attempts\` must be a whole number from 1 to ${EVENT_ATTEMPTS_ALLOWED_MAX}`);
}
