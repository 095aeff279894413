// One accepted HTTP request and its exactly one answer, over real sockets on one side and frames on the other. Must not know plugins' states or who else is in flight.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { BulkheadError } from '../../protocol/errors.js';
import type { ChunkFrame, EndFrame, FlatHeaders, HintsFrame, ResponseFrame } from '../../protocol/frames.js';
import { EARLY_HINTS_MAX } from '../../protocol/limits.js';
import { review, type Inspectable, type Review } from '../intercept/inspection.js';
import { marked, type Passage } from '../intercept/interceptors.js';
import { answerError, answerInstead, type InterceptorsAnswer } from './answers.js';
import { pairs, readHead, readHints, writeHead } from './head.js';
import { isIdempotent, requestFrame, type OpenRequest, type SendFrame, type Target } from './open-request.js';
import { Delivery } from './relay.js';
import { Upload } from './upload.js';

const NO_BYTES = new Uint8Array();

export class Exchange implements OpenRequest, Inspectable {
  readonly requestId: string;
  readonly target: Target;
  readonly #req: IncomingMessage;
  readonly #res: ServerResponse;
  readonly #passage: Passage | null;
  readonly #upload: Upload;
  readonly #download: Delivery;
  /** An answer whose head interceptors are asked about, and the end of its body, if that has come. */
  #reviewed: { readonly review: Review; end: EndFrame | null } | null = null;
  /** The length that the answer's head promises, or null; and what has been sent of it. */
  #promisedBytes: number | null = null;
  #sentBytes = 0;
  #over = false;
  #hints = 0;
  #id = 0;
  #send: SendFrame | null = null;

  headers: FlatHeaders;
  deadline = 0;
  interruptions = 0;
  kills = 0;
  /** Called when the answer is complete, refused, or nobody is left to read it. */
  onOver: ((request: OpenRequest) => void) | null = null;

  constructor(req: IncomingMessage, res: ServerResponse, requestId: string, target: Target, passage: Passage | null = null) {
    this.#req = req;
    this.headers = req.rawHeaders;
    this.#passage = passage;
    this.#res = res;
    this.requestId = requestId;
    this.target = target;
    this.#upload = new Upload(req, target.bodyLimitBytes, this, () => this.#refuseBody());
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
    return !this.#over && !this.answering && !this.#upload.left;
  }

  get idempotent(): boolean {
    return isIdempotent(this.method);
  }

  get lasting(): boolean {
    return false;
  }

  get id(): number {
    return this.#id;
  }

  /** For its host: it does so also while interceptors are asked about the head. */
  get answering(): boolean {
    return this.#res.headersSent || this.#reviewed !== null;
  }

  get send(): SendFrame | null {
    return this.#send;
  }

  get method(): string {
    return this.#req.method ?? 'GET';
  }

  get originalUrl(): string {
    return this.#req.url ?? '/';
  }

  get remoteAddress(): string {
    return this.#req.socket.remoteAddress ?? '';
  }

  /** Reads a small body whole. Null when there is nothing to wait for. */
  prepare(): Promise<void> | null {
    return this.#upload.prepare();
  }

  begin(id: number, send: SendFrame): void {
    this.#id = id;
    this.#send = send;
    // The body is cloned and not moved: it may be needed again.
    send(requestFrame(id, this.#req, this.requestId, this.deadline, this.target, this.headers, this.#upload.body, this.#upload.streams));
    this.#upload.begin();
  }

  suspend(): void {
    this.#id = 0;
    this.#send = null;
    this.#upload.suspend();
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
      if (this.#reviewed !== null) throw new TypeError('it has two heads');
      const { headers, length } = readHead(frame.headers, this.requestId, status, hasBody && this.#req.httpVersion !== '1.0');
      this.#promisedBytes = hasBody ? length : null;
      // Without a final status the client would wait on; with a wrong length it would take the rest for its next answer.
      if (status < 200) return this.giveUp(`${status} is no final status`);
      if (!frame.streams && this.#promisedBytes !== null) {
        const bytes = frame.body === null ? 0 : Buffer.byteLength(frame.body);
        if (this.#promisedBytes !== bytes) return this.giveUp(`it promised ${this.#promisedBytes} bytes and gave ${bytes}`);
      }
      if (this.#passage?.reviewed) return this.#review(frame, status, headers);
      writeHead(this.#res, frame, status, this.#passage === null ? headers : marked(headers, this.#passage));
    } catch (error) {
      return this.giveUp((error as Error).message);
    }
    this.#writeBody(frame);
  }

  /** Lets interceptors see the head; meanwhile the body waits. */
  #review(frame: ResponseFrame, status: number, headers: FlatHeaders): void {
    this.#reviewed = { review: review(this, this.#passage!, status, headers), end: null };
    // All of it is here: its host has nothing more to do with it, and may end.
    if (!frame.streams) this.#release();
    void this.#reviewed.review.verdict.then((verdict) => {
      if (this.#over) return;
      if ('error' in verdict) return this.fail(verdict.error);
      const { end } = this.#reviewed!;
      this.#reviewed = null;
      try {
        writeHead(this.#res, frame, status, verdict.headers);
      } catch (error) {
        return this.giveUp((error as Error).message);
      }
      this.#writeBody(frame);
      this.#download.release();
      if (end !== null) this.complete(end);
    });
  }

  #writeBody(frame: ResponseFrame): void {
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
    this.#download[this.#reviewed === null ? 'write' : 'hold'](data);
    return true;
  }

  complete(frame: EndFrame): void {
    if (this.#over) return;
    if (!this.answering) throw new TypeError('its head is missing');
    if (this.#promisedBytes !== null && this.#sentBytes < this.#promisedBytes) return this.giveUp('it is shorter than promised');
    if (this.#reviewed !== null) {
      this.#reviewed.end = frame;
      return this.#release();
    }
    if (frame.trailers.length > 0) this.#res.addTrailers(pairs(frame.trailers));
    this.#res.end();
    this.#finish(null);
  }

  credit(bytes: number): void {
    this.#upload.credit(bytes);
  }

  /** Cuts the connection when the head has left already. */
  giveUp(reason: string): void {
    this.fail(new BulkheadError('PLUGIN_BAD_ANSWER', { name: this.target.plugin, reason }));
  }

  fail(error: BulkheadError): void {
    if (this.#over) return;
    answerError(this.#res, error, this.requestId, this.#passage?.marks);
    this.#finish(error.code);
  }

  answer(answer: InterceptorsAnswer): void {
    answerInstead(this.#res, answer, this.requestId, this.#passage?.marks);
    this.#finish(null);
  }

  #finish(cancel: string | null): void {
    this.#over = true;
    this.#reviewed?.review.cancel(cancel ?? 'it has been answered');
    this.#download.discard();
    this.#upload.discard();
    if (cancel !== null) this.#send?.({ kind: 'cancel', id: this.#id, reason: cancel });
    this.onOver?.(this);
  }

  /** Its host is done, whatever becomes of what it has given. */
  #release(): void {
    this.onOver?.(this);
    this.onOver = null;
    this.#send = null;
  }

  #hasBody(statusCode: number): boolean {
    return this.method !== 'HEAD' && statusCode !== 204 && statusCode !== 304;
  }

  #refuseBody(): void {
    if (!this.answering) this.#res.setHeader('connection', 'close'); // the rest of the body is not worth reading
    this.fail(new BulkheadError('PAYLOAD_TOO_LARGE', { name: this.target.plugin, limitBytes: this.target.bodyLimitBytes }));
  }
}
