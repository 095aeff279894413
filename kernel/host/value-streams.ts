// Streams of values between plugins, with credits: the provider's values on their way out, and the consumer's way to read them. Must not know ports or calls.
import { SERVICE_STREAM_VALUES_MAX } from '../../protocol/service-limits.js';

export interface IncomingOptions {
  /** There is room for so many more values. */
  readonly credit: (values: number) => void;
  /** Nobody reads it any more, though it has not ended. */
  readonly close: () => void;
  /** Told when the reader begins to wait for a value, and when it has one. */
  readonly onWait: (waits: boolean) => void;
}

interface Reader {
  readonly resolve: (result: IteratorResult<unknown>) => void;
  readonly reject: (error: Error) => void;
}

/** What a consumer iterates over, once. */
export class IncomingStream implements AsyncIterableIterator<unknown> {
  readonly #options: IncomingOptions;
  readonly #values: unknown[] = [];
  readonly #readers: Reader[] = [];
  #ended: { readonly error: Error | null } | null = null;
  #read = 0;

  constructor(options: IncomingOptions) {
    this.#options = options;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<unknown>> {
    if (this.#values.length > 0) return Promise.resolve(this.#take());
    if (this.#ended !== null) {
      const { error } = this.#ended;
      this.#ended = { error: null };
      return error === null ? Promise.resolve({ value: undefined, done: true }) : Promise.reject(error);
    }
    this.#options.onWait(true);
    return new Promise((resolve, reject) => this.#readers.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<unknown>> {
    this.#values.length = 0;
    if (this.#ended === null) this.#options.close();
    this.#ended = { error: null };
    return Promise.resolve({ value: undefined, done: true });
  }

  push(value: unknown): void {
    // More than it was granted is a provider that got at its port.
    if (this.#ended !== null || this.#values.length >= 2 * SERVICE_STREAM_VALUES_MAX) return;
    this.#values.push(value);
    const reader = this.#readers.shift();
    if (this.#readers.length === 0) this.#options.onWait(false);
    reader?.resolve(this.#take());
  }

  end(error: Error | null): void {
    this.#ended ??= { error };
    const [first, ...others] = this.#readers.splice(0);
    if (error === null) first?.resolve({ value: undefined, done: true });
    else if (first !== undefined) {
      first.reject(error);
      this.#ended = { error: null };
    }
    for (const { resolve } of others) resolve({ value: undefined, done: true });
  }

  #take(): IteratorResult<unknown> {
    this.#read += 1;
    if (this.#read === SERVICE_STREAM_VALUES_MAX / 2) {
      this.#read = 0;
      if (this.#ended === null) this.#options.credit(SERVICE_STREAM_VALUES_MAX / 2);
    }
    return { value: this.#values.shift(), done: false };
  }
}

export function isStream(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as Partial<AsyncIterable<unknown>>)[Symbol.asyncIterator] === 'function';
}

/** A provider's values on their way to the consumer, no more than it has room for. */
export class OutgoingStream {
  readonly #iterator: AsyncIterator<unknown>;
  #credit = SERVICE_STREAM_VALUES_MAX;
  #onCredit: (() => void) | null = null;
  #closed = false;

  constructor(values: AsyncIterable<unknown>) {
    this.#iterator = values[Symbol.asyncIterator]();
  }

  /** Resolves when all values have been handed to `send` or the stream was closed. Rejects with what the iteration or `send` throws. */
  async pump(send: (value: unknown) => void): Promise<void> {
    try {
      while (!this.#closed) {
        const { value, done } = await this.#iterator.next();
        if (done === true) return;
        if (this.#closed) break;
        send(value);
        if ((this.#credit -= 1) === 0) await new Promise<void>((resolve) => (this.#onCredit = resolve));
      }
    } catch (error) {
      this.#closed = true;
      this.#return();
      throw error;
    }
  }

  grant(values: number): void {
    // What is no number is a consumer that got at its port.
    if (!(values > 0)) return;
    this.#credit = Math.min(this.#credit + values, SERVICE_STREAM_VALUES_MAX);
    this.#onCredit?.();
    this.#onCredit = null;
  }

  /** Nobody reads it any more: the generator's `finally` runs. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#return();
    this.#onCredit?.();
  }

  /** A plugin's own iterator may throw, or return anything. */
  #return(): void {
    void Promise.resolve().then(() => this.#iterator.return?.()).catch(() => {});
  }
}
