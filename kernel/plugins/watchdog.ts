// Watches heartbeat and memory of all hosts through shared memory. Must not know what becomes of a host that fell silent or hoards.
import { HEARTBEAT_INTERVAL_MS, HEARTBEAT_REST_INTERVAL_MS, MEMORY_BLIND_AFTER_MS, MEMORY_WARNING_PERCENT, WATCHDOG_BUSY_INTERVAL_MS, WATCHDOG_INTERVAL_MS, WATCHDOG_QUIET_AFTER_MS } from '../../protocol/limits.js';
import type { StatusBlock } from '../../protocol/status-block.js';

export interface Watched {
  readonly status: StatusBlock;
  /** Whether it has requests under way. */
  readonly busy: () => boolean;
  /** Its memory in bytes, asked past its event loop; null when that cannot be known. Never rejects. */
  readonly measure: () => Promise<number | null>;
  /** Silence that is reported, in milliseconds. */
  unresponsiveAfterMs: number;
  /** Silence that ends it, in milliseconds. */
  hangTimeoutMs: number;
  /** Memory in all that ends it, in bytes. */
  memoryMaxBytes: number;
  /** Called once per silence. */
  readonly onUnresponsive: (silentMs: number) => void;
  /** Called once; it is not watched any more after that. */
  readonly onHang: (silentMs: number) => void;
  /** Called once each time that it comes near its limit. */
  readonly onMemoryWarning: (bytes: number, maxBytes: number) => void;
  /** Called once; it is not watched any more after that. */
  readonly onMemoryExceeded: (bytes: number, maxBytes: number) => void;
}

/** By how much longer a heart that rests is silent between two beats. */
const RESTED_MS = HEARTBEAT_REST_INTERVAL_MS - HEARTBEAT_INTERVAL_MS;

/** A look that is late by this much, in milliseconds, is so because the machine is busy, and not because the kernel has stood still. */
const LATE_MS = WATCHDOG_BUSY_INTERVAL_MS;

interface Observation {
  heartbeat: number;
  /** When the heartbeat was last seen to move, in milliseconds of the watchdog's clock. */
  movedAt: number;
  reported: boolean;
  warned: boolean;
  measuring: boolean;
}

export class Watchdog {
  readonly #watched = new Map<Watched, Observation>();
  readonly #clock: () => number;
  #timer: NodeJS.Timeout | null = null;
  #intervalMs = WATCHDOG_INTERVAL_MS;
  #lastLook = 0;
  /** How soon after that the next look was meant to be, in milliseconds. */
  #dueMs = WATCHDOG_INTERVAL_MS;
  #lastBusy = 0;

  /** `clock` is monotonic, in milliseconds. */
  constructor(clock: () => number = () => performance.now()) {
    this.#clock = clock;
  }

  /** Hosts that are looked at. */
  get size(): number {
    return this.#watched.size;
  }

  /** From now on; silence before does not count, also of one that is watched already. */
  watch(watched: Watched): void {
    const now = this.#clock();
    this.#watched.set(watched, { heartbeat: watched.status.heartbeat, movedAt: now, reported: false, warned: false, measuring: false });
    if (this.#timer !== null) return;
    this.#lastLook = now;
    this.#dueMs = WATCHDOG_INTERVAL_MS;
    this.#lookEvery(WATCHDOG_INTERVAL_MS);
  }

  /** A request is under way: from now on a hang is soon seen. Costs nothing while others are. */
  hurry(): void {
    if (this.#intervalMs === WATCHDOG_BUSY_INTERVAL_MS || this.#timer === null) return;
    this.#lastBusy = this.#clock();
    this.#lookEvery(WATCHDOG_BUSY_INTERVAL_MS);
  }

  unwatch(watched: Watched): void {
    this.#watched.delete(watched);
    if (this.#watched.size > 0) return;
    clearInterval(this.#timer ?? undefined);
    this.#timer = null;
  }

  /** Whether it has been silent for longer than its `unresponsiveAfterMs`. */
  silent(watched: Watched): boolean {
    return this.#watched.get(watched)?.reported ?? false;
  }

  /** Looks at every heartbeat once. Public for tests, which bring their own clock. */
  look(): void {
    const now = this.#clock();
    // While the kernel itself stood still it saw no heartbeat: that time counts against nobody.
    const blind = Math.max(0, now - this.#lastLook - this.#dueMs - LATE_MS);
    this.#lastLook = now;
    this.#settle(now);
    this.#dueMs = this.#intervalMs;
    for (const [watched, seen] of this.#watched) {
      // In this order: a heart that wakes up beats before it says so.
      const { resting } = watched.status;
      const { heartbeat } = watched.status;
      if (heartbeat !== seen.heartbeat) {
        Object.assign(seen, { heartbeat, movedAt: now, reported: false });
        this.#weigh(watched, seen);
        continue;
      }
      seen.movedAt += blind;
      const silentMs = Math.round(now - seen.movedAt) - (resting ? RESTED_MS : 0);
      if (silentMs >= MEMORY_BLIND_AFTER_MS) void this.#measure(watched, seen);
      if (silentMs >= watched.hangTimeoutMs) {
        this.unwatch(watched);
        watched.onHang(silentMs);
      } else if (silentMs >= watched.unresponsiveAfterMs && !seen.reported) {
        seen.reported = true;
        watched.onUnresponsive(silentMs);
      }
    }
  }

  #settle(now: number): void {
    if (this.#intervalMs === WATCHDOG_INTERVAL_MS) return;
    if ([...this.#watched.keys()].some(({ busy }) => busy())) this.#lastBusy = now;
    else if (now - this.#lastBusy > WATCHDOG_QUIET_AFTER_MS) this.#lookEvery(WATCHDOG_INTERVAL_MS);
  }

  #lookEvery(intervalMs: number): void {
    clearInterval(this.#timer ?? undefined);
    this.#intervalMs = intervalMs;
    this.#timer = setInterval(() => this.look(), intervalMs).unref();
  }

  #weigh(watched: Watched, seen: Observation): void {
    const bytes = bytesOf(watched.status);
    const near = bytes > (watched.memoryMaxBytes * MEMORY_WARNING_PERCENT) / 100;
    if (near && !seen.warned) watched.onMemoryWarning(bytes, watched.memoryMaxBytes);
    seen.warned = near;
    this.#judge(watched, bytes);
  }

  /** One that hoards in a loop cannot say so itself. */
  async #measure(watched: Watched, seen: Observation): Promise<void> {
    if (seen.measuring) return;
    seen.measuring = true;
    const bytes = await watched.measure();
    seen.measuring = false;
    if (bytes !== null) this.#judge(watched, bytes);
  }

  #judge(watched: Watched, bytes: number): void {
    if (bytes <= watched.memoryMaxBytes || !this.#watched.has(watched)) return;
    this.unwatch(watched);
    watched.onMemoryExceeded(bytes, watched.memoryMaxBytes);
  }
}

function bytesOf({ memory }: StatusBlock): number {
  return memory.heapUsed + memory.external;
}
