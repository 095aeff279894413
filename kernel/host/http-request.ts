// One request inside the worker, in the shape of Node's IncomingMessage as far as Fastify and its plugins look at it. Must not know how frames arrive.
import { EventEmitter } from 'node:events';
import { ReceiveWindow } from '../../protocol/flow.js';
import type { RequestFrame } from '../../protocol/frames.js';
import { isMade, LazyReadable } from './lazy-stream.js';

/** Of these a repetition is dropped, as in Node's own parser; other repetitions are joined. */
const FIRST_WINS: ReadonlySet<string> = new Set([
  'age', 'authorization', 'content-length', 'content-type', 'etag', 'expires', 'from', 'host', 'if-modified-since', 'if-unmodified-since',
  'last-modified', 'location', 'max-forwards', 'proxy-authorization', 'referer', 'retry-after', 'server', 'user-agent',
]);

type HeaderObject = Record<string, string | string[] | undefined>;

function headerObject(flat: readonly string[]): HeaderObject {
  const headers: HeaderObject = {};
  for (let i = 0; i + 1 < flat.length; i += 2) {
    const name = flat[i]!.toLowerCase();
    const value = flat[i + 1]!;
    const present = headers[name];
    if (name === 'set-cookie') {
      if (Array.isArray(present)) present.push(value);
      else headers[name] = [value];
    } else if (present === undefined) headers[name] = value;
    else if (!FIRST_WINS.has(name)) headers[name] = `${present as string}${name === 'cookie' ? '; ' : ', '}${value}`;
  }
  return headers;
}

/** What Fastify and proxies read of a connection; there is no real one in the worker. */
class HostSocket extends EventEmitter {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly encrypted: boolean;
  readonly #request: HostRequest;

  constructor(request: HostRequest, frame: RequestFrame) {
    super();
    this.#request = request;
    this.remoteAddress = frame.remoteAddress;
    this.remotePort = frame.remotePort;
    this.encrypted = frame.encrypted;
  }

  get destroyed(): boolean {
    return this.#request.destroyed;
  }

  destroy(error?: Error): this {
    this.#request.destroy(error);
    return this;
  }
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
  readonly trailers: Record<string, string> = {};
  readonly rawTrailers: readonly string[] = [];
  complete: boolean;
  aborted = false;
  readonly #frame: RequestFrame;
  readonly #sendCredit: (bytes: number) => void;
  readonly #window = new ReceiveWindow();
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
    return (this.#socket ??= new HostSocket(this, this.#frame));
  }

  get connection(): HostSocket {
    return this.socket;
  }

  get httpVersionMajor(): number {
    return Number(this.httpVersion.split('.')[0]);
  }

  get httpVersionMinor(): number {
    return Number(this.httpVersion.split('.')[1] ?? 0);
  }

  /** Whether the exchange was over before anybody used this as a stream. */
  get over(): boolean {
    return this.#over;
  }

  override destroy(error?: Error): this {
    if (isMade(this)) return super.destroy(error);
    this.#over = true;
    this.emit('close');
    return this;
  }

  setTimeout(): this {
    return this; // the kernel owns the deadline
  }

  override _read(): void {
    if (this.#frame.streams) {
      // Only what the handler has asked for is credited: a handler that does not read does not fill the worker.
      const credit = this.#window.release();
      if (credit > 0) this.#sendCredit(credit);
      return;
    }
    if (this.#frame.body !== null) this.push(Buffer.from(this.#frame.body.buffer, this.#frame.body.byteOffset, this.#frame.body.byteLength));
    this.push(null);
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    // As in Node: a client that goes away is no error of the plugin, and an unheard 'error' event would end the worker.
    callback(this.listenerCount('error') > 0 ? error : null);
  }

  /** A chunk of a streamed body arrived. */
  receive(data: Uint8Array): void {
    if (this.destroyed) return;
    this.#window.hold(data.byteLength);
    if (this.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength))) this._read();
  }

  /** A streamed body is complete. */
  finish(): void {
    this.complete = true;
    this.push(null);
  }

  /** The client went away or the deadline passed. */
  abort(): void {
    if (this.destroyed) return;
    this.aborted = true;
    this.emit('aborted');
    this.destroy();
  }
}
