// The requests of one generation: who is admitted, who waits, who is in flight, and what becomes of them at their deadline or at its death. Must not know mounts or states.
import { BulkheadError } from '../../protocol/errors.js';
import type { ChunkFrame, CreditFrame, CancelFrame, EndFrame, ResponseFrame } from '../../protocol/frames.js';
import { InFlightTable } from '../../protocol/in-flight.js';
import type { Death } from '../../protocol/lifecycle.js';
import { DEADLINE_SWEEP_INTERVAL_MS, type PluginLimits } from '../../protocol/limits.js';
import type { Exchange, SendFrame } from './exchange.js';

interface InFlight {
  readonly id: number;
  readonly exchange: Exchange;
  /** In milliseconds of `performance.now()`. */
  readonly deadline: number;
}

/** Requests of a plugin since it was loaded, over all its generations. */
export interface RequestCounts {
  admitted: number;
  answered: number;
  shed: number;
  timedOut: number;
  /** Settled by the kernel because their generation died. */
  lost: number;
  /** Frames for exchanges that are over: late answers. */
  dropped: number;
}

export const noRequests = (): RequestCounts => ({ admitted: 0, answered: 0, shed: 0, timedOut: 0, lost: 0, dropped: 0 });

export class Dispatcher {
  readonly #plugin: string;
  readonly #limits: PluginLimits;
  readonly #send: SendFrame;
  readonly #counts: RequestCounts;
  readonly #inFlight = new InFlightTable<InFlight>();
  /** Deadlines by exchange, in order of admission; a client who leaves is taken out at once. */
  readonly #queue = new Map<Exchange, number>();
  #lastId = 0;
  #sweep: NodeJS.Timeout | null = null;
  #onIdle: (() => void) | null = null;

  constructor(plugin: string, limits: PluginLimits, send: SendFrame, counts: RequestCounts) {
    this.#plugin = plugin;
    this.#limits = limits;
    this.#send = send;
    this.#counts = counts;
  }

  get inFlight(): number {
    return this.#inFlight.size;
  }

  get queued(): number {
    return this.#queue.size;
  }

  /** Takes the exchange, or fails it with PLUGIN_OVERLOADED. */
  dispatch(exchange: Exchange): void {
    if (this.#inFlight.size >= this.#limits.concurrency && this.#queue.size >= this.#limits.queue) {
      this.#counts.shed += 1;
      const { concurrency, queue } = this.#limits;
      exchange.fail(new BulkheadError('PLUGIN_OVERLOADED', { name: this.#plugin, concurrency, queue }, { retryAfterSeconds: 1 }));
      return;
    }
    this.#counts.admitted += 1;
    exchange.onOver = this.#release;
    const deadline = performance.now() + this.#limits.timeoutMs;
    if (this.#inFlight.size < this.#limits.concurrency) this.#begin(exchange, deadline);
    else this.#queue.set(exchange, deadline);
    this.#sweep ??= setInterval(() => this.#sweepDeadlines(), DEADLINE_SWEEP_INTERVAL_MS);
  }

  handle(frame: ResponseFrame | ChunkFrame | EndFrame | CreditFrame | CancelFrame): void {
    const exchange = this.#inFlight.get(frame.id)?.exchange;
    if (exchange === undefined) {
      this.#counts.dropped += 1;
      return;
    }
    switch (frame.kind) {
      case 'response':
        this.#counts.answered += 1;
        return exchange.respond(frame);
      case 'chunk': return exchange.receive(frame);
      case 'end': return exchange.complete(frame);
      case 'credit': return exchange.credit(frame.bytes);
      case 'cancel': return exchange.fail(new BulkheadError('PLUGIN_BAD_ANSWER', { name: this.#plugin, reason: frame.reason }));
    }
  }

  /** The request that the host had begun last, when it has not been answered. */
  requestBegun(lastBegun: number): string | null {
    const entry = this.#inFlight.get(lastBegun);
    return entry === undefined || entry.exchange.answering ? null : `${entry.exchange.method} ${entry.exchange.originalUrl}`;
  }

  /** Resolves when nothing is in flight, and so nothing queued. */
  drained(): Promise<void> {
    return this.#inFlight.size === 0 ? Promise.resolve() : new Promise((resolve) => (this.#onIdle = resolve));
  }

  /** The generation has died: everything it had is answered now. `lastBegun` is the last request that its host began. */
  settle(death: Death, lastBegun: number, silentMs: number): void {
    const error = (begun: boolean): BulkheadError => {
      if (!begun || death.kind === 'stopped') return new BulkheadError('PLUGIN_NOT_RUNNING', { name: this.#plugin, status: death.kind === 'stopped' ? 'stopped' : 'restarting' }, { retryAfterSeconds: 1 });
      if (death.kind === 'unresponsive') return new BulkheadError('PLUGIN_UNRESPONSIVE', { name: this.#plugin, silentMs });
      return new BulkheadError('PLUGIN_CRASHED', { name: this.#plugin, reason: death.cause });
    };
    // The queue first: an end of an exchange in flight would begin the next one.
    const lost = [...this.#queue.keys(), ...[...this.#inFlight.values()].map((entry) => entry.exchange)];
    this.#queue.clear();
    this.#counts.lost += lost.length;
    for (const exchange of lost) exchange.fail(error(exchange.id !== 0 && exchange.id <= lastBegun));
  }

  /** The exchange is over; its place goes to the next in the queue. */
  readonly #release = (exchange: Exchange): void => {
    if (!this.#queue.delete(exchange)) {
      this.#inFlight.delete(exchange.id);
      const next = this.#queue.entries().next();
      if (next.done !== true) {
        this.#queue.delete(next.value[0]);
        this.#begin(next.value[0], next.value[1]);
      }
    }
    if (this.#inFlight.size > 0) return;
    if (this.#sweep !== null) clearInterval(this.#sweep);
    this.#sweep = null;
    this.#onIdle?.();
  };

  #begin(exchange: Exchange, deadline: number): void {
    const id = ++this.#lastId;
    this.#inFlight.add(id, { id, exchange, deadline });
    exchange.begin(id, this.#send);
  }

  #sweepDeadlines(): void {
    const now = performance.now();
    const late: Exchange[] = [];
    // Both tables are in the order of their deadlines, because all of one plugin's requests have the same time.
    // The queue first: the end of one in flight would begin the next, however late that is.
    for (const [exchange, deadline] of this.#queue) {
      if (deadline > now) break;
      late.push(exchange);
    }
    for (const entry of this.#inFlight.values()) {
      if (entry.deadline > now) break;
      if (!entry.exchange.answering) late.push(entry.exchange);
    }
    this.#counts.timedOut += late.length;
    for (const exchange of late) exchange.fail(new BulkheadError('PLUGIN_TIMEOUT', { name: this.#plugin, timeoutMs: this.#limits.timeoutMs }));
  }
}
