// Which requests of a dead generation are tried again, and which are never to be: the memory of one plugin over its generations. Must not know when it is back.
import type { BulkheadError } from '../../protocol/errors.js';
import { POISON_REFUSED_MS, REFUSED_REQUESTS_MAX, REPLAY_BUDGET_PERCENT, REPLAYS_MIN, REPLAY_WINDOW_MS, REQUEST_KILLS_MAX } from '../../protocol/limits.js';
import type { OpenRequest } from './open-request.js';

/** A request whose generation has died before it was answered. */
export interface Orphan {
  readonly exchange: OpenRequest;
  /** Whether the host had begun it; what it has done is not known then. */
  readonly begun: boolean;
  /** Whether it was the last one that the host had begun, and so may be the cause. */
  readonly suspect: boolean;
  /** Whether it was the suspect and no other was begun, open tunnels aside: then hardly by chance. */
  readonly alone: boolean;
  /** Of the death, as one sentence. */
  readonly cause: string;
  /** What its client hears when it is not tried again. */
  readonly error: BulkheadError;
}

/** `poison`: it is known to end generations. */
export type Verdict = 'replay' | 'give up' | 'poison';

interface Offender {
  readonly kills: number;
  /** Of the last death. */
  readonly cause: string;
  /** When that was, in milliseconds of the caller's clock; forgotten POISON_REFUSED_MS later. */
  readonly at: number;
}

export class ReplayMemory {
  /** Who has ended generations, by method and URL, in order of the last death; refused from REQUEST_KILLS_MAX on. */
  readonly #offenders = new Map<string, Offender>();
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
  refusal(exchange: OpenRequest, now: number): string | null {
    if (this.#offenders.size === 0) return null;
    const offender = this.#recall(fingerprint(exchange), now);
    return offender !== undefined && offender.kills >= REQUEST_KILLS_MAX ? offender.cause : null;
  }

  /** Judges a request after the death of its generation. */
  judge({ exchange, begun, suspect, alone, cause }: Orphan, now: number): Verdict {
    // The same request, and not only the same URL: of two deaths by chance a much used URL would be near both.
    if (suspect && (exchange.kills += 1) >= REQUEST_KILLS_MAX) {
      this.#blame(exchange, exchange.kills, cause, now);
      return 'poison';
    }
    if (begun) exchange.interruptions += 1;
    // Of several with one URL the first may just have been refused: the others would end the next generations.
    if (this.#isToBeReplayed(exchange, begun, now)) return this.refusal(exchange, now) === null ? 'replay' : 'poison';
    if (!alone) return 'give up';
    // It is its client who tries again. Then only the URL is the same, which is enough where no other request can be the cause.
    const kills = (this.#recall(fingerprint(exchange), now)?.kills ?? 0) + 1;
    this.#blame(exchange, kills, cause, now);
    return kills >= REQUEST_KILLS_MAX ? 'poison' : 'give up';
  }

  /** The operator has intervened: nothing is refused any more, and the budget is whole. */
  pardon(): void {
    this.#offenders.clear();
    this.#present = { requests: 0, replays: 0 };
    this.#last = { requests: 0, replays: 0 };
  }

  #isToBeReplayed(exchange: OpenRequest, begun: boolean, now: number): boolean {
    if (!exchange.repeatable) return false;
    if (!begun) return true;
    return exchange.idempotent && exchange.interruptions === 1 && this.#afford(now);
  }

  #recall(key: string, now: number): Offender | undefined {
    const offender = this.#offenders.get(key);
    return offender !== undefined && now - offender.at < POISON_REFUSED_MS ? offender : undefined;
  }

  #blame(exchange: OpenRequest, kills: number, cause: string, now: number): void {
    const key = fingerprint(exchange);
    this.#offenders.delete(key);
    this.#offenders.set(key, { kills, cause, at: now });
    for (const [oldest, { at }] of this.#offenders) {
      if (this.#offenders.size <= REFUSED_REQUESTS_MAX && now - at < POISON_REFUSED_MS) break;
      this.#offenders.delete(oldest);
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

function fingerprint(exchange: OpenRequest): string {
  return `${exchange.method} ${exchange.originalUrl}`;
}
