// Requests that wait for their plugin to come back after a death. Must not know why it is away.
import type { BulkheadError } from '../../protocol/errors.js';
import { DEADLINE_SWEEP_INTERVAL_MS, SUSPECT_HELD_BACK_MS } from '../../protocol/limits.js';
import type { OpenRequest } from './open-request.js';
import type { Replicas } from './replicas.js';

export interface Guest {
  readonly exchange: OpenRequest;
  /** May be what ended the last generation. */
  readonly suspect: boolean;
  /** What its client hears when the plugin does not come back in time. */
  readonly error: () => BulkheadError;
}

interface Waiting extends Guest {
  readonly waitMs: number;
  /** In milliseconds of `performance.now()`. */
  until: number;
  /** Those for whom it is held back already. */
  heldFor: Replicas | null;
}

export class WaitingRoom {
  readonly #waiting = new Map<OpenRequest, Waiting>();
  #sweep: NodeJS.Timeout | null = null;

  get size(): number {
    return this.#waiting.size;
  }

  /** Lets a request wait for at most `waitMs`, and not beyond its deadline. */
  enter(guest: Guest, waitMs: number): void {
    const { exchange } = guest;
    exchange.onOver = this.#leave;
    this.#waiting.set(exchange, { ...guest, waitMs, until: Math.min(performance.now() + waitMs, exchange.deadline), heldFor: null });
    this.#sweep ??= setInterval(() => this.#dismissLate(), DEADLINE_SWEEP_INTERVAL_MS);
  }

  /** The plugin is back. A suspect follows when those who died with it are done, or after SUSPECT_HELD_BACK_MS: it must not take them along again. */
  release(replicas: Replicas): void {
    const latest = performance.now() + SUSPECT_HELD_BACK_MS;
    const suspects: OpenRequest[] = [];
    const others: OpenRequest[] = [];
    for (const guest of this.#waiting.values()) {
      if (guest.heldFor === replicas) continue;
      (guest.suspect ? suspects : others).push(guest.exchange);
      // Its wait for the plugin has ended in time; another one would begin if that died once more.
      if (guest.suspect) Object.assign(guest, { until: Math.min(latest + guest.waitMs, guest.exchange.deadline), heldFor: replicas });
    }
    for (const exchange of others) {
      this.#waiting.delete(exchange);
      replicas.dispatch(exchange);
    }
    this.#rest();
    if (suspects.length > 0) this.#releaseLater(replicas, suspects, others, latest);
  }

  /** The plugin does not come back soon. */
  dismiss(): void {
    for (const { exchange, error } of [...this.#waiting.values()]) exchange.fail(error());
  }

  #releaseLater(replicas: Replicas, suspects: readonly OpenRequest[], others: readonly OpenRequest[], latest: number): void {
    if (performance.now() < latest && others.some(({ over, answering }) => !over && !answering)) {
      setImmediate(() => setTimeout(() => this.#releaseLater(replicas, suspects, others, latest), 1));
      return;
    }
    for (const exchange of suspects) {
      // It may have left, or the last generation may have died meanwhile and with it the others: then it waits on.
      if (this.#waiting.has(exchange) && replicas.open) {
        this.#waiting.delete(exchange);
        replicas.dispatch(exchange);
      }
    }
    this.#rest();
  }

  readonly #leave = (exchange: OpenRequest): void => {
    this.#waiting.delete(exchange);
    this.#rest();
  };

  #rest(): void {
    if (this.#waiting.size > 0 || this.#sweep === null) return;
    clearInterval(this.#sweep);
    this.#sweep = null;
  }

  #dismissLate(): void {
    const now = performance.now();
    for (const { exchange, error, until } of [...this.#waiting.values()]) if (until <= now) exchange.fail(error());
  }
}
