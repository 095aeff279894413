// Where workers come from: one that is booted already when it fits, else a new one. Must not know which plugin it is for.
import type { Logger } from 'pino';
import { PLUGIN_LIMITS, STANDBY_REFILL_DELAY_MS } from '../../protocol/limits.js';
import { backOffMs } from '../back-off.js';
import type { Berths } from './berths.js';
import { Generation } from './generation.js';

/** What cannot be changed any more once a worker runs. */
export interface Build {
  /** Old-generation heap, in MiB. */
  readonly heapMb: number;
  /** Permissions beyond the walls. */
  readonly granted: readonly string[];
}

const PLAIN: Build = { heapMb: PLUGIN_LIMITS.heapMb, granted: [] };

export class Standby {
  readonly #count: number;
  readonly #berths: Berths;
  readonly #log: Logger;
  readonly #ready: Generation[] = [];
  readonly #booting = new Set<Generation>();
  #launched = 0;
  #failures = 0;
  #timer: NodeJS.Timeout | null = null;
  #open = false;

  /** `count` workers are kept booted, between `open` and `close`. */
  constructor(count: number, berths: Berths, log: Logger) {
    this.#count = count;
    this.#berths = berths;
    this.#log = log;
  }

  /** Workers that were launched and whose threads have not ended. */
  get launched(): number {
    return this.#launched;
  }

  /** Workers that are booted and wait for a plugin. */
  get waiting(): number {
    return this.#ready.length;
  }

  open(): void {
    this.#open = true;
    this.#fill();
  }

  /** A worker of this build. A plugin with a heap or permissions of its own gets a fresh one, and so does one that is not `urgent`. */
  take(build: Build, urgent: boolean): Generation {
    const fits = urgent && build.heapMb === PLAIN.heapMb && build.granted.length === 0;
    const ready = fits ? this.#ready.shift() : undefined;
    if (ready === undefined) return this.#launch(build);
    this.#refillAfter(STANDBY_REFILL_DELAY_MS);
    return ready;
  }

  async close(): Promise<void> {
    this.#open = false;
    if (this.#timer !== null) clearTimeout(this.#timer);
    await Promise.all([...this.#ready, ...this.#booting].map((spare) => {
      spare.kill('stopped', 'the kernel stops');
      return spare.gone;
    }));
  }

  #fill(): void {
    while (this.#open && this.#ready.length + this.#booting.size < this.#count) void this.#boot(this.#launch(PLAIN));
  }

  #launch(build: Build): Generation {
    const generation = new Generation(build, this.#berths.assign());
    this.#launched += 1;
    void generation.gone.then(() => {
      this.#launched -= 1;
      return this.#berths.leave(generation.berth);
    });
    return generation;
  }

  async #boot(spare: Generation): Promise<void> {
    this.#booting.add(spare);
    // One that ends before a plugin has it, for whatever reason, is replaced.
    void spare.gone.then(() => {
      this.#booting.delete(spare);
      const place = this.#ready.indexOf(spare);
      if (place === -1) return;
      this.#ready.splice(place, 1);
      this.#refillAfter(backOffMs(1));
    });
    try {
      await spare.ready();
      this.#failures = 0;
      this.#booting.delete(spare);
      if (this.#open) this.#ready.push(spare);
    } catch (error) {
      spare.kill('failed', (error as Error).message);
      await spare.gone;
      if (!this.#open) return;
      this.#log.warn({ reason: (error as Error).message }, 'a standby worker did not boot; another attempt follows');
      this.#failures += 1;
      this.#refillAfter(backOffMs(this.#failures));
    }
  }

  #refillAfter(delayMs: number): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#fill(), delayMs).unref();
  }
}
