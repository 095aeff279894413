// Keeps a thread awake for a moment after it has sent something, so that the answer finds it so. Must not know what is sent.
import { availableParallelism } from 'node:os';

/** How long it waits awake, in milliseconds: several times what a small request takes, and too little to be seen in the processor time of a quiet system. */
const AWAKE_MS = 0.2;
/** Weight of the newest answer among those of late: the last sixteen or so decide. */
const WEIGHT = 1 / 16;
/** A turn of a loop that does nothing takes a few µs: one that took this long, in milliseconds, has lost its core to somebody who needs it. */
const PREEMPTED_MS = 0.1;
/** For how long it then leaves the core to others, in milliseconds; doubled each time up to the maximum, and reset by an answer that was worth the wait. */
const STAND_BACK_MS = 2;
const STAND_BACK_MAX_MS = 1_000;
/** With one core, who polls keeps the other from answering. */
const USEFUL = availableParallelism() > 1;

/**
 * To wake a sleeping thread takes some 50 µs, several times what a small request needs. Awake it costs a core, so it polls only while
 * most answers come within AWAKE_MS, and stands back when it is seen to share its core. Of two threads that send to each other one
 * works while the other polls, which leaves the second core of a small machine to the client when both have answered.
 */
export class BusyPoll {
  readonly #clock: () => number;
  readonly #schedule: (turn: () => void) => void;
  /** When something was sent that is not answered, or 0. */
  #sentAt = 0;
  /** Of the answers of late, those that came soon. */
  #soon = 0;
  #polling = false;
  #turnedAt = 0;
  #standBackMs = STAND_BACK_MS;
  #restUntil = 0;

  /** `clock` is monotonic, in milliseconds; `schedule` calls back in the next turn of the event loop, and does not let it sleep before. */
  constructor(clock: () => number = () => performance.now(), schedule: (turn: () => void) => void = setImmediate) {
    this.#clock = clock;
    this.#schedule = schedule;
  }

  sent(): void {
    const now = this.#clock();
    this.#sentAt = now;
    if (this.#polling || !USEFUL || this.#soon < 0.5 || now < this.#restUntil) return;
    this.#polling = true;
    this.#turnedAt = now;
    this.#schedule(this.#turn);
  }

  received(): void {
    if (this.#sentAt === 0) return;
    this.#soon += (Number(this.#clock() - this.#sentAt <= AWAKE_MS) - this.#soon) * WEIGHT;
    this.#sentAt = 0;
  }

  readonly #turn = (): void => {
    const now = this.#clock();
    this.#polling = false;
    if (this.#sentAt === 0) this.#standBackMs = STAND_BACK_MS;
    else if (now - this.#turnedAt > PREEMPTED_MS) {
      this.#restUntil = now + this.#standBackMs;
      this.#standBackMs = Math.min(STAND_BACK_MAX_MS, 2 * this.#standBackMs);
    } else if (now - this.#sentAt <= AWAKE_MS) {
      this.#polling = true;
      this.#turnedAt = now;
      this.#schedule(this.#turn);
    }
  };
}
