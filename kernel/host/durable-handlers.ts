// The durable subscriptions of one host: one handler for each pattern, and the word to the kernel on how it ended. Must not know what is stored, or what follows a failure.
import { deserialize } from 'node:v8';
import type { Logger } from 'pino';
import { toPlainError } from '../../protocol/errors.js';
import type { DurableEventFrame, EventFrameToKernel } from '../../protocol/event-frames.js';
import type { DurableEventInfo } from '../../protocol/events.js';
import { CAUSE_MAX_CHARACTERS } from '../../protocol/limits.js';
import { isKernels } from '../../protocol/topics.js';
import type { Handler } from './subscription.js';

export class DurableHandlers {
  readonly #send: (frame: EventFrameToKernel) => void;
  readonly #log: Logger;
  readonly #handlers = new Map<string, Handler<DurableEventInfo>>();

  constructor(send: (frame: EventFrameToKernel) => void, log: Logger) {
    this.#send = send;
    this.#log = log;
  }

  /** Returns the way to end it. Throws when there is one for the pattern: an event comes to one of them, and nobody could say to which. */
  add(pattern: string, handler: Handler<DurableEventInfo>, attempts: number): () => void {
    if (isKernels(pattern)) throw new TypeError(`nobody can subscribe durably to "${pattern}": what the kernel publishes is not stored`);
    if (this.#handlers.has(pattern)) throw new TypeError(`this plugin has subscribed durably to "${pattern}" already`);
    this.#handlers.set(pattern, handler);
    this.#send({ kind: 'subscribe', pattern, attempts });
    return () => {
      if (this.#handlers.get(pattern) === handler) this.remove(pattern);
    };
  }

  remove(pattern: string): void {
    if (this.#handlers.delete(pattern)) this.#send({ kind: 'unsubscribe', pattern, durable: true });
  }

  /** The kernel sends no more than may be handled at one time, and knows for how long. */
  async handle({ ref, pattern, topic, publisher, at, id, key, attempt, payload }: DurableEventFrame): Promise<void> {
    const handler = this.#handlers.get(pattern);
    if (handler === undefined) return this.#send({ kind: 'event-handled', ref, refused: true, error: null });
    try {
      await handler(deserialize(payload) as never, { topic, publisher, at, id, key, attempt });
      this.#send({ kind: 'event-handled', ref, refused: false, error: null });
    } catch (error) {
      this.#log.error({ err: error, topic, event: id, key, attempt }, `a durable subscriber of "${topic}" failed`);
      const { name, message } = toPlainError(error);
      this.#send({ kind: 'event-handled', ref, refused: false, error: `${name}: ${message}`.slice(0, CAUSE_MAX_CHARACTERS) });
    }
  }
}
