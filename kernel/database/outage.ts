// Whether the database is away: begins with the first failure, asks until it is back, tells it once each way. Must not know connections.
import type { Logger } from 'pino';
import { DATABASE_WATCH_INTERVAL_MS } from '../../protocol/database-limits.js';

export interface OutageOptions {
  /** Resolves when the database answers; rejects with what to say when it does not, soon. */
  readonly ask: () => Promise<unknown>;
  readonly log: Pick<Logger, 'info' | 'warn'>;
}

export class Outage {
  readonly #options: OutageOptions;
  readonly #listeners = new Set<() => void>();
  /** Those who try to connect. */
  readonly #trying = new Set<(refusal: Error) => void>();
  /** What to say at once instead of trying to connect. */
  #refusal: Error | null = null;
  #suspected = false;
  #watching: NodeJS.Timeout | null = null;
  #closed = false;

  constructor(options: OutageOptions) {
    this.#options = options;
  }

  /** Why no connection can be had; null when trying makes sense. */
  get refusal(): Error | null {
    return this.#refusal;
  }

  /** Something was lost that a plugin can also lose by its own doing: the database is asked before anybody is told. */
  suspect(): void {
    if (this.#suspected || this.#refusal !== null || this.#closed) return;
    this.#suspected = true;
    this.#options.ask().catch((error: Error) => {
      this.begin(error, 'the database does not answer');
      this.#giveUp();
    }).finally(() => { this.#suspected = false; });
  }

  /** It does not answer. */
  begin(refusal: Error, what: string): void {
    if (this.#closed || this.#refusal !== null) return;
    this.#refusal = refusal;
    this.#options.log.warn({ reason: refusal.message }, what);
    this.#watch();
  }

  /** It answers. */
  end(): void {
    if (this.#refusal === null) return;
    this.#refusal = null;
    clearTimeout(this.#watching ?? undefined);
    this.#options.log.info('the database is back');
    for (const listener of [...this.#listeners]) listener();
  }

  /** Resolves as `attempt` does, unless it turns out meanwhile that the database does not answer. */
  async unlessAway<T>(attempt: Promise<T>): Promise<T> {
    let giveUp: (refusal: Error) => void = () => {};
    try {
      return await Promise.race([attempt, new Promise<never>((_, reject) => this.#trying.add(giveUp = reject))]);
    } finally {
      this.#trying.delete(giveUp);
    }
  }

  /** Calls back when the database is back. Returns the way to end it. */
  onEnd(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** No more asking and telling. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#watching ?? undefined);
  }

  #watch(): void {
    this.#watching = setTimeout(() => {
      this.#options.ask().then(() => this.end(), () => {
        if (this.#closed || this.#refusal === null) return;
        this.#giveUp();
        this.#watch();
      });
    }, DATABASE_WATCH_INTERVAL_MS).unref();
  }

  #giveUp(): void {
    if (this.#refusal !== null) for (const giveUp of [...this.#trying]) giveUp(this.#refusal);
  }
}
