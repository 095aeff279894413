// The plugin's database: a real `pg.Pool` whose sockets are frames to the kernel. Must not know where the database is, nor any password.
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { Duplex } from 'node:stream';
import type { Pool, PoolClient } from 'pg';
import type { Logger } from 'pino';
import { BulkheadError, type PlainError } from '../../protocol/errors.js';
import { ownedBytes, SendWindow, ReceiveWindow } from '../../protocol/flow.js';
import type {
  LeaseCreditFrame, LeaseDataFrame, LeaseEndedFrame, LeaseGrantedFrame, LeaseOpenFrame, LeaseReturnFrame,
} from '../../protocol/frames.js';
import { LEASE_IDLE_MS, LEASE_POOL_WAIT_MS } from '../../protocol/database-limits.js';

type SendLease = (frame: LeaseOpenFrame | LeaseDataFrame | LeaseCreditFrame | LeaseReturnFrame, transfer?: readonly ArrayBuffer[]) => void;
type Callback = (error?: Error | null) => void;

export interface LentPoolOptions {
  /** Sends a frame to the kernel; does nothing once the kernel's end is closed. */
  readonly send: SendLease;
  /** Most connections at one time; the same as the kernel's quota for this plugin. */
  readonly connections: number;
  readonly log: Pick<Logger, 'debug'>;
}

export interface LentPool {
  /** Loads pg when it is first read: 35 ms and 3 MB that a plugin without a database need not pay. */
  readonly pool: Pool;
  handle(frame: LeaseGrantedFrame | LeaseDataFrame | LeaseCreditFrame | LeaseEndedFrame): void;
  /** Gives all connections back, also those that the plugin still holds. Never rejects. */
  close(): Promise<void>;
}

export function createLentPool({ send, connections, log }: LentPoolOptions): LentPool {
  const sockets = new Map<number, LentSocket>();
  let lastLease = 0;
  let pool: Pool | null = null;

  const openSocket = (): LentSocket => {
    const lease = ++lastLease;
    const socket = new LentSocket(lease, send);
    sockets.set(lease, socket);
    socket.once('close', () => sockets.delete(lease));
    return socket;
  };

  return {
    get pool() {
      pool ??= createPool(openSocket, connections, log);
      return pool;
    },
    handle(frame) {
      const socket = sockets.get(frame.lease);
      switch (frame.kind) {
        case 'lease-granted': return socket?.grant(frame.processId);
        case 'lease-data': return socket?.receive(frame.data);
        case 'lease-credit': return socket?.credit(frame.bytes);
        case 'lease-ended': return socket?.lose(frame.error);
      }
    },
    async close() {
      // Its promise would wait for clients that the plugin never releases.
      void pool?.end().catch(() => {});
      await Promise.allSettled([...sockets.values()].map((socket) => once(socket.destroy(), 'close')));
    },
  };
}

function createPool(openSocket: () => Duplex, connections: number, log: Pick<Logger, 'debug'>): Pool {
  // Synchronous, because `ctx.db` is; a host with nothing to do may import pg before, and this finds it loaded.
  const pg = createRequire(import.meta.url)('pg') as typeof import('pg');

  class LentClientPool extends pg.Pool {
    override connect(): Promise<PoolClient>;
    override connect(callback: (error: Error | undefined, client: PoolClient | undefined, done: (release?: unknown) => void) => void): void;
    override connect(callback?: (error: Error | undefined, client: PoolClient | undefined, done: (release?: unknown) => void) => void): Promise<PoolClient> | void {
      if (callback === undefined) return super.connect().catch((error: Error) => { throw explain(error, connections); });
      return super.connect((error, client, done) => callback(error && explain(error, connections), client, done));
    }
  }

  const pool = new LentClientPool({
    max: connections,
    idleTimeoutMillis: LEASE_IDLE_MS,
    connectionTimeoutMillis: LEASE_POOL_WAIT_MS,
    // Idle connections must not keep the worker alive.
    allowExitOnIdle: true,
    stream: openSocket,
    // The kernel has authenticated the connection already. What is not said here, pg would take from the environment.
    host: 'kernel', port: 5432, user: 'plugin', database: 'plugin', password: 'none', ssl: false, sslnegotiation: 'postgres',
  });
  pool.on('connect', (client) => {
    // A plugin in the middle of a transaction hears of a lost connection from its query; without a listener pg would end the worker.
    client.on('error', () => {});
    client.connection.prependListener('errorMessage', (error: { code?: string }) => noteShutdown(error, client));
  });
  // The kernel reports the outage, once.
  pool.on('error', (error) => log.debug({ reason: error.message }, 'an idle database connection was lost'));
  return pool;
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
  return reason === undefined ? error : new BulkheadError('DATABASE_UNAVAILABLE', { reason }, { cause: error });
}

/** What pg takes for its connection to the server. */
class LentSocket extends Duplex {
  readonly #lease: number;
  readonly #send: SendLease;
  readonly #window = new SendWindow();
  readonly #consumed = new ReceiveWindow();
  /** Bytes that pg has not yet taken; the kernel gets credit for them when it has. */
  #buffered = 0;
  #processId = 0;
  #greeted = false;
  /** The kernel holds nothing for us: never asked, or over. */
  #over = true;

  constructor(lease: number, send: SendLease) {
    super({ decodeStrings: true });
    this.#lease = lease;
    this.#send = send;
  }

  connect(): this {
    this.#over = false;
    this.#send({ kind: 'lease-open', lease: this.#lease });
    return this;
  }

  /** The kernel has lent the connection; pg answers by writing its startup packet. */
  grant(processId: number): void {
    this.#processId = processId;
    this.emit('connect');
  }

  receive(data: Uint8Array): void {
    this.#buffered += data.byteLength;
    // False when the plugin has paused the socket, as COPY streams do; then `_read` follows.
    if (this.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength))) this.#repay();
  }

  credit(bytes: number): void {
    this.#window.grant(bytes);
  }

  lose({ name, message, code, statusCode }: PlainError): void {
    this.#over = true;
    this.destroy(Object.assign(new Error(message), { name, code, statusCode }));
  }

  override _read(): void {
    this.#repay();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: Callback): void {
    if (this.#greeted) return this.#post(ownedBytes(chunk), callback);
    this.#greet();
    callback();
  }

  /** One query is several messages; they leave as one frame. */
  override _writev(chunks: readonly { readonly chunk: Buffer }[], callback: Callback): void {
    const rest = this.#greeted ? chunks : chunks.slice(1);
    if (!this.#greeted) this.#greet();
    const joined = new Uint8Array(rest.reduce((bytes, { chunk }) => bytes + chunk.byteLength, 0));
    let at = 0;
    for (const { chunk } of rest) {
      joined.set(chunk, at);
      at += chunk.byteLength;
    }
    this.#post(joined, callback);
  }

  override _final(callback: Callback): void {
    callback();
    this.destroy();
  }

  override _destroy(error: Error | null, callback: Callback): void {
    if (!this.#over) {
      this.#over = true;
      this.#send({ kind: 'lease-return', lease: this.#lease });
    }
    callback(error);
  }

  /** A lease has nothing that Node would wait for, nor options of TCP; pg sets them all the same. */
  setNoDelay(): this { return this; }
  setKeepAlive(): this { return this; }
  ref(): this { return this; }
  unref(): this { return this; }

  #post(data: Uint8Array<ArrayBuffer>, callback: Callback): void {
    const open = this.#window.take(data.byteLength);
    this.#send({ kind: 'lease-data', lease: this.#lease, data }, [data.buffer]);
    if (open) callback();
    else this.#window.whenOpen(callback);
  }

  #repay(): void {
    const bytes = this.#consumed.consume(this.#buffered);
    this.#buffered = 0;
    if (bytes > 0 && !this.#over) this.#send({ kind: 'lease-credit', lease: this.#lease, bytes });
  }

  /** Plays the server at the start of a connection: the first packet is pg's startup, and here is what it waits for. */
  #greet(): void {
    this.#greeted = true;
    const backendKeyData = Buffer.alloc(8);
    backendKeyData.writeInt32BE(this.#processId);
    this.push(Buffer.concat([
      message('R', Buffer.alloc(4)), // AuthenticationOk
      message('S', Buffer.from('client_encoding\0UTF8\0')), // ParameterStatus, as pg would have asked for
      message('K', backendKeyData), // without the key, which stays with the kernel
      message('Z', Buffer.from('I')), // ReadyForQuery
    ]));
  }
}

function message(type: string, body: Buffer): Buffer {
  const header = Buffer.from(`${type}\0\0\0\0`);
  header.writeInt32BE(4 + body.byteLength, 1);
  return Buffer.concat([header, body]);
}
