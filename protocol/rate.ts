// Counts what happens within a second, or another time, against a maximum. Must not know what it is.

export class Rate {
  readonly #max: number;
  readonly #onExcess: (count: number) => void;
  readonly #windowMs: number;
  #since = 0;
  #count = 0;

  /** `onExcess` is called after a window of `windowMs` milliseconds with too many, when the next one comes, with how many were too many. */
  constructor(max: number, onExcess: (count: number) => void = () => {}, windowMs = 1_000) {
    this.#max = max;
    this.#onExcess = onExcess;
    this.#windowMs = windowMs;
  }

  /** Counts one, at `now` in milliseconds of a monotonic clock. Returns whether it is within the maximum. */
  admit(now = performance.now()): boolean {
    if (now - this.#since >= this.#windowMs) {
      const excess = this.#count - this.#max;
      this.#since = now;
      this.#count = 0;
      if (excess > 0) this.#onExcess(excess);
    }
    return (this.#count += 1) <= this.#max;
  }
}
