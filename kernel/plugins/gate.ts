// The gate of one plugin over all its generations: who goes in, who waits for it to come back, who is sent away. Must not know why it opens and closes.
import { BulkheadError } from '../../protocol/errors.js';
import { POISON_REFUSED_MS, type PluginLimits } from '../../protocol/limits.js';
import type { Dispatcher, RequestCounts } from '../dispatch/dispatcher.js';
import type { OpenRequest } from '../dispatch/open-request.js';
import { ReplayMemory, type Orphan } from '../dispatch/replay.js';
import { Replicas } from '../dispatch/replicas.js';
import { WaitingRoom } from '../dispatch/waiting-room.js';

type Position =
  | { readonly status: 'open'; readonly replicas: Replicas }
  /** The plugin will be back in a moment. */
  | { readonly status: 'waiting' }
  | { readonly status: 'closed' };

/** What the gate has to know of its plugin. */
export interface Gated {
  readonly name: string;
  readonly requests: RequestCounts;
  readonly limits: PluginLimits;
  /** Workers that each have these limits. */
  readonly threads: number;
}

export class Gate {
  readonly #plugin: Gated;
  readonly #refusal: () => BulkheadError;
  readonly #onExpected: (expected: boolean) => void;
  readonly #room = new WaitingRoom();
  readonly #memory = new ReplayMemory();
  #position: Position = { status: 'closed' };

  /** `refusal` says why the plugin takes no request now. `onExpected` is told whether it will be back in a moment. */
  constructor(plugin: Gated, refusal: () => BulkheadError, onExpected: (expected: boolean) => void = () => {}) {
    this.#plugin = plugin;
    this.#refusal = refusal;
    this.#onExpected = onExpected;
  }

  /** Requests that wait for the plugin to come back. */
  get waiting(): number {
    return this.#room.size;
  }

  /** Takes a request to the plugin, lets it wait, or answers why not. */
  admit(exchange: OpenRequest): void {
    const { name, requests, limits, threads } = this.#plugin;
    const now = performance.now();
    const killed = this.#memory.refusal(exchange, now);
    if (killed !== null) return exchange.fail(this.#refused(exchange, killed));
    if (this.#position.status === 'closed') return exchange.fail(this.#refusal());
    const { timeoutMs, replayWaitMs } = limits;
    const [concurrency, queue] = [threads * limits.concurrency, threads * limits.queue];
    if (this.#position.status === 'waiting' ? this.#room.size >= queue : this.#position.replicas.full) {
      requests.shed += 1;
      return exchange.fail(new BulkheadError('PLUGIN_OVERLOADED', { name, concurrency, queue }, { retryAfterSeconds: 1 }));
    }
    requests.admitted += 1;
    exchange.deadline = now + timeoutMs;
    this.#memory.count(now);
    if (this.#position.status === 'open') this.#position.replicas.dispatch(exchange);
    else this.#room.enter({ exchange, suspect: false, error: this.#refusal }, replayWaitMs);
  }

  /** A generation takes requests, perhaps beside others. */
  open(dispatcher: Dispatcher): void {
    const replicas = this.#position.status === 'open' ? this.#position.replicas : new Replicas();
    replicas.add(dispatcher);
    this.#position = { status: 'open', replicas };
    this.#onExpected(false);
    this.#room.release(replicas);
  }

  /** The plugin is away and will be back in a moment. */
  wait(): void {
    this.#position = { status: 'waiting' };
    this.#onExpected(true);
  }

  /** The last generation has died, and what follows is not known yet. */
  pause(): void {
    if (this.#position.status === 'open') this.wait();
  }

  close(): void {
    this.#position = { status: 'closed' };
    this.#onExpected(false);
    this.#room.dismiss();
  }

  /** Takes back what a dead generation has not answered: each is tried again when that is safe, by another one or the next, or answered. */
  takeBack(orphans: readonly Orphan[]): void {
    const { requests, limits } = this.#plugin;
    let entered = false;
    for (const orphan of orphans) {
      const { exchange, suspect, cause, error } = orphan;
      const verdict = this.#memory.judge(orphan, performance.now());
      if (verdict === 'replay' && this.#position.status !== 'closed') {
        requests.replayed += 1;
        this.#room.enter({ exchange, suspect, error: () => error }, limits.replayWaitMs);
        entered = true;
        continue;
      }
      requests.lost += 1;
      exchange.fail(verdict === 'poison' ? this.#refused(exchange, cause) : error);
    }
    if (this.#position.status !== 'open') return;
    this.#position.replicas.prune();
    if (entered) this.#room.release(this.#position.replicas);
  }

  /** The operator has intervened. */
  pardon(): void {
    this.#memory.pardon();
  }

  #refused({ method, originalUrl }: OpenRequest, reason: string): BulkheadError {
    return new BulkheadError('REQUEST_REFUSED', { name: this.#plugin.name, method, url: originalUrl, reason, refusedMs: POISON_REFUSED_MS });
  }
}
