// When one plugin is restarted: its setbacks that still count, and the one timer. Must not know what a restart does.
import { HISTORY_MAX_ENTRIES } from '../../protocol/limits.js';
import { judge, type Setback, type Verdict } from './restart-policy.js';

export class Restarts {
  readonly #random: () => number;
  /** Since the operator last intervened; times in milliseconds since 1970. */
  #setbacks: Setback[] = [];
  #timer: NodeJS.Timeout | null = null;

  /** `random` gives numbers from 0 up to but not including 1. */
  constructor(random: () => number) {
    this.#random = random;
  }

  /** Counts a setback and says what follows from it. */
  judge(setback: Setback): Verdict {
    this.#setbacks = [...this.#setbacks, setback].slice(-HISTORY_MAX_ENTRIES);
    return judge(this.#setbacks, setback.at, this.#random());
  }

  schedule(delayMs: number, restart: () => void): void {
    this.cancel();
    this.#timer = setTimeout(restart, delayMs);
  }

  cancel(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** The operator has intervened: what happened before does not count any more. */
  pardon(): void {
    this.cancel();
    this.#setbacks = [];
  }
}
