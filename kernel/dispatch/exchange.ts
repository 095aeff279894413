// One accepted HTTP request and its exactly one answer, over real sockets on one side and frames on the other. Must not know plugins' states or who else is in flight.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { BulkheadError } from '../../protocol/errors.js';
import { movedBytes, SendWindow } from '../../protocol/flow.js';
import type { ChunkFrame, EndFrame, HintsFrame, ResponseFrame } from '../../protocol/frames.js';
import { BODY_INLINE_MAX_BYTES, EARLY_HINTS_MAX } from '../../protocol/limits.js';
import { answerError } from './answers.js';
import { pairs, readHead, readHints } from './head.js';
import { requestFrame, type OpenRequest, type SendFrame, type Target } from './open-request.js';
import { Delivery, pump } from './relay.js';

/** RFC 9110, 9.2.2. */
const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'TRACE']);

const NO_BYTES = new Uint8Array();

export class Exchange implements OpenRequest {
  readonly requestId: string;
  readonly target: Target;
  readonly #req: IncomingMessage;
  readonly #res: ServerResponse;
  readonly #upload = new SendWindow();
  readonly #download: Delivery;
  #body: Uint8Array | null = null;
  #streams = false;
  /** The length that the answer's head promises, or null; and what has been sent of it. */
  #promisedBytes: number | null = null;
  #sentBytes = 0;
  #over = false;
  #hints = 0;
  #id = 0;
  #send: SendFrame | null = null;
  #pumping = false;
  /** Whether anything of a streamed body has left: it cannot be sent again. */
  #bodyLeft = false;

  deadline = 0;
  interruptions = 0;
  kills = 0;
  /** Called when the answer is complete, refused, or nobody is left to read it. */
  onOver: ((request: OpenRequest) => void) | null = null;

  constructor(req: IncomingMessage, res: ServerResponse, requestId: string, target: Target) {
    this.#req = req;
    this.#res = res;
    this.requestId = requestId;
    this.target = target;
    this.#download = new Delivery(res, (bytes) => {
      if (!this.#over) this.#send?.({ kind: 'credit', id: this.#id, bytes });
    });
    const closed = (): void => {
      this.#download.close();
      if (!this.#over) this.#finish('the client went away');
    };
    res.once('close', closed);
    // Of an answer that waits for those before it on its connection, Node does not say that it never gets there.
    if (res.socket === null) req.once('close', () => req.socket.destroyed && closed());
  }

  get over(): boolean {
    return this.#over;
  }

  get repeatable(): boolean {
    return !this.#over && !this.answering && !this.#bodyLeft;
  }

  get idempotent(): boolean {
    return IDEMPOTENT.has(this.method);
  }

  get lasting(): boolean {
    return false;
  }

  get id(): number {
    return this.#id;
  }

  get answering(): boolean {
    return this.#res.headersSent;
  }

  get method(): string {
    return this.#req.method ?? 'GET';
  }

  get originalUrl(): string {
    return this.#req.url ?? '/';
  }

  /** Reads a small body whole, so that it can travel with the request; leaves a large one for the stream. Null when there is nothing to wait for. */
  prepare(): Promise<void> | null {
    const { 'content-length': length, 'transfer-encoding': encoding } = this.#req.headers;
    const declared = Number(length ?? 0);
    if (declared > this.target.bodyLimitBytes) this.#refuseBody();
    else if (encoding !== undefined || declared > BODY_INLINE_MAX_BYTES) this.#streams = true;
    else if (declared > 0) return this.#readBody(declared);
    return null;
  }

  /** With events, because to iterate over a stream costs as much as all the rest of a small request. */
  #readBody(declared: number): Promise<void> {
    const body = new Uint8Array(declared);
    let filled = 0;
    return new Promise((resolve) => {
      this.#req.on('data', (chunk: Buffer) => {
        body.set(chunk, filled);
        filled += chunk.byteLength;
      });
      this.#req.once('end', () => {
        this.#body = body;
        resolve();
      });
      this.#req.once('close', resolve); // the client went away, which the answer hears as well
    });
  }

  begin(id: number, send: SendFrame): void {
    this.#id = id;
    this.#send = send;
    // The body is cloned and not moved: it may be needed again.
    send(requestFrame(id, this.#req, this.requestId, this.deadline, this.target, this.#body, this.#streams));
    if (!this.#streams) return;
    if (this.#pumping) this.#req.resume();
    else this.#pump();
  }

  suspend(): void {
    this.#id = 0;
    this.#send = null;
    if (this.#pumping) this.#req.pause();
  }

  upgraded(): never {
    throw new TypeError('this request has not asked for a tunnel');
  }

  hint({ hints }: HintsFrame): void {
    // HTTP/1.0 knows one answer to a request.
    if (this.#over || this.answering || this.#req.httpVersion === '1.0' || (this.#hints += 1) > EARLY_HINTS_MAX) return;
    try {
      this.#res.writeEarlyHints(readHints(hints));
    } catch {
      // What is no hint is nothing that a client waits for.
    }
  }

  respond(frame: ResponseFrame): void {
    if (this.#over) return;
    if (frame.body instanceof Uint8Array && !(frame.body.buffer instanceof ArrayBuffer)) throw new TypeError('its body could change');
    const status = frame.statusCode | 0; // as `writeHead` reads it
    const hasBody = this.#hasBody(status);
    try {
      const { headers, length } = readHead(frame.headers, this.requestId, status, hasBody && this.#req.httpVersion !== '1.0');
      this.#promisedBytes = hasBody ? length : null;
      // Without a final status the client would wait on; with a wrong length it would take the rest for its next answer.
      if (status < 200) return this.giveUp(`${status} is no final status`);
      if (!frame.streams && this.#promisedBytes !== null) {
        const bytes = frame.body === null ? 0 : Buffer.byteLength(frame.body);
        if (this.#promisedBytes !== bytes) return this.giveUp(`it promised ${this.#promisedBytes} bytes and gave ${bytes}`);
      }
      if (frame.dateless) this.#res.sendDate = false;
      if (frame.statusMessage === '') this.#res.writeHead(status, headers);
      else this.#res.writeHead(status, frame.statusMessage, headers);
    } catch (error) {
      return this.giveUp((error as Error).message);
    }
    if (frame.streams) {
      // The head goes at once, in its own encoding: that of `flushHeaders` is another.
      this.#res.write(NO_BYTES);
      return;
    }
    this.#res.end(frame.body ?? undefined);
    this.#finish(null);
  }

  receive({ data }: ChunkFrame): boolean {
    if (this.#over) return false;
    if (!this.answering) throw new TypeError('its head is missing');
    this.#sentBytes += data.byteLength;
    if (this.#promisedBytes !== null && this.#sentBytes > this.#promisedBytes) {
      this.giveUp('it is longer than promised');
      return false;
    }
    this.#download.write(data);
    return true;
  }

  complete(frame: EndFrame): void {
    if (this.#over) return;
    if (!this.answering) throw new TypeError('its head is missing');
    if (this.#promisedBytes !== null && this.#sentBytes < this.#promisedBytes) return this.giveUp('it is shorter than promised');
    if (frame.trailers.length > 0) this.#res.addTrailers(pairs(frame.trailers));
    this.#res.end();
    this.#finish(null);
  }

  credit(bytes: number): void {
    this.#upload.grant(bytes);
  }

  /** Cuts the connection when the head has left already. */
  giveUp(reason: string): void {
    this.fail(new BulkheadError('PLUGIN_BAD_ANSWER', { name: this.target.plugin, reason }));
  }

  fail(error: BulkheadError): void {
    if (this.#over) return;
    answerError(this.#res, error, this.requestId);
    this.#finish(error.code);
  }

  #finish(cancel: string | null): void {
    this.#over = true;
    // Nobody wants the rest of the body, but the client must get rid of it, or its connection stands still.
    if (this.#streams) this.#req.resume();
    if (cancel !== null) this.#send?.({ kind: 'cancel', id: this.#id, reason: cancel });
    this.onOver?.(this);
  }

  #hasBody(statusCode: number): boolean {
    return this.method !== 'HEAD' && statusCode !== 204 && statusCode !== 304;
  }

  #refuseBody(): void {
    if (!this.answering) this.#res.setHeader('connection', 'close'); // the rest of the body is not worth reading
    this.fail(new BulkheadError('PAYLOAD_TOO_LARGE', { name: this.target.plugin, limitBytes: this.target.bodyLimitBytes }));
  }

  #pump(): void {
    this.#pumping = true;
    let received = 0;
    pump(this.#req, this.#upload, (chunk) => {
      received += chunk.byteLength;
      if (!this.#over && received > this.target.bodyLimitBytes) this.#refuseBody();
      if (this.#over) return false;
      this.#bodyLeft = true;
      const data = movedBytes(chunk);
      this.#send?.({ kind: 'chunk', id: this.#id, data }, [data.buffer]);
      return true;
    });
    this.#req.once('end', () => {
      this.#bodyLeft = true;
      if (!this.#over) this.#send?.({ kind: 'end', id: this.#id, trailers: this.#req.rawTrailers });
    });
    this.#req.once('error', () => {}); // the client went away; 'close' of the response says so
  }
}
