// Keeps a thread's loop turning for a moment after traffic, so that what comes next finds it awake. Must not know what the traffic is.
import { availableParallelism } from 'node:os';
import { BUSY_POLL_MS } from './limits.js';

/** Weight of the newest gap between two pieces of traffic: the last sixteen or so decide. */
const WEIGHT = 1 / 16;
/** A turn of a loop that does nothing takes some µs: one that took this long, in milliseconds, has lost its core to somebody who needs it. */
const PREEMPTED_MS = 0.2;
/** For how long it then leaves the core to others, in milliseconds; doubled each time up to the maximum, and reset by a poll that was not disturbed. */
const STAND_BACK_MS = 5;
const STAND_BACK_MAX_MS = 1_000;

/**
 * To wake a sleeping thread takes some 50 µs, several times what a small request needs. This pays with processor time, so it polls
 * only while most traffic of late came within BUSY_POLL_MS of the last, and stands back when the thread is seen to share its core.
 */
export class BusyPoll {
  readonly #useful = availableParallelism() > 1;
  #last = 0;
  #share = 0;
  #polling = false;
  #turned = 0;
  #standBackMs = STAND_BACK_MS;
  #restUntil = 0;

  /** Something was sent or has come. */
  traffic(): void {
    const now = performance.now();
    this.#share += (Number(now - this.#last <= BUSY_POLL_MS) - this.#share) * WEIGHT;
    this.#last = now;
    if (this.#polling || !this.#useful || this.#share < 0.5 || now < this.#restUntil) return;
    this.#polling = true;
    this.#turned = now;
    setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    const now = performance.now();
    if (this.#last <= this.#turned && now - this.#turned > PREEMPTED_MS) {
      this.#restUntil = now + this.#standBackMs;
      this.#standBackMs = Math.min(STAND_BACK_MAX_MS, 2 * this.#standBackMs);
      this.#polling = false;
    } else if (now - this.#last > BUSY_POLL_MS) {
      this.#polling = false;
      this.#standBackMs = STAND_BACK_MS;
    } else {
      this.#turned = now;
      setImmediate(this.#turn);
    }
  };
}
