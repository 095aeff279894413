// A connection that has left HTTP, inside the worker, in the shape of Node's net.Socket as far as servers of other protocols look at it. Must not know how frames arrive.
import { Duplex } from 'node:stream';
import { ReceiveWindow, SendWindow } from '../../protocol/flow.js';
import type { CancelFrame, ChunkFrame, CreditFrame, EndFrame, UpgradeFrame } from '../../protocol/frames.js';
import { sendChunks, type SendPiece } from './pieces.js';
import type { Task } from './task.js';

type SendBytes = (frame: ChunkFrame | EndFrame | CreditFrame | CancelFrame, transfer?: readonly ArrayBuffer[]) => void;
type Callback = (error?: Error | null) => void;

export class TunnelSocket extends Duplex {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly remoteFamily: string;
  readonly encrypted: boolean;
  /** Frames that are for a request find it here. */
  readonly req = this;
  /** What the handshake has set going, where that is followed; null once it is answered. */
  task: Task | null = null;
  timeout = 0;
  readonly #id: number;
  readonly #send: SendBytes;
  readonly #onClose: (id: number) => void;
  readonly #outgoing = new SendWindow();
  readonly #incoming = new ReceiveWindow();
  /** The kernel wants nothing more. */
  #over = false;
  #idle: NodeJS.Timeout | null = null;

  /** `onClose` is called once, when nothing more of the kernel's is of interest. */
  constructor({ id, remoteAddress, remotePort, encrypted }: UpgradeFrame, send: SendBytes, onClose: (id: number) => void) {
    super({ allowHalfOpen: true }); // as the sockets of Node's HTTP server
    this.remoteAddress = remoteAddress;
    this.remotePort = remotePort;
    this.remoteFamily = remoteAddress.includes(':') ? 'IPv6' : 'IPv4';
    this.encrypted = encrypted;
    this.#id = id;
    this.#send = send;
    this.#onClose = onClose;
  }

  /** Emits 'timeout' after so many milliseconds without a byte either way, which by itself ends nothing; 0 is none. */
  setTimeout(ms: number, callback?: () => void): this {
    if (this.#idle !== null) clearTimeout(this.#idle);
    this.#idle = ms > 0 && !this.destroyed ? setTimeout(() => this.emit('timeout'), ms).unref() : null;
    this.timeout = ms;
    if (callback === undefined) return this;
    return ms > 0 ? this.once('timeout', callback) : this.off('timeout', callback);
  }

  destroySoon(): void {
    if (this.writable) this.end();
    if (this.writableFinished) this.destroy();
    else this.once('finish', () => this.destroy());
  }

  // The real socket is the kernel's, which has set these as it needs them; a worker ends when it is told to.
  setNoDelay(): this { return this; }
  setKeepAlive(): this { return this; }
  ref(): this { return this; }
  unref(): this { return this; }

  override _read(): void {
    // Only what the plugin has asked for is credited: one that does not read does not fill the worker.
    const bytes = this.#incoming.release();
    if (bytes > 0 && !this.#over) this.#send({ kind: 'credit', id: this.#id, bytes });
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: Callback): void {
    sendChunks([chunk], this.#outgoing, this.#sendPiece, callback);
  }

  override _writev(chunks: readonly { readonly chunk: Buffer }[], callback: Callback): void {
    sendChunks(chunks.map(({ chunk }) => chunk), this.#outgoing, this.#sendPiece, callback);
  }

  override _final(callback: Callback): void {
    if (!this.#over) this.#send({ kind: 'end', id: this.#id, trailers: [] });
    callback();
  }

  override _destroy(error: Error | null, callback: Callback): void {
    // When both sides have ended, the kernel knows.
    if (!this.#over && !(this.readableEnded && this.writableFinished)) {
      this.#send({ kind: 'cancel', id: this.#id, reason: error?.message ?? 'its handler destroyed the connection' });
    }
    this.#over = true;
    this.setTimeout(0);
    this.#onClose(this.#id);
    callback(error);
  }

  receive(data: Uint8Array): void {
    if (this.destroyed) return;
    this.#idle?.refresh();
    this.#incoming.hold(data.byteLength);
    if (this.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength))) this._read();
  }

  /** The client has ended its side. */
  finish(): void {
    if (!this.destroyed) this.push(null);
  }

  /** The kernel has room for more. */
  grant(bytes: number): void {
    this.#outgoing.grant(bytes);
  }

  /** The client is gone, or the kernel has given the connection up. Neither is an error of the plugin. */
  abort(): void {
    this.#over = true;
    this.destroy();
  }

  readonly #sendPiece: SendPiece = (data, transfer) => {
    this.#idle?.refresh();
    if (!this.#over) this.#send({ kind: 'chunk', id: this.#id, data }, transfer);
    return !this.#over;
  };
}
