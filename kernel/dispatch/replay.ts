// Which requests of a dead generation are tried again, and which are never to be: the memory of one plugin over its generations. Must not know when it is back.
import type { BulkheadError } from '../../protocol/errors.js';
import { POISON_REFUSED_MS, REFUSED_REQUESTS_MAX, REPLAY_BUDGET_PERCENT, REPLAYS_MIN, REPLAY_WINDOW_MS, REQUEST_KILLS_MAX } from '../../protocol/limits.js';
import type { Exchange } from './exchange.js';

/** A request whose generation has died before it was answered. */
export interface Orphan {
  readonly exchange: Exchange;
  /** Whether the host had begun it; what it has done is not known then. */
  readonly begun: boolean;
  /** Whether it was the last one that the host had begun, and so may be the cause. */
  readonly suspect: boolean;
  /** Of the death, as one sentence. */
  readonly cause: string;
  /** What its client hears when it is not tried again. */
  readonly error: BulkheadError;
}

/** `poison`: it is known to end generations. */
export type Verdict = 'replay' | 'give up' | 'poison';

/** RFC 9110, 9.2.2: to do it twice is to do it once. */
const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'TRACE']);

export class ReplayMemory {
  /** By method and URL, in order of time: what it ended, and since when it is refused, in milliseconds of the caller's clock. */
  readonly #refused = new Map<string, { readonly cause: string; readonly at: number }>();
  /** Requests and replays of the present and of the last window. */
  #present = { requests: 0, replays: 0 };
  #last = { requests: 0, replays: 0 };
  #windowBegan = 0;

  /** Counts a request on its first way to the plugin. `now` is in milliseconds of a monotonic clock, here and below. */
  count(now: number): void {
    this.#turn(now);
    this.#present.requests += 1;
  }

  /** Why a request is refused, or null when it is not. */
  refusal(exchange: Exchange, now: number): string | null {
    if (this.#refused.size === 0) return null;
    const known = this.#refused.get(fingerprint(exchange));
    return known !== undefined && now - known.at < POISON_REFUSED_MS ? known.cause : null;
  }

  /** Judges a request after the death of its generation. */
  judge({ exchange, begun, suspect, cause }: Orphan, now: number): Verdict {
    // The same request, and not only the same URL: of two deaths by chance a much used URL would be near both.
    if (suspect && (exchange.kills += 1) >= REQUEST_KILLS_MAX) {
      this.#refuse(fingerprint(exchange), cause, now);
      return 'poison';
    }
    if (begun) exchange.interruptions += 1;
    if (!exchange.repeatable) return 'give up';
    if (!begun) return 'replay';
    if (!IDEMPOTENT.has(exchange.method) || exchange.interruptions > 1) return 'give up';
    return this.#afford(now) ? 'replay' : 'give up';
  }

  /** The operator has intervened: nothing is refused any more. */
  pardon(): void {
    this.#refused.clear();
  }

  #refuse(key: string, cause: string, now: number): void {
    this.#refused.delete(key);
    this.#refused.set(key, { cause, at: now });
    for (const [oldest, { at }] of this.#refused) {
      if (this.#refused.size <= REFUSED_REQUESTS_MAX && now - at < POISON_REFUSED_MS) break;
      this.#refused.delete(oldest);
    }
  }

  #afford(now: number): boolean {
    this.#turn(now);
    const budget = Math.max(REPLAYS_MIN, ((this.#present.requests + this.#last.requests) * REPLAY_BUDGET_PERCENT) / 100);
    if (this.#present.replays + this.#last.replays >= budget) return false;
    this.#present.replays += 1;
    return true;
  }

  #turn(now: number): void {
    const passed = now - this.#windowBegan;
    if (passed < REPLAY_WINDOW_MS) return;
    this.#last = passed < 2 * REPLAY_WINDOW_MS ? this.#present : { requests: 0, replays: 0 };
    this.#present = { requests: 0, replays: 0 };
    this.#windowBegan = now;
  }
}

function fingerprint(exchange: Exchange): string {
  return `${exchange.method} ${exchange.originalUrl}`;
}
