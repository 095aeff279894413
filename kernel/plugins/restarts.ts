// When one plugin is restarted: its deaths that still count, and the one timer. Must not know what a restart does.
import { HISTORY_MAX_ENTRIES } from '../../protocol/limits.js';
import { judge, type Verdict } from './restart-policy.js';

export class Restarts {
  readonly #random: () => number;
  /** Since the operator last intervened, in milliseconds since 1970. */
  #deaths: number[] = [];
  #timer: NodeJS.Timeout | null = null;

  /** `random` gives numbers from 0 up to but not including 1. */
  constructor(random: () => number) {
    this.#random = random;
  }

  /** Counts a death and says what follows from it. */
  judge(at: number): Verdict {
    this.#deaths = [...this.#deaths, at].slice(-HISTORY_MAX_ENTRIES);
    return judge(this.#deaths, at, this.#random());
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
    this.#deaths = [];
  }
}
