// One accepted HTTP request and its exactly one answer, over real sockets on one side and frames on the other. Must not know plugins' states or who else is in flight.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { TLSSocket } from 'node:tls';
import { BulkheadError } from '../../protocol/errors.js';
import { ownedBytes, ReceiveWindow, SendWindow } from '../../protocol/flow.js';
import type { ChunkFrame, EndFrame, HintsFrame, KernelToHostFrame, RequestFrame, ResponseFrame } from '../../protocol/frames.js';
import { BODY_INLINE_MAX_BYTES, EARLY_HINTS_MAX } from '../../protocol/limits.js';
import { answerError } from './answers.js';
import { pairs, readHead, readHints } from './head.js';

export type SendFrame = (frame: KernelToHostFrame, transfer?: readonly ArrayBuffer[]) => void;

const NO_BYTES = new Uint8Array();

/** Where a request goes: what the gateway found out about its path. */
export interface Target {
  readonly plugin: string;
  readonly mount: string;
  /** Path and query below the mount. */
  readonly url: string;
  readonly bodyLimitBytes: number;
}

export class Exchange {
  readonly requestId: string;
  readonly target: Target;
  readonly #req: IncomingMessage;
  readonly #res: ServerResponse;
  readonly #upload = new SendWindow();
  readonly #download = new ReceiveWindow();
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

  /** In milliseconds of `performance.now()`; 0 until it is admitted. */
  deadline = 0;
  /** Generations that have died with this request begun. */
  interruptions = 0;
  /** Those of them in which it was the last one begun. */
  kills = 0;

  /** Called once, when the answer is complete, refused, or nobody is left to read it. */
  onOver: ((exchange: Exchange) => void) | null = null;

  constructor(req: IncomingMessage, res: ServerResponse, requestId: string, target: Target) {
    this.#req = req;
    this.#res = res;
    this.requestId = requestId;
    this.target = target;
    res.once('close', () => {
      if (!this.#over) this.#finish('the client went away');
    });
  }

  get over(): boolean {
    return this.#over;
  }

  /** Whether it can be sent to another generation as if nothing had been. */
  get repeatable(): boolean {
    return !this.#over && !this.answering && !this.#bodyLeft;
  }

  /** The number under which a host has it, or 0 while it waits. */
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

  async #readBody(declared: number): Promise<void> {
    const body = new Uint8Array(declared);
    let filled = 0;
    try {
      for await (const chunk of this.#req as AsyncIterable<Buffer>) {
        body.set(chunk, filled);
        filled += chunk.byteLength;
      }
    } catch {
      return; // the client went away; 'close' says so
    }
    this.#body = body;
  }

  /** Sends the request to a host under this number. */
  begin(id: number, send: SendFrame): void {
    this.#id = id;
    this.#send = send;
    const { socket } = this.#req;
    const frame: RequestFrame = {
      kind: 'request',
      id,
      method: this.method,
      url: this.target.url,
      originalUrl: this.originalUrl,
      mount: this.target.mount,
      httpVersion: this.#req.httpVersion,
      headers: this.#req.rawHeaders,
      body: this.#body,
      streams: this.#streams,
      requestId: this.requestId,
      remoteAddress: socket.remoteAddress ?? '',
      remotePort: socket.remotePort ?? 0,
      encrypted: (socket as TLSSocket).encrypted ?? false,
    };
    // The body is cloned and not moved: it may be needed again.
    send(frame);
    if (!this.#streams) return;
    if (this.#pumping) this.#req.resume();
    else this.#pump();
  }

  /** The host that had it is gone. */
  suspend(): void {
    this.#id = 0;
    this.#send = null;
    if (this.#pumping) this.#req.pause();
  }

  hint({ hints }: HintsFrame): void {
    if (this.#over || this.answering || (this.#hints += 1) > EARLY_HINTS_MAX) return;
    try {
      this.#res.writeEarlyHints(readHints(hints));
    } catch {
      // What is no hint is nothing that a client waits for.
    }
  }

  /** The host answers. */
  respond(frame: ResponseFrame): void {
    if (this.#over) return;
    const hasBody = this.#hasBody(frame.statusCode);
    const { headers, length } = readHead(frame.headers, this.requestId, hasBody && this.#req.httpVersion !== '1.0');
    this.#promisedBytes = hasBody ? length : null;
    // Without a final status the client would wait on; with a wrong length it would take the rest for its next answer.
    if (frame.statusCode < 200) return this.#refuseAnswer(`${frame.statusCode} is no final status`);
    if (!frame.streams && this.#promisedBytes !== null) {
      const bytes = frame.body === null ? 0 : Buffer.byteLength(frame.body);
      if (this.#promisedBytes !== bytes) return this.#refuseAnswer(`it promised ${this.#promisedBytes} bytes and gave ${bytes}`);
    }
    if (frame.dateless) this.#res.sendDate = false;
    try {
      if (frame.statusMessage === '') this.#res.writeHead(frame.statusCode, headers);
      else this.#res.writeHead(frame.statusCode, frame.statusMessage, headers);
    } catch (error) {
      return this.#refuseAnswer((error as Error).message);
    }
    if (frame.streams) {
      // The head goes at once, in its own encoding: that of `flushHeaders` is another.
      this.#res.write(NO_BYTES);
      return;
    }
    this.#res.end(frame.body ?? undefined);
    this.#finish(null);
  }

  receive(frame: ChunkFrame): void {
    if (this.#over) return;
    const { byteLength } = frame.data;
    this.#sentBytes += byteLength;
    if (this.#promisedBytes !== null && this.#sentBytes > this.#promisedBytes) return this.#refuseAnswer('it is longer than promised');
    // Credit follows what the client's socket has taken, so that a slow client does not fill the kernel.
    this.#res.write(frame.data, () => {
      const bytes = this.#download.consume(byteLength);
      if (bytes > 0 && !this.#over) this.#send?.({ kind: 'credit', id: this.#id, bytes });
    });
  }

  complete(frame: EndFrame): void {
    if (this.#over) return;
    if (this.#promisedBytes !== null && this.#sentBytes < this.#promisedBytes) return this.#refuseAnswer('it is shorter than promised');
    if (frame.trailers.length > 0) this.#res.addTrailers(pairs(frame.trailers));
    this.#res.end();
    this.#finish(null);
  }

  credit(bytes: number): void {
    this.#upload.grant(bytes);
  }

  /** Answers with an error instead of the host's answer, and tells the host that nobody waits any more. */
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

  /** Cuts the connection when the head has left already. */
  #refuseAnswer(reason: string): void {
    this.fail(new BulkheadError('PLUGIN_BAD_ANSWER', { name: this.target.plugin, reason }));
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
    this.#req.on('data', (chunk: Buffer) => {
      if (this.#over) return;
      received += chunk.byteLength;
      if (received > this.target.bodyLimitBytes) return this.#refuseBody();
      this.#bodyLeft = true;
      const data = ownedBytes(chunk);
      this.#send?.({ kind: 'chunk', id: this.#id, data }, [data.buffer]);
      if (this.#upload.take(data.byteLength)) return;
      this.#req.pause();
      this.#upload.whenOpen(() => this.#req.resume());
    });
    this.#req.once('end', () => {
      this.#bodyLeft = true;
      if (!this.#over) this.#send?.({ kind: 'end', id: this.#id, trailers: this.#req.rawTrailers });
    });
    this.#req.once('error', () => {}); // the client went away; 'close' of the response says so
  }
}
