// One answer inside the worker, in the shape of Node's ServerResponse as far as Fastify and its plugins look at it. Must not know how frames are sent.
import { STATUS_CODES, validateHeaderName, validateHeaderValue } from 'node:http';
import { ownedBytes, SendWindow } from '../../protocol/flow.js';
import type { CancelFrame, ChunkFrame, EndFrame, ResponseFrame } from '../../protocol/frames.js';
import { BODY_INLINE_MAX_BYTES } from '../../protocol/limits.js';
import type { HostRequest } from './http-request.js';
import { isMade, LazyWritable } from './lazy-stream.js';
import { sendPieces } from './pieces.js';

export type AnswerFrame = ResponseFrame | ChunkFrame | EndFrame | CancelFrame;
type SendAnswer = (frame: AnswerFrame, transfer?: readonly ArrayBuffer[]) => void;
type HeaderValue = number | string | readonly string[];
type Callback = (error?: Error | null) => void;

export class HostResponse extends LazyWritable {
  statusCode = 200;
  statusMessage = '';
  sendDate = true;
  readonly req: HostRequest;
  readonly #send: SendAnswer;
  readonly #window = new SendWindow();
  readonly #headers = new Map<string, readonly [name: string, value: HeaderValue]>();
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
    for (const [name, value] of headers) this.appendHeader(name, value as string);
    return this;
  }

  appendHeader(name: string, value: string | readonly string[]): this {
    const present = this.getHeader(name);
    if (present === undefined) return this.setHeader(name, value);
    return this.setHeader(name, [...[present].flat().map(String), ...[value].flat()]);
  }

  getHeader(name: string): HeaderValue | undefined {
    return this.#headers.get(name.toLowerCase())?.[1];
  }

  getHeaders(): Record<string, HeaderValue> {
    return Object.fromEntries([...this.#headers].map(([key, [, value]]) => [key, value]));
  }

  getHeaderNames(): string[] {
    return [...this.#headers.keys()];
  }

  hasHeader(name: string): boolean {
    return this.#headers.has(name.toLowerCase());
  }

  removeHeader(name: string): void {
    this.#assertHeadersOpen('remove');
    this.#headers.delete(name.toLowerCase());
  }

  writeHead(statusCode: number, ...rest: readonly unknown[]): this {
    this.#assertHeadersOpen('write');
    if (!Number.isInteger(statusCode) || statusCode < 100 || statusCode > 999) {
      throw Object.assign(new RangeError(`Invalid status code: ${statusCode}`), { code: 'ERR_HTTP_INVALID_STATUS_CODE' });
    }
    const [first, second] = rest;
    this.statusCode = statusCode;
    if (typeof first === 'string') this.statusMessage = first;
    const headers = typeof first === 'string' ? second : first;
    if (Array.isArray(headers)) {
      for (let i = 0; i + 1 < headers.length; i += 2) this.appendHeader(headers[i] as string, headers[i + 1] as string);
    } else if (typeof headers === 'object' && headers !== null) {
      for (const [name, value] of Object.entries(headers as Record<string, HeaderValue | undefined>)) {
        if (value !== undefined) this.setHeader(name, value);
      }
    }
    this.#headFixed = true;
    return this;
  }

  addTrailers(trailers: Record<string, string> | readonly (readonly [string, string])[]): void {
    for (const [name, value] of Array.isArray(trailers) ? trailers : Object.entries(trailers)) {
      validateHeaderName(name);
      validateHeaderValue(name, value);
      this.#trailers.push(name, value);
    }
  }

  flushHeaders(): void {
    if (!this.#headSent) this.#sendHead(null, true);
  }

  writeContinue(): void {} // the kernel's HTTP server has answered `Expect` already

  writeEarlyHints(): void {} // hints, which nobody has to act on

  setTimeout(): this {
    return this; // the kernel owns the deadline
  }

  override end(chunk?: unknown, encoding?: unknown, callback?: unknown): this {
    const text = typeof chunk === 'string';
    const small = (text && chunk.length <= BODY_INLINE_MAX_BYTES && (encoding == null || encoding === 'utf8' || encoding === 'utf-8'))
      || (chunk instanceof Uint8Array && chunk.byteLength <= BODY_INLINE_MAX_BYTES);
    if (small && !this.#headSent && !this.#over && this.#trailers.length === 0 && !isMade(this)) return this.#answer(chunk as string | Uint8Array, callback as (() => void) | undefined);
    return super.end(chunk ?? undefined, (encoding ?? undefined) as BufferEncoding, (callback ?? undefined) as () => void);
  }

  /** The usual answer: head and body leave as one frame, past the machinery of streams. */
  #answer(whole: string | Uint8Array, callback: (() => void) | undefined): this {
    this.#answered = true;
    this.#over = true;
    this.#sendHead(this.req.method === 'HEAD' ? null : whole, false);
    this.#onClose(this.req.id);
    process.nextTick(() => {
      callback?.();
      this.emit('finish');
      this.req.destroy();
      this.emit('close');
    });
    return this;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: Callback): void {
    if (!this.#headSent) this.#sendHead(null, true);
    if (this.req.method === 'HEAD') return callback();
    sendPieces(chunk, this.#window, (piece) => this.#sendPiece(piece), callback);
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
  abort(): void {
    this.#over = true;
    this.req.abort();
    this.destroy();
  }

  #sendPiece(data: Uint8Array<ArrayBuffer>): boolean {
    if (!this.#over) this.#send({ kind: 'chunk', id: this.req.id, data }, [data.buffer]);
    return !this.#over;
  }

  #sendHead(body: string | Uint8Array | null, streams: boolean): void {
    const headers: string[] = [];
    for (const [name, value] of this.#headers.values()) {
      if (Array.isArray(value)) for (const one of value as readonly string[]) headers.push(name, one);
      else headers.push(name, String(value));
    }
    const { statusCode, statusMessage } = this;
    const frame = { kind: 'response', id: this.req.id, statusCode, statusMessage, headers, streams } as const;
    this.#headFixed = true;
    this.#headSent = true;
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
