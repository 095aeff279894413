// Counts what happens within a second, against a maximum. Must not know what it is.

export class Rate {
  readonly #max: number;
  readonly #onExcess: (count: number) => void;
  #since = 0;
  #count = 0;

  /** `onExcess` is called after a second with too many, when the next one comes, with how many were too many. */
  constructor(max: number, onExcess: (count: number) => void = () => {}) {
    this.#max = max;
    this.#onExcess = onExcess;
  }

  /** Counts one. Returns whether it is within the maximum. */
  admit(): boolean {
    const now = performance.now();
    if (now - this.#since >= 1_000) {
      const excess = this.#count - this.#max;
      this.#since = now;
      this.#count = 0;
      if (excess > 0) this.#onExcess(excess);
    }
    return (this.#count += 1) <= this.#max;
  }
}
