// The kernel's way to PostgreSQL: checks connections out and ends them, knows whether the database is there, keeps the credentials. Must not know plugins or leases.
import type { Socket } from 'node:net';
import pg, { type PoolClient, type PoolConfig } from 'pg';
import type { Logger } from 'pino';
import {
  DATABASE_CLOSE_TIMEOUT_MS, DATABASE_IDLE_MS, DATABASE_KEEP_ALIVE_DELAY_MS, DATABASE_PING_TIMEOUT_MS, DATABASE_STATEMENT_TIMEOUT_MS, LEASE_WAIT_MS,
} from '../../protocol/database-limits.js';
import { BulkheadError, toPlainError } from '../../protocol/errors.js';
import { Borrowers, type Borrower } from './borrowers.js';
import { closesWithin, hangUp, processIdOf, socketOf } from './hang-up.js';
import { Outage } from './outage.js';
import { Pool, Pools, type Login } from './pools.js';
import { isAway } from './sql-state.js';

export interface DatabaseOptions {
  /** `postgresql://...`, also with `sslmode` or a unix socket; holds the password, so it is never shown. */
  readonly url: string;
  /** Most connections at one time; one more is kept for `ping`. */
  readonly poolMax: number;
  /** What `pg_stat_activity` shows while the kernel itself has a connection. */
  readonly applicationName: string;
  readonly log: Pick<Logger, 'info' | 'warn'>;
}

export interface CheckOut {
  /** By default the kernel's own. */
  readonly login?: Login | null;
  readonly borrower?: Borrower;
}

export interface Database {
  /** Asks the server for one row within DATABASE_PING_TIMEOUT_MS in all, however busy the pool is. Rejects with `DATABASE_UNAVAILABLE`. */
  ping(): Promise<void>;
  /**
   * Checks out a connection that is authenticated and at rest; waits for one at most LEASE_WAIT_MS, while those who have more give one back.
   * Rejects with `DATABASE_BUSY`, or with `DATABASE_UNAVAILABLE`: at once while the database is away.
   * A query on it rejects after two seconds unless it brings its own `query_timeout`. Give it back with `release()`, or with `discard`.
   */
  connect(options?: CheckOut): Promise<PoolClient>;
  readonly borrowers: Borrowers;
  /** Whether no connection is free. */
  readonly full: boolean;
  /**
   * Ends a connection that was checked out, whatever it is doing, and frees its place once the server has let go; a process of the server that does not within
   * 755 ms is terminated. `busy` is whether a statement may be running on it. Never rejects.
   */
  discard(client: PoolClient, busy?: boolean): Promise<void>;
  /** Calls back each time the database is back after an outage. Returns the way to end it. */
  onBack(listener: () => void): () => void;
  /** Password of the kernel's own login; null when it has none. */
  readonly secret: string | null;
  /** Connections checked out or idle, those idle, and callers of `connect` that wait. */
  readonly stats: { readonly total: number; readonly idle: number; readonly waiting: number };
  /** Ends all connections within a second, also those checked out; one that is just being opened ends when it arrives. May be called again. Never rejects. */
  close(): Promise<void>;
}

/** Throws `CONFIG_INVALID` when the URL cannot be read; does not connect yet. */
export function createDatabase({ url, poolMax, applicationName, log }: DatabaseOptions): Database {
  const config: PoolConfig = {
    ...readUrl(url),
    application_name: applicationName,
    connectionTimeoutMillis: LEASE_WAIT_MS,
    query_timeout: DATABASE_STATEMENT_TIMEOUT_MS,
    idleTimeoutMillis: DATABASE_IDLE_MS,
    keepAlive: true,
    keepAliveInitialDelayMillis: DATABASE_KEEP_ALIVE_DELAY_MS,
  };
  const borrowers = new Borrowers();
  const sockets = new Set<Socket>();
  let pinging: Promise<void> | null = null;

  const watch = (pool: pg.Pool): void => {
    pool.on('connect', (client) => {
      // pg throws the loss of a connection at the process when nobody listens, and between two owners nobody does.
      client.on('error', () => {});
      const socket = socketOf(client);
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
      outage.end();
    });
    // An idle connection was lost; the pool has removed it.
    pool.on('error', () => outage.suspect());
  };
  const pools = new Pools({ config, max: poolMax, onPool: watch });
  // Apart, so that a health check tells how the database is and not how busy the plugins are. Both halves of its time end in an error.
  const own = new Pool({ ...config, max: 1, connectionTimeoutMillis: DATABASE_PING_TIMEOUT_MS / 2, query_timeout: DATABASE_PING_TIMEOUT_MS / 2 }, pg.Client);
  watch(own);
  const ask = (): Promise<unknown> => own.query('SELECT 1');
  const outage = new Outage({ ask: () => ask().catch((error: unknown) => { throw databaseUnavailable(error); }), log });
  const lost = (error: unknown, what: string, login: Login | null = null): BulkheadError => {
    const unavailable = databaseUnavailable(error);
    if (unavailable.code !== 'DATABASE_UNAVAILABLE' || !isAway(error)) return unavailable;
    // A plugin can end the connections of its own role.
    if (login === null) outage.begin(unavailable, what);
    else outage.suspect();
    return unavailable;
  };

  return {
    borrowers,
    secret: typeof config.password === 'string' && config.password !== '' ? config.password : null,
    ping() {
      pinging ??= ask()
        .then(() => outage.end(), (error: unknown) => { throw lost(error, 'the database does not answer'); })
        .finally(() => { pinging = null; });
      return pinging;
    },
    async connect({ login = null, borrower } = {}) {
      // Who waited for a server that does not answer would only pile up.
      if (outage.refusal !== null && !pools.hasSpare(login)) throw outage.refusal;
      const served = pools.full ? borrowers.wait(borrower) : null;
      const connecting = pools.connect(login);
      try {
        return await outage.unlessAway(connecting);
      } catch (error) {
        // Who gave up does not want what comes late.
        void connecting.then((client) => client.release(), () => {});
        throw lost(error, 'the database cannot be reached', login);
      } finally {
        served?.();
      }
    },
    async discard(client, busy = true) {
      // A statement can catch its cancellation, but not the end of its process.
      if (!(await hangUp(client, busy))) await own.query('SELECT pg_catalog.pg_terminate_backend($1)', [processIdOf(client)]).catch(() => {});
      client.release(true);
    },
    get full() {
      return pools.full;
    },
    onBack: (listener) => outage.onEnd(listener),
    get stats() {
      return { total: pools.total, idle: pools.idle, waiting: pools.waiting };
    },
    async close() {
      outage.close();
      pools.end();
      void own.end().catch(() => {});
      await Promise.all([...sockets].map((socket) => closesWithin(socket, DATABASE_CLOSE_TIMEOUT_MS)));
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** What a plugin or an operator hears of a failed connection; the error's own text, never the URL. */
export function databaseUnavailable(error: unknown): BulkheadError {
  return error instanceof BulkheadError ? error : new BulkheadError('DATABASE_UNAVAILABLE', { reason: reasonOf(error) }, { cause: error });
}

function reasonOf(error: unknown): string {
  // One failure per address of the host, and no text of its own.
  if (error instanceof AggregateError) return [...new Set(error.errors.map(reasonOf))].join('; ');
  const { message, code, name } = toPlainError(error);
  return (message || code || name).replace(/\.$/, '');
}

/** Read once: given the URL, pg would read it and its certificates' files again for each connection, and keep the password where a log may find it. */
function readUrl(url: string): PoolConfig {
  try {
    const { connectionParameters } = new pg.Client({ connectionString: url }) as unknown as { connectionParameters: PoolConfig };
    // A copy of the rest lacks the password, which is hidden from whoever lists the properties.
    return { ...connectionParameters, password: connectionParameters.password };
  } catch (error) {
    throw new BulkheadError('CONFIG_INVALID', { problems: [`DATABASE_URL cannot be read: ${reasonOf(error)}`] });
  }
}
