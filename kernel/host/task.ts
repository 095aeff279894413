// Work that is given up as a whole when nobody waits for its outcome any more: that of one request or one service call, followed over awaits. Must not know what kinds of work there are.
import { AsyncLocalStorage } from 'node:async_hooks';
import type { Logger } from 'pino';

/** What work that was given up rejects with: an AbortError, as Node's own functions have it. */
export class GivenUpError extends Error {
  override readonly name = 'AbortError';
  readonly code = 'ABORT_ERR';
  /** Its own client hears nothing any more; another request may have waited for the same work. */
  readonly statusCode = 503;
}

/** Whether this is such an error, or was thrown because of one; never throws itself. */
export function isGivenUp(thrown: unknown): boolean {
  try {
    return thrown instanceof GivenUpError || (thrown instanceof Error && thrown.cause instanceof GivenUpError);
  } catch {
    return false; // a getter of it throws
  }
}

/**
 * Lets the thread live when nobody hears that work was given up: a handler may not have come to await it yet, and a client that leaves must end nobody.
 * Any other rejection takes the way that it takes in Node, and is the plugin's when it listens itself.
 */
export function tolerateGivenUpWork(log: Pick<Logger, 'debug'>): void {
  const onUnheard = (thrown: unknown): void => {
    if (isGivenUp(thrown)) return log.debug({ err: thrown }, 'nobody heard that this was given up');
    if (process.listenerCount('unhandledRejection') > 1) return;
    process.off('unhandledRejection', onUnheard);
    void Promise.reject(thrown);
    // It comes so far only when the plugin has caught it in its own way.
    setImmediate(() => process.on('unhandledRejection', onUnheard));
  };
  process.on('unhandledRejection', onUnheard);
  // Node would warn of each that is awaited in the end after all.
  process.on('rejectionHandled', () => {});
}

type GiveUp = (error: GivenUpError) => void;

/** What one request, or one call, has set going. */
export class Task {
  readonly #work = new Set<GiveUp>();
  #cancelled = false;
  #deadline: number;

  /** `deadline` as `performance.now()` counts: what it sets going need not take longer. */
  constructor(deadline: number) {
    this.#deadline = deadline;
  }

  get deadline(): number {
    return this.#deadline;
  }

  /** Its answer has begun, and may take as long as it likes. */
  freeOfDeadline(): void {
    this.#deadline = Infinity;
  }

  get cancelled(): boolean {
    return this.#cancelled;
  }

  /** `giveUp` is called at most once, at the cancellation. What begins after that may run: it cleans up. Returns the way to take it back. */
  onCancel(giveUp: GiveUp): () => void {
    if (this.#cancelled) return () => {};
    this.#work.add(giveUp);
    return () => void this.#work.delete(giveUp);
  }

  /** Gives up all that is going on; `reason` is the message of the errors. May be called again. */
  cancel(reason: string): void {
    this.#cancelled = true;
    for (const giveUp of this.#work) giveUp(new GivenUpError(reason));
    this.#work.clear();
  }
}

/** The tasks of one plugin. */
export class Tasks {
  readonly #storage = new AsyncLocalStorage<Task | undefined>();
  #tracking = false;

  /** There are tasks from the next request on. To follow promises takes Node 20 some 7 µs for a request with one query, which a plugin without anything to give up need not pay. */
  track(): void {
    this.#tracking = true;
  }

  /** For work that begins now and has this time; null while there is nothing that it could give up. */
  begin(remainingMs: number): Task | null {
    return this.#tracking ? new Task(performance.now() + remainingMs) : null;
  }

  /** The task of who asks, over all his awaits. */
  get current(): Task | undefined {
    return this.#storage.getStore();
  }

  /** Makes the task the current one of `work` and of all that it sets going. */
  run<A extends unknown[], R>(task: Task | null, work: (...args: A) => R, ...args: A): R {
    return task === null ? work(...args) : this.#storage.run(task, work, ...args);
  }

  /** For who is called back by somebody else's doing, as by a message: then the task is the one that is current now. */
  bind<A extends unknown[]>(callback: (...args: A) => void): (...args: A) => void {
    if (!this.#tracking) return callback;
    const task = this.current;
    return (...args) => this.#storage.run(task, callback, ...args);
  }
}
