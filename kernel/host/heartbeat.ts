// The sign of life that a host gives through shared memory: that its event loop turns, and how much memory it has. Must not know who looks at it.
import { HEARTBEAT_INTERVAL_MS, HEARTBEAT_REST_INTERVAL_MS, HEARTBEATS_BEFORE_REST_MAX, RESTING_WORK_MAX_MS } from '../../protocol/limits.js';
import type { StatusBlock } from '../../protocol/status-block.js';

/** Beats every HEARTBEAT_INTERVAL_MS, and every HEARTBEAT_REST_INTERVAL_MS when its thread has had next to nothing to do for a while: each beat wakes the machine. */
export class Heartbeat {
  readonly #status: StatusBlock;
  /** Milliseconds that the thread has worked since it last was asked. */
  readonly #worked: () => number;
  #timer: NodeJS.Timeout | null = null;
  /** When the next beat is due, in milliseconds of this thread's clock. */
  #due = 0;
  #stillBeats = 0;

  constructor(status: StatusBlock, worked: () => number = workedMs()) {
    this.#status = status;
    this.#worked = worked;
  }

  start(): void {
    this.#pace(HEARTBEAT_INTERVAL_MS);
  }

  /** A frame has come. */
  stir(): void {
    this.#status.beat();
    this.#stillBeats = 0;
    if (!this.#status.resting) return;
    this.#noteLag(performance.now());
    this.#pace(HEARTBEAT_INTERVAL_MS);
    // Last: whoever sees that it rests no more has to see that it beats, too.
    this.#status.resting = false;
  }

  #pace(intervalMs: number): void {
    clearInterval(this.#timer ?? undefined);
    this.#due = performance.now() + intervalMs;
    this.#timer = setInterval(() => this.#beat(intervalMs), intervalMs).unref();
  }

  #beat(intervalMs: number): void {
    const now = performance.now();
    this.#noteLag(now);
    this.#due = now + intervalMs;
    const { heapUsed, external, arrayBuffers } = process.memoryUsage();
    this.#status.memory = { heapUsed, external, arrayBuffers };
    // A plugin may work without having been asked.
    if (this.#worked() > RESTING_WORK_MAX_MS) return this.stir();
    this.#status.beat();
    this.#stillBeats += 1;
    if (this.#stillBeats !== HEARTBEATS_BEFORE_REST_MAX) return;
    this.#status.resting = true;
    this.#pace(HEARTBEAT_REST_INTERVAL_MS);
  }

  #noteLag(now: number): void {
    this.#status.loopLagMs = Math.max(0, now - this.#due);
  }
}

function workedMs(): () => number {
  let last = performance.eventLoopUtilization();
  return () => {
    const now = performance.eventLoopUtilization();
    const worked = now.active - last.active;
    last = now;
    return worked;
  };
}
