// One request inside the worker, in the shape of Node's IncomingMessage as far as Fastify and its plugins look at it. Must not know how frames arrive.
import { ReceiveWindow } from '../../protocol/flow.js';
import type { FlatHeaders, RequestFrame } from '../../protocol/frames.js';
import { HostSocket } from './http-socket.js';
import { isMade, LazyReadable } from './lazy-stream.js';
import type { Task } from './task.js';

/** Of these a repetition is dropped, as in Node's own parser; other repetitions are joined. */
const FIRST_WINS: ReadonlySet<string> = new Set([
  'age', 'authorization', 'content-length', 'content-type', 'etag', 'expires', 'from', 'host', 'if-modified-since', 'if-unmodified-since',
  'last-modified', 'location', 'max-forwards', 'proxy-authorization', 'referer', 'retry-after', 'server', 'user-agent',
]);

export type HeaderObject = Record<string, string | string[] | undefined>;

export function headerObject(flat: readonly string[]): HeaderObject {
  const headers: HeaderObject = {};
  for (let i = 0; i + 1 < flat.length; i += 2) {
    const name = flat[i]!.toLowerCase();
    const value = flat[i + 1]!;
    const present = headers[name];
    if (name === 'set-cookie') {
      if (Array.isArray(present)) present.push(value);
      else headers[name] = [value];
    } else if (typeof present !== 'string') headers[name] = value; // also what every object has: a header may be called "constructor"
    else if (!FIRST_WINS.has(name)) headers[name] = `${present}${name === 'cookie' ? '; ' : ', '}${value}`;
  }
  return headers;
}

function distinct(flat: FlatHeaders): Record<string, string[]> {
  const lists = Object.create(null) as Record<string, string[]>;
  for (let i = 0; i + 1 < flat.length; i += 2) (lists[flat[i]!.toLowerCase()] ??= []).push(flat[i + 1]!);
  return lists;
}

/** What a request needs of its answer. */
export interface Answering {
  readonly destroyed: boolean;
  destroy(error?: Error): unknown;
  emit(event: 'timeout'): boolean;
}

export class HostRequest extends LazyReadable {
  readonly id: number;
  readonly requestId: string;
  readonly mount: string;
  readonly method: string;
  url: string;
  readonly originalUrl: string;
  readonly headers: HeaderObject;
  readonly rawHeaders: readonly string[];
  readonly httpVersion: string;
  /** As the client sent them after a body in chunks. */
  rawTrailers: FlatHeaders = [];
  complete: boolean;
  aborted = false;
  /** What handling it has set going, where that is followed. */
  task: Task | null = null;
  /** Set by the answer itself. */
  response: Answering | null = null;
  /** Its `socket` was taken away, so that it can be destroyed and answered. */
  #detached = false;
  readonly #frame: RequestFrame;
  readonly #sendCredit: (bytes: number) => void;
  readonly #window = new ReceiveWindow();
  /** Of a streamed body, what waits for its reader. */
  readonly #arrived: Uint8Array[] = [];
  /** Whether the reader has asked for more. */
  #wanted = false;
  #socket: HostSocket | null = null;
  #over = false;

  constructor(frame: RequestFrame, sendCredit: (bytes: number) => void) {
    super();
    this.id = frame.id;
    this.requestId = frame.requestId;
    this.mount = frame.mount;
    this.method = frame.method;
    this.url = frame.url;
    this.originalUrl = frame.originalUrl;
    this.rawHeaders = frame.headers;
    this.headers = headerObject(frame.headers);
    this.httpVersion = frame.httpVersion;
    this.complete = !frame.streams;
    this.#frame = frame;
    this.#sendCredit = sendCredit;
  }

  get socket(): HostSocket {
    return (this.#socket ??= new HostSocket(this.#frame, () => this.#silent(), (error) => void this.response?.destroy(error)));
  }

  set socket(_none: null) {
    this.#detached = true;
  }

  get connection(): HostSocket {
    return this.socket;
  }

  get trailers(): HeaderObject {
    return headerObject(this.rawTrailers);
  }

  get headersDistinct(): Record<string, string[]> {
    return distinct(this.rawHeaders);
  }

  get trailersDistinct(): Record<string, string[]> {
    return distinct(this.rawTrailers);
  }

  /** By this and the next Node's streams know a server's request: whoever stops reading one takes its `socket` away before destroying it. */
  get _consuming(): boolean {
    return false;
  }

  get _dumped(): boolean {
    return false;
  }

  get httpVersionMajor(): number {
    return Number(this.httpVersion[0]);
  }

  get httpVersionMinor(): number {
    return Number(this.httpVersion[2]);
  }

  /** Whether the exchange was over before anybody used this as a stream. */
  get over(): boolean {
    return this.#over;
  }

  override destroy(error?: Error): this {
    // A handler gives up a request that has not been answered: as in Node, that cuts the connection.
    if (!this.destroyed && this.response?.destroyed === false) {
      this.#noteAbort();
      if (!this.#detached) this.response.destroy(error);
    }
    return this.#close(error);
  }

  setTimeout(ms: number, callback?: () => void): this {
    if (callback !== undefined) this.on('timeout', callback);
    this.socket.setTimeout(ms);
    return this;
  }

  override _read(): void {
    if (this.#frame.streams) {
      // Only what the handler has asked for is credited: a handler that does not read does not fill the worker.
      const credit = this.#window.release();
      if (credit > 0) this.#sendCredit(credit);
      this.#wanted = true;
      // A reader that is given two chunks copies them into one.
      if (this.readableLength === 0) this.#supply();
      else process.nextTick(this.#supply);
      return;
    }
    if (this.#frame.body !== null) this.push(Buffer.from(this.#frame.body.buffer, this.#frame.body.byteOffset, this.#frame.body.byteLength));
    this.push(null);
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#socket?.close();
    // As in Node: a client that goes away is no error of the plugin, and an unheard 'error' event would end the worker.
    callback(this.listenerCount('error') > 0 ? error : null);
  }

  /** A chunk of a streamed body arrived. */
  receive(data: Uint8Array): void {
    if (this.destroyed) return;
    this.refresh();
    this.#arrived.push(data);
    this.#supply();
  }

  /** A streamed body is complete. */
  finish(trailers: FlatHeaders): void {
    this.rawTrailers = trailers;
    this.complete = true;
    this.#supply();
  }

  /** Bytes of the answer have left. */
  refresh(): void {
    this.#socket?.refresh();
  }

  /** The kernel's deadline has passed, for those who listen to their connection's. */
  expire(): void {
    this.#socket?.expire();
  }

  /** The client went away or the deadline passed. */
  abort(): void {
    if (this.destroyed) return;
    this.#noteAbort();
    // Who still waits for the body hears of it as in Node.
    this.#close(isMade(this) && !this.readableEnded ? Object.assign(new Error('aborted'), { code: 'ECONNRESET' }) : undefined);
  }

  /** Gives the reader one chunk, or the end, when it has asked for more. */
  readonly #supply = (): void => {
    if (!this.#wanted || this.destroyed) return;
    const data = this.#arrived.shift();
    if (data === undefined && !this.complete) return;
    this.#wanted = false;
    if (data === undefined) return void this.push(null);
    this.#window.hold(data.byteLength);
    this.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  };

  #close(error: Error | undefined): this {
    if (isMade(this)) return super.destroy(error);
    if (this.#over) return this;
    this.#over = true;
    this.#socket?.close();
    this.emit('close');
    return this;
  }

  #noteAbort(): void {
    this.aborted = true;
    // After 'error' and 'close': who waits for the end of a stream that does not close by itself takes this event for a premature one, and its cause would be lost.
    setImmediate(() => this.emit('aborted'));
  }

  /** As Node's server does: without anybody who takes care of it, the connection ends. */
  #silent(): void {
    const heard = (!this.complete && this.emit('timeout')) || this.response?.emit('timeout') === true;
    if (!heard) this.response?.destroy();
  }
}
