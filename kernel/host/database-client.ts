// The plugin's database: a `pg.Pool` whose sockets are frames to the kernel. Must not know where the database is, nor any password.
import { once } from 'node:events';
import { Duplex } from 'node:stream';
import type { Pool } from 'pg';
import type { Logger } from 'pino';
import { ownedBytes, SendWindow, ReceiveWindow } from '../../protocol/flow.js';
import type {
  LeaseCreditFrame, LeaseDataFrame, LeaseEndedFrame, LeaseGrantedFrame, LeaseOpenFrame, LeaseRecallFrame, LeaseReturnFrame,
} from '../../protocol/frames.js';
import { createPool, type LentStream } from './database-pool.js';
import type { Tasks } from './task.js';

type SendLease = (frame: LeaseOpenFrame | LeaseDataFrame | LeaseCreditFrame | LeaseReturnFrame, transfer?: readonly ArrayBuffer[]) => void;
type Callback = (error?: Error | null) => void;

export interface LentPoolOptions {
  /** Sends a frame to the kernel; does nothing once the kernel's end is closed. */
  readonly send: SendLease;
  /** Most connections at one time; the same as the kernel's quota for this plugin. */
  readonly connections: number;
  /** Those of the plugin: whose statements end with them. */
  readonly tasks: Tasks;
  readonly log: Pick<Logger, 'debug'>;
}

export interface LentPool {
  /** Loads pg when it is first read: 35 ms and 3 MB that a plugin without a database need not pay. */
  readonly pool: Pool;
  handle(frame: LeaseGrantedFrame | LeaseDataFrame | LeaseCreditFrame | LeaseRecallFrame | LeaseEndedFrame): void;
  /** Gives all connections back, also those that the plugin still holds. Never rejects. */
  close(): Promise<void>;
}

export function createLentPool({ send, connections, tasks, log }: LentPoolOptions): LentPool {
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
      tasks.track();
      pool ??= createPool({ openSocket, connections, tasks, log });
      return pool;
    },
    handle(frame) {
      const socket = sockets.get(frame.lease);
      switch (frame.kind) {
        case 'lease-granted': return socket?.grant(frame.processId);
        case 'lease-data': return socket?.receive(frame.data);
        case 'lease-credit': return socket?.credit(frame.bytes);
        case 'lease-recall': return socket?.recall();
        case 'lease-ended': return socket?.lose(frame);
      }
    },
    async close() {
      // Its promise would wait for clients that the plugin never releases.
      void pool?.end().catch(() => {});
      await Promise.allSettled([...sockets.values()].map((socket) => once(socket.destroy(), 'close')));
    },
  };
}

/** What pg takes for its connection to the server. */
class LentSocket extends Duplex implements LentStream {
  recalled = false;
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

  recall(): void {
    this.recalled = true;
    this.emit('recalled');
  }

  lose({ error: { name, message, code, statusCode }, crowded = false }: LeaseEndedFrame): void {
    this.#over = true;
    this.destroy(Object.assign(new Error(message), { name, code, statusCode, crowded }));
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
