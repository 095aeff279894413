// Owns the connections to PostgreSQL and their credentials: opens them, checks them out, ends them. Must not know plugins or leases.
import type { Socket } from 'node:net';
import pg, { type PoolClient, type PoolConfig } from 'pg';
// @ts-expect-error It ships no types; those of pg's own Pool, which derives from it, describe it.
import UntypedPool from 'pg-pool';
import type { Logger } from 'pino';
import { BulkheadError, toPlainError } from '../../protocol/errors.js';
import {
  DATABASE_CANCEL_TIMEOUT_MS, DATABASE_CLOSE_TIMEOUT_MS, DATABASE_HANG_UP_WAITS_MS, DATABASE_IDLE_MS, DATABASE_KEEP_ALIVE_DELAY_MS, DATABASE_PING_TIMEOUT_MS, DATABASE_STATEMENT_TIMEOUT_MS, LEASE_WAIT_MS,
} from '../../protocol/database-limits.js';

const Pool = UntypedPool as new (options: PoolConfig, client: typeof pg.Client) => pg.Pool;

export interface DatabaseOptions {
  /** `postgresql://...`, also with `sslmode` or a unix socket; holds the password, so it is never shown. */
  readonly url: string;
  /** Most connections that are checked out at one time; one more is kept for `ping`. */
  readonly poolMax: number;
  /** What `pg_stat_activity` shows while the kernel itself has a connection. */
  readonly applicationName: string;
  readonly log: Pick<Logger, 'info' | 'warn'>;
}

export interface Database {
  /** Asks the server for one row within DATABASE_PING_TIMEOUT_MS in all, however busy the pool is. Rejects with `DATABASE_UNAVAILABLE`. */
  ping(): Promise<void>;
  /**
   * Checks out a connection that is authenticated and at rest; waits for one at most LEASE_WAIT_MS. Rejects with `DATABASE_UNAVAILABLE`.
   * A query on it rejects after two seconds unless it brings its own `query_timeout`. Give it back with `release()`, or with `discard`.
   */
  connect(): Promise<PoolClient>;
  /** Ends a connection that was checked out, whatever it is doing, and frees its place once the server has let go or 755 ms have passed. Never rejects. */
  discard(client: PoolClient): Promise<void>;
  /** Connections checked out or idle, those idle, and callers of `connect` that wait. */
  readonly stats: { readonly total: number; readonly idle: number; readonly waiting: number };
  /** Ends all connections within a second, also those checked out; one that is just being opened ends when it arrives. May be called again. Never rejects. */
  close(): Promise<void>;
}

/** What pg has and its types leave out. */
interface ClientInternals { readonly processID: number; readonly secretKey: number; readonly sslNegotiation: string }
interface ConnectionInternals { connect(port: number | string, host?: string): void; requestSsl(): void; cancel(processId: number, secretKey: number): void }

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
  const shared = new Pool({ ...config, max: poolMax }, pg.Client);
  // Apart, so that a health check tells how the database is and not how busy the plugins are. Both halves of its time end in an error.
  const own = new Pool({ ...config, max: 1, connectionTimeoutMillis: DATABASE_PING_TIMEOUT_MS / 2, query_timeout: DATABASE_PING_TIMEOUT_MS / 2 }, pg.Client);
  const sockets = new Set<Socket>();
  let outage = false;
  let closed = false;
  let pinging: Promise<void> | null = null;

  const lost = (error: unknown, what: string): BulkheadError => {
    const unavailable = databaseUnavailable(error);
    if (!outage && !closed && !isPoolTimeout(error)) {
      outage = true;
      log.warn({ reason: reasonOf(error) }, what);
    }
    return unavailable;
  };

  for (const pool of [shared, own]) {
    pool.on('connect', (client) => {
      // pg throws the loss of a connection at the process when nobody listens, and between two owners nobody does.
      client.on('error', () => {});
      const socket = socketOf(client);
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
      if (!outage) return;
      outage = false;
      log.info('the database is back');
    });
    // An idle connection was lost; the pool has removed it. Each of them reports the same outage.
    pool.on('error', (error) => void lost(error, 'a connection to the database was lost'));
  }

  return {
    ping() {
      pinging ??= own.query('SELECT 1')
        .then(() => {}, (error: unknown) => { throw lost(error, 'the database does not answer'); })
        .finally(() => { pinging = null; });
      return pinging;
    },
    async connect() {
      try {
        return await shared.connect();
      } catch (error) {
        throw lost(error, 'the database cannot be reached');
      }
    },
    async discard(client) {
      await hangUp(client);
      client.release(true);
    },
    get stats() {
      return { total: shared.totalCount, idle: shared.idleCount, waiting: shared.waitingCount };
    },
    async close() {
      closed = true;
      for (const pool of [shared, own]) void pool.end().catch(() => {});
      await Promise.all([...sockets].map((socket) => closesWithin(socket, DATABASE_CLOSE_TIMEOUT_MS)));
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** The socket of an authenticated client, encrypted where the connection is. */
export function socketOf(client: PoolClient): Socket {
  return client.connection.stream as Socket;
}

/** Number of the client's server process. */
export function processIdOf(client: PoolClient): number {
  return (client as unknown as ClientInternals).processID;
}

/** What a plugin or an operator hears of a failed connection; the error's own text, never the URL. */
export function databaseUnavailable(error: unknown): BulkheadError {
  return error instanceof BulkheadError ? error : new BulkheadError('DATABASE_UNAVAILABLE', { reason: reasonOf(error) }, { cause: error });
}

/** pg-pool's words when no place in the pool became free; its other timeout is that of a new connection. */
function isPoolTimeout(error: unknown): boolean {
  return error instanceof Error && error.message === 'timeout exceeded when trying to connect';
}

function reasonOf(error: unknown): string {
  if (isPoolTimeout(error)) return `no connection became free within ${LEASE_WAIT_MS} ms`;
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

/**
 * Ends our side of the connection and cancels whatever the server still does on it until the server ends its side as well.
 * A closed socket alone does not stop a statement, and one cancel request may come before the statement that it is meant for.
 */
async function hangUp(client: PoolClient): Promise<void> {
  const socket = socketOf(client);
  socket.removeAllListeners('data');
  // A server that cannot get rid of its rows does not hear us either.
  socket.resume();
  socket.end();
  for (const ms of DATABASE_HANG_UP_WAITS_MS) {
    if (await closesWithin(socket, ms)) return;
    sendCancel(client);
  }
  socket.destroy();
}

function closesWithin(socket: Socket, ms: number): Promise<boolean> {
  if (socket.closed) return Promise.resolve(true);
  return new Promise((resolve) => {
    const onClose = (): void => {
      clearTimeout(timer);
      resolve(true);
    };
    const timer = setTimeout(() => {
      socket.off('close', onClose);
      resolve(false);
    }, ms);
    socket.once('close', onClose);
  });
}

/** Asks the server, over a connection of its own, to cancel what this client is running. */
function sendCancel(client: PoolClient): void {
  const { processID, secretKey, sslNegotiation } = client as unknown as ClientInternals;
  const { host, port, ssl } = client;
  const connection = new pg.Connection({ ssl, sslNegotiation } as object) as pg.Connection & ConnectionInternals;
  const timer = setTimeout(() => connection.stream.destroy(), DATABASE_CANCEL_TIMEOUT_MS);
  const cancel = (): void => connection.cancel(processID, secretKey);
  connection.on('error', () => {});
  connection.once('end', () => clearTimeout(timer));
  if (!ssl) connection.once('connect', cancel);
  else if (sslNegotiation !== 'direct') connection.once('connect', () => connection.requestSsl());
  connection.once('sslconnect', cancel);
  if (host.startsWith('/')) connection.connect(`${host}/.s.PGSQL.${port}`);
  else connection.connect(port, host);
}
