// Events as one host sees them: its subscriptions, and what it publishes. Must not know the other plugins.
import { deserialize, serialize } from 'node:v8';
import type { Logger } from 'pino';
import { BulkheadError } from '../../protocol/errors.js';
import { ownedBytes } from '../../protocol/flow.js';
import type { EventFrame, HostToKernelFrame } from '../../protocol/frames.js';
import { EVENT_PAYLOAD_MAX_BYTES } from '../../protocol/limits.js';
import { Rate } from '../../protocol/rate.js';
import type { Events } from '../../protocol/events.js';

type Handler = (payload: never, publisher: string) => void | Promise<void>;

export class HostEvents implements Events {
  readonly #send: (frame: HostToKernelFrame, transfer?: readonly ArrayBuffer[]) => void;
  readonly #log: Logger;
  readonly #handlers = new Map<string, Set<Handler>>();
  readonly #perSecond: number;
  readonly #rate: Rate;

  /** `perSecond` events may be published. */
  constructor(send: (frame: HostToKernelFrame, transfer?: readonly ArrayBuffer[]) => void, perSecond: number, log: Logger) {
    this.#send = send;
    this.#perSecond = perSecond;
    this.#rate = new Rate(perSecond);
    this.#log = log;
  }

  publish(topic: string, payload: unknown): void {
    if (!this.#rate.admit()) throw new BulkheadError('EVENTS_TOO_MANY', { topic, perSecond: this.#perSecond }, { retryAfterSeconds: 1 });
    const bytes = ownedBytes(serialize(payload));
    if (bytes.byteLength > EVENT_PAYLOAD_MAX_BYTES) throw new BulkheadError('EVENT_TOO_LARGE', { topic, bytes: bytes.byteLength, maxBytes: EVENT_PAYLOAD_MAX_BYTES });
    this.#send({ kind: 'publish', topic, payload: bytes }, [bytes.buffer]);
  }

  subscribe(topic: string, handler: Handler): () => void {
    const handlers = this.#handlers.get(topic) ?? new Set();
    if (handlers.size === 0) {
      this.#handlers.set(topic, handlers);
      this.#send({ kind: 'subscribe', topic });
    }
    handlers.add(handler);
    return () => {
      if (!handlers.delete(handler) || handlers.size > 0) return;
      this.#handlers.delete(topic);
      this.#send({ kind: 'unsubscribe', topic });
    };
  }

  async handle(frame: EventFrame): Promise<void> {
    for (const handler of [...(this.#handlers.get(frame.topic) ?? [])]) {
      try {
        await handler(deserialize(frame.payload) as never, frame.publisher);
      } catch (error) {
        this.#log.error({ err: error, topic: frame.topic }, `a subscriber of "${frame.topic}" failed`);
      }
    }
  }
}
