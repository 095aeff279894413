// Watches the heartbeats of all hosts through shared memory. Must not know what becomes of a host that fell silent.
import { UNRESPONSIVE_AFTER_MS, WATCHDOG_INTERVAL_MS } from '../../protocol/limits.js';
import type { StatusBlock } from '../../protocol/status-block.js';

export interface Watched {
  readonly status: StatusBlock;
  /** Silence that ends it, in milliseconds. */
  readonly hangTimeoutMs: number;
  /** Called once per silence. */
  readonly onUnresponsive: (silentMs: number) => void;
  /** Called once; it is not watched any more after that. */
  readonly onHang: (silentMs: number) => void;
}

interface Observation {
  heartbeat: number;
  /** When the heartbeat was last seen to move, in milliseconds of the watchdog's clock. */
  movedAt: number;
  reported: boolean;
}

export class Watchdog {
  readonly #watched = new Map<Watched, Observation>();
  readonly #clock: () => number;
  #timer: NodeJS.Timeout | null = null;
  #lastLook = 0;

  /** `clock` is monotonic, in milliseconds. */
  constructor(clock: () => number = () => performance.now()) {
    this.#clock = clock;
  }

  watch(watched: Watched): void {
    const now = this.#clock();
    this.#watched.set(watched, { heartbeat: watched.status.heartbeat, movedAt: now, reported: false });
    if (this.#timer !== null) return;
    this.#lastLook = now;
    this.#timer = setInterval(() => this.look(), WATCHDOG_INTERVAL_MS);
    this.#timer.unref();
  }

  unwatch(watched: Watched): void {
    this.#watched.delete(watched);
    if (this.#watched.size > 0 || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }

  /** Whether it has been silent for longer than UNRESPONSIVE_AFTER_MS. */
  silent(watched: Watched): boolean {
    return this.#watched.get(watched)?.reported ?? false;
  }

  /** Looks at every heartbeat once. Public for tests, which bring their own clock. */
  look(): void {
    const now = this.#clock();
    // While the kernel itself stood still it saw no heartbeat: that time counts against nobody.
    const blind = Math.max(0, now - this.#lastLook - 2 * WATCHDOG_INTERVAL_MS);
    this.#lastLook = now;
    for (const [watched, seen] of this.#watched) {
      const { heartbeat } = watched.status;
      if (heartbeat !== seen.heartbeat) {
        seen.heartbeat = heartbeat;
        seen.movedAt = now;
        seen.reported = false;
        continue;
      }
      seen.movedAt += blind;
      const silentMs = Math.round(now - seen.movedAt);
      if (silentMs >= watched.hangTimeoutMs) {
        this.unwatch(watched);
        watched.onHang(silentMs);
      } else if (silentMs >= UNRESPONSIVE_AFTER_MS && !seen.reported) {
        seen.reported = true;
        watched.onUnresponsive(silentMs);
      }
    }
  }
}
