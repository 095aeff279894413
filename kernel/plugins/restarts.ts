// When one plugin is restarted: its setbacks that still count, and the one timer. Must not know what a restart does.
import { HISTORY_MAX_ENTRIES } from '../../protocol/limits.js';
import { judge, type Setback, type Verdict } from './restart-policy.js';

export class Restarts {
  readonly #random: () => number;
  /** Since the operator last intervened; times in milliseconds since 1970. */
  #setbacks: Setback[] = [];
  /** Ends the wait for the next restart. */
  #cancel: (() => void) | null = null;

  /** `random` gives numbers from 0 up to but not including 1. */
  constructor(random: () => number) {
    this.#random = random;
  }

  /** Whether the last setback was not the plugin's own doing. */
  get excused(): boolean {
    return this.#setbacks.at(-1)?.excused === true;
  }

  /** Counts a setback and says what follows from it. */
  judge(setback: Setback): Verdict {
    this.#setbacks = [...this.#setbacks, setback].slice(-HISTORY_MAX_ENTRIES);
    return judge(this.#setbacks, setback.at, this.#random());
  }

  /** `sooner` calls back when there is no more to wait for; it returns the way to end that. */
  schedule(delayMs: number, restart: () => void, sooner: (listener: () => void) => () => void = () => () => {}): void {
    this.cancel();
    const now = (): void => {
      this.cancel();
      restart();
    };
    const forget = sooner(now);
    if (delayMs > 0) {
      const timer = setTimeout(now, delayMs);
      this.#cancel = () => [clearTimeout(timer), forget()];
    } else {
      // A timer of 0 takes a millisecond or more.
      const turn = setImmediate(now);
      this.#cancel = () => [clearImmediate(turn), forget()];
    }
  }

  cancel(): void {
    this.#cancel?.();
    this.#cancel = null;
  }

  /** The operator has intervened: what happened before does not count any more. */
  pardon(): void {
    this.cancel();
    this.#setbacks = [];
  }
}
