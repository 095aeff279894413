// Lends the kernel's connections to one generation of a plugin and takes them back, whatever its worker does. Must not know what is asked on them.
import pg, { type PoolClient } from 'pg';
import type { Logger } from 'pino';
import { BulkheadError } from '../../protocol/errors.js';
import type { LeaseCreditFrame, LeaseDataFrame, LeaseOpenFrame, LeaseReturnFrame } from '../../protocol/frames.js';
import { LOAN_LOOK_INTERVAL_MS } from '../../protocol/database-limits.js';
import type { Borrower } from './borrowers.js';
import { Loan, type SendLease } from './loan.js';
import type { LoanLimits } from './loan-clock.js';
import { databaseUnavailable, type Database } from './pool.js';
import type { Login } from './pools.js';
import type { Scope } from './scopes.js';
import { isPassing } from './sql-state.js';

export interface LendingOptions {
  readonly database: Database;
  /** The plugin's own part of the database, made when it is first asked for. */
  readonly scope: () => Promise<Scope>;
  /** The server has not let its login in. */
  readonly onRefused: () => void;
  /** Name of the plugin; its connections show up as `bulkhead/<plugin>` in `pg_stat_activity`. */
  readonly plugin: string;
  /** Most leases at one time. */
  readonly quota: number;
  readonly limits: LoanLimits;
  /** Sends a frame to the host; does nothing once the host is gone. */
  readonly send: SendLease;
  readonly log: Pick<Logger, 'warn'>;
}

export class Lending implements Borrower {
  readonly #options: LendingOptions;
  /** By the host's numbers: asked for or lent, and not over. */
  readonly #loans = new Map<number, Loan>();
  /** Loans that wait until a connection of an earlier one, given back or thrown away, has left its place. */
  readonly #queue = new Set<Loan>();
  /** Places that this plugin takes up in the pool, counting connections that are still being cleaned or ended. */
  #places = 0;
  /** Loans for which the pool was asked and has not answered. */
  #waiting = 0;
  #revoked = false;
  #looking: NodeJS.Timeout | null = null;

  constructor(options: LendingOptions) {
    this.#options = options;
    options.database.borrowers.enter(this);
  }

  /** Leases that the host has asked for and that are not over. */
  get count(): number {
    return this.#loans.size;
  }

  get plugin(): string {
    return this.#options.plugin;
  }

  get held(): number {
    return [...this.#loans.values()].filter(({ held }) => held).length;
  }

  get claims(): number {
    return this.#waiting + [...this.#loans.values()].filter(({ lent }) => lent).length;
  }

  callIn(): void {
    const held = [...this.#loans.values()].filter((loan) => loan.held);
    // The one that has been idle for longest; of those at work, the one that was lent first.
    const [first] = held.sort((a, b) => (a.restingSince === b.restingSince ? 0 : a.restingSince - b.restingSince));
    first?.recall();
  }

  /** Takes any frame of these kinds, whatever is in it; at worst the lease that it names ends. Never throws. */
  handle(frame: LeaseOpenFrame | LeaseDataFrame | LeaseCreditFrame | LeaseReturnFrame): void {
    if (this.#revoked || !Number.isSafeInteger(frame.lease)) return;
    const loan = this.#loans.get(frame.lease);
    // What a host sent before it heard that its lease is over belongs to nobody.
    if (loan === undefined) return frame.kind === 'lease-open' ? this.#open(frame.lease) : undefined;
    switch (frame.kind) {
      case 'lease-open': return loan.blame('it opened the same lease twice');
      case 'lease-data': return loan.write(frame.data);
      case 'lease-credit': return loan.credit(frame.bytes);
      case 'lease-return': return loan.end(null);
    }
  }

  /**
   * The generation is dead: ends every lent connection and cancels what runs on it, so that PostgreSQL rolls back and lets go
   * of locks. Resolves when the server has, within a second. Connections that are still being opened go to the pool. Never rejects.
   */
  async revokeAll(): Promise<void> {
    this.#revoked = true;
    this.#options.database.borrowers.leave(this);
    const lent = [...this.#loans.values()].filter((loan) => loan.lent);
    for (const loan of [...this.#loans.values()]) loan.revoke();
    await Promise.all(lent.map((loan) => loan.settled));
  }

  #open(lease: number): void {
    const { quota, limits, send, log } = this.#options;
    const onOver = (): void => {
      this.#queue.delete(loan);
      if (this.#loans.get(lease) !== loan) return;
      this.#loans.delete(lease);
      if (this.#loans.size === 0) this.#endLooking();
    };
    const loan = new Loan({ lease, limits, send, log, onOver });
    if (this.#loans.size >= quota) return loan.end(new BulkheadError('DATABASE_BUSY', { reason: `the plugin has all of its ${quota} connections open already` }));
    this.#loans.set(lease, loan);
    this.#looking ??= setInterval(() => this.#look(), LOAN_LOOK_INTERVAL_MS).unref();
    if (this.#places < quota) loan.settled = this.#serve(loan);
    else this.#queue.add(loan);
  }

  /** One loan from the pool and back to it. */
  async #serve(loan: Loan): Promise<void> {
    const { database, scope, plugin, limits } = this.#options;
    this.#places += 1;
    let client: PoolClient | null = null;
    try {
      const { schema, login } = await scope();
      // Its requests wait for a connection that it has already, not for one that nobody gives.
      if (database.full && !database.borrowers.mayWait(this)) return loan.end(new BulkheadError('DATABASE_BUSY', { reason: 'all connections are in use, and no plugin has more of them' }), true);
      client = await this.#checkOut(login).catch((error: unknown) => this.#checkOutMended(error));
      // One round trip per loan, not per query. It also finds out here, and not in the plugin, whether the connection is still alive.
      if (!loan.over) await client.query(settings(plugin, schema, limits));
      const used = loan.use(client);
      database.borrowers.remind();
      await used;
      if (loan.clean) {
        await client.query('DISCARD ALL');
        client.release();
      } else {
        await database.discard(client, loan.busy);
      }
    } catch (error) {
      // There was no connection, or it died under one of the kernel's own two statements.
      client?.release(true);
      loan.end(databaseUnavailable(error));
    } finally {
      this.#places -= 1;
      const [next] = this.#queue;
      if (next !== undefined) {
        this.#queue.delete(next);
        next.settled = this.#serve(next);
      }
    }
  }

  /** A plugin can set its own role up so that it cannot log in: to make it anew mends that. */
  async #checkOutMended(refusal: unknown): Promise<PoolClient> {
    if (isPassing(refusal)) throw refusal;
    this.#options.onRefused();
    const { login } = await this.#options.scope();
    return this.#checkOut(login);
  }

  async #checkOut(login: Login | null): Promise<PoolClient> {
    this.#waiting += 1;
    try {
      return await this.#options.database.connect({ login, borrower: this });
    } finally {
      this.#waiting -= 1;
    }
  }

  #look(): void {
    const { borrowers } = this.#options.database;
    borrowers.remind();
    for (const loan of [...this.#loans.values()]) loan.look(borrowers.crowded);
  }

  #endLooking(): void {
    if (this.#looking !== null) clearInterval(this.#looking);
    this.#looking = null;
  }
}

/** What a borrower finds on every connection. The server's own limits come before the kernel's, and tell the plugin which statement it was; but a plugin can turn them off. */
function settings(plugin: string, schema: string, { statementTimeoutMs, transactionIdleMs }: LoanLimits): string {
  return `SET application_name TO ${pg.escapeLiteral(`bulkhead/${plugin}`)}; SET search_path TO ${pg.escapeIdentifier(schema)}, public; SET statement_timeout TO ${statementTimeoutMs}; SET idle_in_transaction_session_timeout TO ${transactionIdleMs}`;
}
