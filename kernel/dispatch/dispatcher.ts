// The requests of one generation: who waits for a place, who is in flight, and who missed the deadline. Must not know mounts or states.
import { BulkheadError } from '../../protocol/errors.js';
import type { CancelFrame, ChunkFrame, CreditFrame, EndFrame, HintsFrame, ResponseFrame, UpgradedFrame } from '../../protocol/frames.js';
import { InFlightTable } from '../../protocol/in-flight.js';
import type { Death } from '../../protocol/lifecycle.js';
import { DEADLINE_SWEEP_INTERVAL_MS, type PluginLimits } from '../../protocol/limits.js';
import { giveBack } from '../../protocol/slots.js';
import type { OpenRequest, SendFrame } from './open-request.js';
import type { Orphan } from './replay.js';

/** Requests of a plugin since it was loaded, over all its generations. */
export interface RequestCounts {
  admitted: number;
  answered: number;
  shed: number;
  timedOut: number;
  /** Sent to a further generation after the death of one. */
  replayed: number;
  /** Answered by the kernel because their generation died. */
  lost: number;
  /** Frames for exchanges that are over: late answers. */
  dropped: number;
}

export const noRequests = (): RequestCounts => ({ admitted: 0, answered: 0, shed: 0, timedOut: 0, replayed: 0, lost: 0, dropped: 0 });

export class Dispatcher {
  readonly #plugin: string;
  readonly #limits: PluginLimits;
  readonly #send: SendFrame;
  readonly #counts: RequestCounts;
  readonly #inFlight = new InFlightTable<OpenRequest>();
  /** Of those in flight, the ones whose answer has begun. */
  readonly #streaming = new Set<OpenRequest>();
  /** In order of arrival; a client who leaves is taken out at once. */
  readonly #queue = new Set<OpenRequest>();
  #lastId = 0;
  #open = true;
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

  /** Requests that the worker has still to answer: an open stream or tunnel costs a place, but next to no work. */
  get demand(): number {
    return this.#inFlight.size - this.#streaming.size + this.#queue.size;
  }

  /** Whether every place, also in the queue, is taken. */
  get full(): boolean {
    return this.#inFlight.size >= this.#limits.concurrency && this.#queue.size >= this.#limits.queue;
  }

  /** False once the generation has died. */
  get open(): boolean {
    return this.#open;
  }

  /** Begins the exchange when there is a place, else lets it wait for one. */
  dispatch(exchange: OpenRequest): void {
    exchange.onOver = this.#release;
    if (this.#inFlight.size < this.#limits.concurrency) this.#begin(exchange);
    else this.#queue.add(exchange);
    this.#sweep ??= setInterval(() => this.#sweepDeadlines(), DEADLINE_SWEEP_INTERVAL_MS);
  }

  handle(frame: UpgradedFrame | HintsFrame | ResponseFrame | ChunkFrame | EndFrame | CreditFrame | CancelFrame): void {
    const exchange = this.#inFlight.get(frame.id);
    if (exchange === undefined) {
      this.#counts.dropped += 1;
      if (frame.kind === 'chunk') giveBack(frame.data);
      return;
    }
    switch (frame.kind) {
      case 'response':
        this.#counts.answered += 1;
        if (frame.streams) this.#streaming.add(exchange);
        return exchange.respond(frame);
      case 'hints': return exchange.hint(frame);
      case 'upgraded':
        exchange.upgraded(frame.accepted);
        if (!frame.accepted) this.#counts.admitted -= 1; // it comes again, as an ordinary request
        return;
      case 'chunk':
        return this.#receive(exchange, frame);
      case 'end': return exchange.complete(frame);
      case 'credit': return exchange.credit(frame.bytes);
      case 'cancel': return exchange.giveUp(frame.reason);
    }
  }

  #receive(exchange: OpenRequest, frame: ChunkFrame): void {
    const { answering } = exchange;
    const { data } = frame;
    if (!(data instanceof Uint8Array)) throw new TypeError('it has no bytes');
    // Their number is looked at more than once.
    if (data.buffer instanceof SharedArrayBuffer && data.buffer.growable) throw new TypeError('its bytes could become more');
    if (!exchange.receive(frame)) giveBack(data);
    if (answering || !exchange.answering) return;
    this.#counts.answered += 1; // the answer of a tunnel is among its bytes
    this.#streaming.add(exchange);
  }

  /** The request that the host had begun last, when it has not been answered. */
  begun(lastBegun: number): OpenRequest | null {
    const exchange = this.#inFlight.get(lastBegun);
    return exchange === undefined || exchange.answering ? null : exchange;
  }

  /** Resolves when nothing is in flight, and so nothing queued. */
  drained(): Promise<void> {
    return this.#inFlight.size === 0 ? Promise.resolve() : new Promise((resolve) => (this.#onIdle = resolve));
  }

  /** The generation has died: hands over all that it has not answered, oldest first. `lastBegun` is the last request that its host began. */
  abandon(death: Death, lastBegun: number, silentMs: number): Orphan[] {
    const error = (begun: boolean): BulkheadError => {
      if (!begun) return new BulkheadError('PLUGIN_NOT_RUNNING', { name: this.#plugin, status: death.kind === 'stopped' ? 'stopped' : 'restarting' }, { retryAfterSeconds: 1 });
      if (death.kind === 'unresponsive') return new BulkheadError('PLUGIN_UNRESPONSIVE', { name: this.#plugin, silentMs });
      return new BulkheadError('PLUGIN_CRASHED', { name: this.#plugin, reason: death.cause });
    };
    const isBegun = ({ id }: OpenRequest): boolean => id !== 0 && id <= lastBegun;
    const unanswered = [...this.#inFlight.values(), ...this.#queue];
    // Who is still answering may be the cause as well. So may be an open tunnel; but it is there at every death, and would clear everybody. A stop is nobody's doing.
    const single = death.kind !== 'stopped' && unanswered.filter((exchange) => isBegun(exchange) && !exchange.lasting).length === 1;
    const orphans = unanswered.map((exchange): Orphan => {
      const begun = isBegun(exchange);
      const suspect = begun && exchange.id === lastBegun && !exchange.answering;
      return { exchange, begun, suspect, alone: suspect && single, cause: death.cause, error: error(begun) };
    });
    this.#open = false;
    this.#queue.clear();
    this.#inFlight.clear();
    this.#streaming.clear();
    for (const { exchange } of orphans) {
      exchange.onOver = null;
      exchange.suspend();
    }
    this.#endSweep();
    this.#onIdle?.();
    return orphans;
  }

  /** The exchange is over; its place goes to the next in the queue. */
  readonly #release = (exchange: OpenRequest): void => {
    if (!this.#queue.delete(exchange)) {
      this.#inFlight.delete(exchange.id);
      this.#streaming.delete(exchange);
      const [next] = this.#queue;
      if (next !== undefined) {
        this.#queue.delete(next);
        this.#begin(next);
      }
    }
    if (this.#inFlight.size === 0) this.#onIdle?.();
  };

  #endSweep(): void {
    if (this.#sweep !== null) clearInterval(this.#sweep);
    this.#sweep = null;
  }

  #begin(exchange: OpenRequest): void {
    const id = ++this.#lastId;
    this.#inFlight.add(id, exchange);
    exchange.begin(id, this.#send);
  }

  #sweepDeadlines(): void {
    // Not sooner: a timer for each of many requests that come one by one would cost more than they do.
    if (this.#inFlight.size === 0) return this.#endSweep();
    const now = performance.now();
    // The queue first: the end of one in flight would begin the next, however late that is.
    const late = [...this.#queue, ...this.#inFlight.values()].filter(({ deadline, answering }) => deadline <= now && !answering);
    this.#counts.timedOut += late.length;
    for (const exchange of late) exchange.fail(new BulkheadError('PLUGIN_TIMEOUT', { name: this.#plugin, timeoutMs: this.#limits.timeoutMs }));
  }
}
