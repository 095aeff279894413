// One answer inside the worker, in the shape of Node's ServerResponse as far as Fastify and its plugins look at it. Must not know how frames are sent.
import { STATUS_CODES, validateHeaderName, validateHeaderValue } from 'node:http';
import { ownedBytes, SendWindow } from '../../protocol/flow.js';
import type { CancelFrame, ChunkFrame, EndFrame, HintsFrame, ResponseFrame } from '../../protocol/frames.js';
import { BODY_INLINE_MAX_BYTES } from '../../protocol/limits.js';
import { flatHeaders, flatTrailers, headerPairs, hintsOf, statusCodeOf, type HeaderPair, type HeaderValue } from './http-head.js';
import type { HostRequest } from './http-request.js';
import { isMade, LazyWritable } from './lazy-stream.js';
import { sendChunks, type SendPiece } from './pieces.js';

export type AnswerFrame = HintsFrame | ResponseFrame | ChunkFrame | EndFrame | CancelFrame;
type SendAnswer = (frame: AnswerFrame, transfer?: readonly ArrayBuffer[]) => void;
type Callback = (error?: Error | null) => void;

export class HostResponse extends LazyWritable {
  statusCode = 200;
  statusMessage = '';
  sendDate = true;
  shouldKeepAlive = true;
  readonly req: HostRequest;
  readonly #send: SendAnswer;
  readonly #window = new SendWindow();
  readonly #headers = new Map<string, HeaderPair>();
  #trailers: string[] = [];
  /** No header can change any more, as after Node's `writeHead`. */
  #headFixed = false;
  /** The head has left for the kernel. */
  #headSent = false;
  /** Nothing more is sent. */
  #over = false;
  #answered = false;
  readonly #onClose: (id: number) => void;

  /** `onClose` is called once, when nothing more of the kernel's is of interest. */
  constructor(req: HostRequest, send: SendAnswer, onClose: (id: number) => void) {
    super();
    this.req = req;
    this.#send = send;
    this.#onClose = onClose;
    req.response = this;
  }

  /** Whether the answer left whole, before anybody used this as a stream. */
  get over(): boolean {
    return this.#answered;
  }

  get headersSent(): boolean {
    return this.#headFixed;
  }

  get finished(): boolean {
    return this.writableEnded;
  }

  get socket(): HostRequest['socket'] {
    return this.req.socket;
  }

  get connection(): HostRequest['socket'] {
    return this.req.socket;
  }

  setHeader(name: string, value: HeaderValue): this {
    this.#assertHeadersOpen('set');
    validateHeaderName(name);
    if (Array.isArray(value)) for (const one of value as readonly string[]) validateHeaderValue(name, one);
    else validateHeaderValue(name, value as string);
    this.#headers.set(name.toLowerCase(), [name, value]);
    return this;
  }

  setHeaders(headers: Map<string, HeaderValue> | Headers): this {
    const cookies: HeaderValue[] = []; // which a `Headers` gives one by one
    for (const [name, value] of headers) {
      if (name === 'set-cookie') cookies.push(value);
      else this.setHeader(name, value);
    }
    return cookies.length > 0 ? this.setHeader('set-cookie', cookies.flat().map(String)) : this;
  }

  appendHeader(name: string, value: HeaderValue): this {
    const present = this.getHeader(name);
    if (present === undefined) return this.setHeader(name, value);
    return this.setHeader(name, [present, value].flat().map(String));
  }

  getHeader(name: string): HeaderValue | undefined {
    return this.#headers.get(name.toLowerCase())?.[1];
  }

  getHeaders(): Record<string, HeaderValue> {
    const headers = Object.create(null) as Record<string, HeaderValue>;
    for (const [key, [, value]] of this.#headers) headers[key] = value;
    return headers;
  }

  getHeaderNames(): string[] {
    return [...this.#headers.keys()];
  }

  getRawHeaderNames(): string[] {
    return Array.from(this.#headers.values(), ([name]) => name);
  }

  hasHeader(name: string): boolean {
    return this.#headers.has(name.toLowerCase());
  }

  removeHeader(name: string): void {
    this.#assertHeadersOpen('remove');
    const key = name.toLowerCase();
    this.#headers.delete(key);
    if (key === 'date') this.sendDate = false;
  }

  writeHead(status: number, ...rest: readonly unknown[]): this {
    this.#assertHeadersOpen('write');
    const statusCode = statusCodeOf(status);
    const [first, second = typeof first === 'string' ? undefined : first] = rest;
    const headers = headerPairs(second);
    this.statusCode = statusCode;
    if (typeof first === 'string') this.statusMessage = first;
    if (Array.isArray(second)) {
      for (const [name] of headers) this.removeHeader(name);
      for (const [name, value] of headers) this.appendHeader(name, value);
    } else for (const [name, value] of headers) this.setHeader(name, value);
    this.#headFixed = true;
    return this;
  }

  addTrailers(trailers: Readonly<Record<string, HeaderValue>> | readonly HeaderPair[]): void {
    this.#trailers = flatTrailers(trailers);
  }

  flushHeaders(): void {
    if (!this.#headSent) this.#sendHead(null, true);
  }

  writeContinue(callback?: () => void): void {
    callback?.(); // the kernel's HTTP server has answered `Expect` already
  }

  writeProcessing(): void {} // a sign of life, which nobody has to act on

  writeEarlyHints(hints: Readonly<Record<string, unknown>>, callback?: () => void): void {
    if (!this.#headSent && !this.#over) this.#send({ kind: 'hints', id: this.req.id, hints: hintsOf(hints) });
    if (callback !== undefined) process.nextTick(callback);
  }

  setTimeout(ms: number, callback?: () => void): this {
    if (callback !== undefined) this.on('timeout', callback);
    this.socket.setTimeout(ms);
    return this;
  }

  override end(chunk?: unknown, encoding?: unknown, callback?: unknown): this {
    if (typeof chunk === 'function') return this.end(null, null, chunk);
    if (typeof encoding === 'function') return this.end(chunk, null, encoding);
    const whole = typeof chunk === 'string' && encoding != null && !/^utf-?8$/i.test(encoding as string) ? Buffer.from(chunk, encoding as BufferEncoding) : (chunk as string | Uint8Array | null | undefined) ?? null;
    if (!this.#headFixed) this.#promise(whole);
    if (typeof callback === 'function') this.once('finish', callback as () => void);
    const small = whole === null || (typeof whole === 'string' ? whole.length : whole.byteLength) <= BODY_INLINE_MAX_BYTES;
    if (small && !this.#headSent && !this.#over && this.#trailers.length === 0 && !isMade(this)) return this.#answer(whole);
    return super.end(whole ?? undefined);
  }

  /** As Node: an answer that is given whole before its head has a length. */
  #promise(whole: string | Uint8Array | null): void {
    if (this.req.method === 'HEAD' || this.req.httpVersion === '1.0' || this.statusCode === 204 || this.statusCode === 304) return;
    if (['content-length', 'transfer-encoding', 'trailer'].some((name) => this.#headers.has(name))) return;
    this.#headers.set('content-length', ['Content-Length', whole === null ? 0 : Buffer.byteLength(whole)]);
  }

  /** The usual answer: head and body leave as one frame, past the machinery of streams. */
  #answer(whole: string | Uint8Array | null): this {
    this.#sendHead(this.req.method === 'HEAD' ? null : whole, false);
    if (this.#over) return this; // it could not be sent
    this.#answered = true;
    this.#over = true;
    this.#onClose(this.req.id);
    process.nextTick(() => {
      this.emit('finish');
      this.req.destroy();
      this.emit('close');
    });
    return this;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: Callback): void {
    this._writev([{ chunk }], callback);
  }

  override _writev(chunks: readonly { readonly chunk: Buffer }[], callback: Callback): void {
    if (!this.#headSent) this.#sendHead(null, true);
    if (this.req.method === 'HEAD') return callback();
    sendChunks(chunks.map(({ chunk }) => chunk), this.#window, this.#sendPiece, callback);
  }

  override _final(callback: Callback): void {
    if (this.#trailers.length > 0 && !this.#headSent) this.#sendHead(null, true);
    if (this.#headSent) this.#send({ kind: 'end', id: this.req.id, trailers: this.#trailers });
    else this.#sendHead(null, false);
    this.#over = true;
    callback();
  }

  override _destroy(error: Error | null, callback: Callback): void {
    if (!this.#over) {
      this.#over = true;
      this.#send({ kind: 'cancel', id: this.req.id, reason: error?.message ?? 'the handler destroyed its answer' });
    }
    this.#onClose(this.req.id);
    this.req.destroy();
    // As in the request.
    callback(this.listenerCount('error') > 0 ? error : null);
  }

  /** The receiver has room for more. */
  grant(bytes: number): void {
    this.#window.grant(bytes);
  }

  /** The kernel has given the exchange up: nothing more is sent. */
  abort(reason: string): void {
    this.#over = true;
    this.req.abort();
    this.destroy();
    if (reason === 'PLUGIN_TIMEOUT') this.req.expire();
  }

  readonly #sendPiece: SendPiece = (data, transfer) => {
    if (this.#over) return false;
    this.#send({ kind: 'chunk', id: this.req.id, data }, transfer);
    this.req.refresh();
    return true;
  };

  #sendHead(body: string | Uint8Array | null, streams: boolean): void {
    const headers = flatHeaders(this.#headers.values());
    if (!this.shouldKeepAlive && !this.#headers.has('connection')) headers.push('Connection', 'close');
    const { statusCode, statusMessage } = this;
    if (typeof statusMessage !== 'string') return void this.destroy(new TypeError('its status text is no text'));
    const frame = { kind: 'response', id: this.req.id, statusCode: Number(statusCode), statusMessage, headers, streams, dateless: !this.sendDate } as const;
    this.#headFixed = this.#headSent = true;
    if (streams) this.req.task?.freeOfDeadline();
    if (body instanceof Uint8Array) {
      const data = ownedBytes(body);
      this.#send({ ...frame, body: data }, [data.buffer]);
    } else this.#send({ ...frame, body });
    if (statusMessage === '') this.statusMessage = STATUS_CODES[statusCode] ?? '';
  }

  #assertHeadersOpen(action: string): void {
    if (this.#headFixed) {
      throw Object.assign(new Error(`Cannot ${action} headers after they are sent to the client`), { code: 'ERR_HTTP_HEADERS_SENT' });
    }
  }
}
