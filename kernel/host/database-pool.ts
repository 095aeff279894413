// The plugin's `pg.Pool`, as pg makes it, but that its errors say what to do, and that what runs on a connection ends with the task that asked for it. Must not know how bytes travel.
import { createRequire } from 'node:module';
import type { Duplex } from 'node:stream';
import type { Pool, PoolClient } from 'pg';
import type { Logger } from 'pino';
import { CROWDED_RETRY_MS, LEASE_IDLE_MS, LEASE_POOL_WAIT_MS } from '../../protocol/database-limits.js';
import { BulkheadError } from '../../protocol/errors.js';
import type { Task, Tasks } from './task.js';

/** Emits 'recalled' when the kernel wants the connection back. */
export interface LentStream extends Duplex {
  readonly recalled: boolean;
}

export interface DatabasePoolOptions {
  /** Makes what pg takes for its connection to the server. */
  readonly openSocket: () => LentStream;
  /** Most connections at one time. */
  readonly connections: number;
  readonly tasks: Tasks;
  readonly log: Pick<Logger, 'debug'>;
}

type Connected = (error: Error | undefined, client: PoolClient | undefined, done: (release?: unknown) => void) => void;
type Refusal = Error & { readonly crowded?: boolean };
type Answered = (error: Error | null, result?: object) => void;

const nothing = (): void => {};

/** Loads pg. */
export function createPool({ openSocket, connections, tasks, log }: DatabasePoolOptions): Pool {
  // Synchronous, because `ctx.db` is; a host with nothing to do may import pg before, and this finds it loaded.
  const pg = createRequire(import.meta.url)('pg') as typeof import('pg');

  class LentClient extends pg.Client {
    /** False while a statement runs. */
    declare readonly readyForQuery: boolean | undefined;
    /** Takes it away from the task that it has joined. */
    leave: () => void = nothing;
    #givenUp: Error | null = null;

    /** What runs on it when the task is cancelled is given up. */
    join(task: Task): void {
      this.leave = task.onCancel((error) => {
        // Between two statements it is left alone: a transaction is rolled back as usual, and who waits for a notification has perhaps been made for all requests.
        if (this.readyForQuery !== false) return;
        this.#givenUp = error;
        // The kernel gets back a connection that is not at rest, cancels what runs on it, and ends it. To keep it would mean that the cancellation, if late, could hit the next statement.
        this.connection.stream.destroy(error);
      });
    }

    override query(...args: unknown[]): never {
      const last = args.length - 1;
      if (typeof args[last] === 'function') args[last] = tasks.bind(args[last] as Answered);
      if (this.#givenUp !== null && !isSubmittable(args[0])) return answerFor(this.#givenUp, args) as never;
      return (super.query as (...args: unknown[]) => unknown).apply(this, args) as never;
    }
  }

  class LentClientPool extends pg.Pool {
    #expansion: NodeJS.Timeout | undefined;

    override connect(): Promise<PoolClient>;
    override connect(callback: Connected): void;
    override connect(callback?: Connected): Promise<PoolClient> | void {
      if (callback !== undefined) return this.#checkOut(tasks.bind(callback));
      return new Promise<PoolClient>((resolve, reject) => {
        this.#checkOut((error, client) => (client === undefined ? reject(error!) : resolve(client)));
      }).catch((error: Error) => {
        // As pg-pool does it: where a message from the kernel came in is of no use, who asked for the connection is.
        Error.captureStackTrace(error);
        throw error;
      });
    }

    /** Makes do with the connections that there are, for a while. */
    #contract(): void {
      this.options.max = Math.max(1, this.totalCount);
      clearTimeout(this.#expansion);
      this.#expansion = setTimeout(() => this.#expand(), CROWDED_RETRY_MS).unref();
    }

    /** Tries for a further one; who waits gets it. */
    #expand(): void {
      this.options.max = connections;
      if (this.waitingCount === 0) return;
      super.connect((error, client) => {
        client?.release();
        if ((error as Refusal | undefined)?.crowded === true) this.#contract();
      });
    }

    /** Until it is released, a client belongs to the task of who has asked for it. */
    #checkOut(answer: Connected, task = tasks.current): void {
      let waiting = true;
      const stay = task?.onCancel((error) => {
        waiting = false;
        process.nextTick(answer, error, undefined, nothing);
      });
      super.connect((error, client, done) => {
        stay?.();
        // There is no further connection for this plugin now: it waits for one that it has.
        if (waiting && (error as Refusal | undefined)?.crowded === true) {
          this.#contract();
          return this.#checkOut(answer, task);
        }
        // Nobody waits here any more: it is for the next one.
        if (!waiting) return client?.release();
        if (task !== undefined) (client as LentClient | undefined)?.join(task);
        answer(error && explain(error, connections), client, done);
      });
    }
  }

  const pool = new LentClientPool({
    Client: LentClient,
    max: connections,
    idleTimeoutMillis: LEASE_IDLE_MS,
    connectionTimeoutMillis: LEASE_POOL_WAIT_MS,
    // Idle connections must not keep the worker alive.
    allowExitOnIdle: true,
    stream: openSocket,
    // The kernel has authenticated the connection already. What is not said here, pg would take from the environment.
    host: 'kernel', port: 5432, user: 'plugin', database: 'plugin', password: 'none', ssl: false, sslnegotiation: 'postgres',
  });
  /** Those that nobody has checked out. */
  const idle = new WeakSet<PoolClient>();
  pool.on('acquire', (client) => idle.delete(client));
  pool.on('connect', (client) => {
    const socket = client.connection.stream as LentStream;
    socket.on('recalled', () => idle.has(client) && socket.destroy(new Error('the kernel has called it in')));
    // A plugin in the middle of a transaction hears of a lost connection from its query; without a listener pg would end the worker.
    client.on('error', nothing);
    client.connection.prependListener('errorMessage', (error: { code?: string }) => noteShutdown(error, client));
  });
  pool.on('release', (_error, client) => {
    (client as unknown as LentClient).leave();
    idle.add(client);
    // pg-pool lets go of a client that has been used for long enough.
    if ((client.connection.stream as LentStream).recalled) Object.assign(client, { _poolUseCount: Infinity });
  });
  // The kernel reports the outage, once.
  pool.on('error', (error) => log.debug({ reason: error.message }, 'an idle database connection was lost'));
  return pool;
}

/** A query that sends itself, such as a cursor; pg tells it that the connection is gone. */
function isSubmittable(query: unknown): boolean {
  return typeof (query as { submit?: unknown } | null)?.submit === 'function';
}

const ROLLBACK = /^\s*(rollback|abort)(\s+(work|transaction))?\s*;?\s*$/i;

/** Of a connection that was given up: the transaction is rolled back, as who asks for that may hear; all else fails for the same reason as what ran on it. */
function answerFor(error: Error, args: readonly unknown[]): Promise<object> | void {
  const [query] = args;
  const text = typeof query === 'string' ? query : (query as { text?: unknown } | null)?.text;
  const answer = ROLLBACK.test(String(text)) ? Promise.resolve({ command: 'ROLLBACK', rowCount: null, oid: null, rows: [], fields: [] }) : Promise.reject(error);
  const callback = args.at(-1);
  if (typeof callback !== 'function') return answer;
  void answer.then((result) => (callback as Answered)(null, result), callback as Answered);
}

/**
 * An error by which the server ends the connection (SQLSTATE 57P01 to 57P05) gets the status of an outage, so that a handler's
 * answer becomes a 503. The end itself follows a moment later, in which the pool would lend the connection once more.
 */
function noteShutdown(error: { code?: string; statusCode?: number }, client: PoolClient): void {
  if (error.code?.startsWith('57P') !== true) return;
  error.statusCode = 503;
  process.nextTick(() => client.connection.stream.destroy());
}

/** pg-pool's two timeouts, for a free connection and for a new one, by their texts; both know neither status nor cause. */
const POOL_TIMEOUTS: ReadonlyMap<string, (connections: number) => string> = new Map([
  ['timeout exceeded when trying to connect', (connections: number) => `the plugin's ${connections} connections were all busy for ${LEASE_POOL_WAIT_MS} ms`],
  ['Connection terminated due to connection timeout', () => `the kernel lent no connection within ${LEASE_POOL_WAIT_MS} ms`],
]);

/** Turns a timeout into an answer; leaves any other error as it is. */
function explain(error: Error, connections: number): Error {
  const reason = POOL_TIMEOUTS.get(error.message)?.(connections);
  return reason === undefined ? error : new BulkheadError('DATABASE_BUSY', { reason }, { cause: error });
}
