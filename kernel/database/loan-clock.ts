// How long something may take on a lent connection. Must not know sockets, leases or what is done about it.
import { LOAN_GRACE_MS, LOAN_RECALL_MS } from '../../protocol/database-limits.js';
import type { PluginLimits } from '../../protocol/limits.js';
import type { Phase } from './wire.js';

export type LoanLimits = Pick<PluginLimits, 'statementTimeoutMs' | 'transactionIdleMs' | 'loanMs'>;

export class LoanClock {
  readonly #limits: LoanLimits;
  readonly #clock: () => number;
  #lentAt = 0;
  #phase: Phase = 'rest';
  /** When the phase began. */
  #since = 0;

  /** `clock` is monotonic, in milliseconds. */
  constructor(limits: LoanLimits, clock: () => number = () => performance.now()) {
    this.#limits = limits;
    this.#clock = clock;
  }

  /** The connection is lent, and at rest. */
  begin(): void {
    this.#lentAt = this.#since = this.#clock();
  }

  /** Bytes have passed. `answered` is whether a question was answered with them: then what is still being worked on is another one. */
  note(phase: Phase, answered = false): void {
    if (phase === this.#phase && !answered) return;
    this.#phase = phase;
    this.#since = this.#clock();
  }

  get restingSince(): number {
    return this.#phase === 'rest' ? this.#since : Infinity;
  }

  /** For how long it has been at rest, in milliseconds; 0 while it is not. */
  get restedFor(): number {
    return this.#phase === 'rest' ? this.#clock() - this.#since : 0;
  }

  /** What takes too long, in words; null when nothing does. The server, which has the same limits, gets LOAN_GRACE_MS to say so first. */
  overdue(): string | null {
    const { statementTimeoutMs, transactionIdleMs, loanMs } = this.#limits;
    const now = this.#clock();
    const tookMs = now - this.#since - LOAN_GRACE_MS;
    if (this.#phase === 'work' && tookMs > statementTimeoutMs) return `a statement took more than ${statementTimeoutMs} ms; limits.statementTimeoutMs may be more`;
    if (this.#phase === 'transaction' && tookMs > transactionIdleMs) return `a transaction was left open for more than ${transactionIdleMs} ms; limits.transactionIdleMs may be more`;
    if (now - this.#lentAt > loanMs + LOAN_RECALL_MS) return `it kept the connection for more than ${loanMs} ms; limits.loanMs may be more`;
    return null;
  }

  /** Whether it has been lent for as long as it may be. */
  get old(): boolean {
    return this.#clock() - this.#lentAt > this.#limits.loanMs;
  }
}
