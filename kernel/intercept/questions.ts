// The questions to the interceptors of one generation that are still open, each with its deadline. Must not know which requests they are about.
import type { InspectedFrame, InspectFrame, KernelToHostFrame } from '../../protocol/frames.js';
import { INTERCEPTOR_QUESTIONS_MAX_PENDING } from '../../protocol/interceptor-limits.js';
import { readOutcome, type Outcome } from '../../protocol/interceptors.js';

export type Question = Omit<InspectFrame, 'kind' | 'id' | 'index'>;

/** A question that has been put. */
export interface Asked {
  /** Never rejects. */
  readonly outcome: Promise<Outcome>;
  /** Nobody waits any more: settles it as failed. May be called at any time. */
  readonly cancel: (reason: string) => void;
}

interface Pending {
  readonly settle: (outcome: Outcome) => void;
  readonly timer: NodeJS.Timeout;
}

const failed = (reason: string): Outcome => ({ kind: 'failed', reason });

/** One that cannot be put at all. */
export function unasked(reason: string): Asked {
  return { outcome: Promise.resolve(failed(reason)), cancel: () => {} };
}

export class Questions {
  readonly #send: (frame: KernelToHostFrame) => boolean;
  readonly #pending = new Map<number, Pending>();
  #lastId = 0;
  #open = true;
  #onIdle: (() => void) | null = null;

  constructor(send: (frame: KernelToHostFrame) => boolean) {
    this.#send = send;
  }

  get pending(): number {
    return this.#pending.size;
  }

  /** False once the generation has died. */
  get open(): boolean {
    return this.#open;
  }

  ask(index: number, question: Question, timeoutMs: number): Asked {
    if (!this.#open) return unasked('its worker has ended');
    if (this.#pending.size >= INTERCEPTOR_QUESTIONS_MAX_PENDING) return unasked(`${INTERCEPTOR_QUESTIONS_MAX_PENDING} requests wait for it already`);
    const id = ++this.#lastId;
    const give = (reason: string): void => {
      if (!this.#pending.has(id)) return;
      this.#settle(id, failed(reason));
      this.#send({ kind: 'inspect-cancel', id, reason });
    };
    const outcome = new Promise<Outcome>((settle) => {
      this.#pending.set(id, { settle, timer: setTimeout(give, timeoutMs, `it did not answer within ${timeoutMs} ms`) });
    });
    if (!this.#send({ ...question, kind: 'inspect', id, index })) this.#settle(id, failed('its worker has ended'));
    return { outcome, cancel: give };
  }

  /** Throws when it is no outcome. One that nobody waits for any more is dropped. */
  handle({ id, outcome }: InspectedFrame): void {
    const read = readOutcome(outcome);
    this.#settle(id, read);
  }

  /** Resolves when none is open. */
  drained(): Promise<void> {
    return this.#pending.size === 0 ? Promise.resolve() : new Promise((resolve) => (this.#onIdle = resolve));
  }

  /** The generation has died: nothing of it is waited for any more. */
  abandon(): void {
    this.#open = false;
    for (const id of [...this.#pending.keys()]) this.#settle(id, failed('its worker has ended'));
  }

  #settle(id: number, outcome: Outcome): void {
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    pending.settle(outcome);
    if (this.#pending.size === 0) this.#onIdle?.();
  }
}
