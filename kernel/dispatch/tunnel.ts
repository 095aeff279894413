// One request to leave HTTP, for WebSocket or any other protocol: once the plugin has switched, bytes both ways between the client's socket and a host until both sides have ended. Must not know what the bytes mean, or plugins' states.
import { ServerResponse, type IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { BulkheadError } from '../../protocol/errors.js';
import { movedBytes, ownedBytes, SendWindow } from '../../protocol/flow.js';
import type { ChunkFrame, FlatHeaders } from '../../protocol/frames.js';
import { KEEP_ALIVE_TIMEOUT_MS } from '../../protocol/limits.js';
import type { Inspectable } from '../intercept/inspection.js';
import { answerError, answerInstead, type InterceptorsAnswer } from './answers.js';
import { HandshakeAnswer } from './handshake.js';
import { requestFrame, type OpenRequest, type SendFrame, type Target } from './open-request.js';
import { Delivery, pump } from './relay.js';

export class Tunnel implements OpenRequest, Inspectable {
  readonly requestId: string;
  readonly target: Target;
  /** What a plugin has done before it answered is not known, and the client may have sent it more than a head. */
  readonly idempotent = false;
  readonly #req: IncomingMessage;
  readonly #socket: Socket;
  /** What came with the request's head. */
  readonly #head: Uint8Array;
  readonly #decline: () => void;
  readonly #upload = new SendWindow();
  readonly #download: Delivery;
  #id = 0;
  #send: SendFrame | null = null;
  #accepted = false;
  readonly #handshake = new HandshakeAnswer();
  #over = false;
  headers: FlatHeaders;
  deadline = 0;
  interruptions = 0;
  kills = 0;
  onOver: ((request: OpenRequest) => void) | null = null;

  /** Nothing is read of the socket, whose errors somebody else hears, before a host has accepted. `decline` is called when nobody there takes it: the socket is as it was then. */
  constructor(req: IncomingMessage, socket: Socket, head: Uint8Array, requestId: string, target: Target, decline: () => void) {
    this.#req = req;
    this.headers = req.rawHeaders;
    this.#socket = socket;
    this.#head = head;
    this.requestId = requestId;
    this.target = target;
    this.#decline = decline;
    this.#download = new Delivery(socket, (bytes) => {
      if (!this.#over) this.#send?.({ kind: 'credit', id: this.#id, bytes });
    });
    socket.once('close', this.#onClose);
  }

  get method(): string {
    return this.#req.method ?? 'GET';
  }

  get originalUrl(): string {
    return this.#req.url ?? '/';
  }

  get remoteAddress(): string {
    return this.#socket.remoteAddress ?? '';
  }

  get id(): number {
    return this.#id;
  }

  get over(): boolean {
    return this.#over;
  }

  get answering(): boolean {
    return this.#handshake.status !== 0;
  }

  get lasting(): boolean {
    return this.answering;
  }

  get repeatable(): boolean {
    return !this.#over && !this.#accepted;
  }

  begin(id: number, send: SendFrame): void {
    this.#id = id;
    this.#send = send;
    // Copied, because what came with the head is a view of all that was read at once.
    send({ ...requestFrame(id, this.#req, this.requestId, this.deadline, this.target, this.headers, ownedBytes(this.#head), true), kind: 'upgrade' });
  }

  suspend(): void {
    this.#id = 0;
    this.#send = null;
  }

  upgraded(accepted: boolean): void {
    if (this.#accepted) throw new TypeError('it has been accepted already');
    if (this.#over) return;
    this.#accepted = accepted;
    if (accepted) return this.#open();
    this.#finish(null);
    this.#socket.off('close', this.#onClose);
    this.#decline();
  }

  hint(): never {
    throw new TypeError('the hints of a tunnel are among its bytes');
  }

  respond(): never {
    throw new TypeError('the answer of a tunnel is among its bytes');
  }

  receive({ data }: ChunkFrame): boolean {
    if (this.#over) return false;
    if (!this.#accepted || this.#socket.writableEnded) throw new TypeError('no bytes were to come');
    const answer = this.answering ? data : this.#readAnswer(data);
    if (answer === null) return false;
    this.#download.write(data, answer);
    return true;
  }

  complete(): void {
    if (this.#over) return;
    if (this.#handshake.switches) this.#socket.end(); // the client may have more to say
    else if (this.answering) this.#conclude();
    else this.giveUp('it ended the connection without an answer');
  }

  credit(bytes: number): void {
    this.#upload.grant(bytes);
  }

  giveUp(reason: string): void {
    if (this.#over) return;
    if (!this.answering) return this.fail(new BulkheadError('PLUGIN_BAD_ANSWER', { name: this.target.plugin, reason }));
    this.#conclude();
  }

  fail(error: BulkheadError): void {
    if (this.#over) return;
    if (this.answering) this.#socket.destroy();
    else {
      answerError(this.#response(), error, this.requestId);
      this.#close();
    }
    this.#finish(error.code);
  }

  /** Before any host has it. */
  answer(answer: InterceptorsAnswer): void {
    answerInstead(this.#response(), answer, this.requestId);
    this.#conclude();
  }

  #response(): ServerResponse {
    const res = new ServerResponse(this.#req);
    res.shouldKeepAlive = false;
    res.assignSocket(this.#socket);
    return res;
  }

  #open(): void {
    this.#socket.setTimeout(0); // the server's, between two requests
    // It may be silent for hours, and a client that has vanished without a word is silent as well.
    this.#socket.setKeepAlive(true, KEEP_ALIVE_TIMEOUT_MS);
    const end = (): void => {
      if (!this.#over) this.#send?.({ kind: 'end', id: this.#id, trailers: [] });
    };
    // Node tells of the end also while nobody reads, when there is nothing before it.
    if (this.#socket.readableEnded) end();
    else this.#socket.once('end', end);
  }

  /** Until the plugin has switched, what the client says may still be HTTP, and is no business of the plugin's. Returns what the client is to get, or null when all is over. */
  #readAnswer(bytes: Uint8Array): Uint8Array | null {
    try {
      const answer = this.#handshake.read(bytes);
      if (this.#handshake.switches) this.#pump();
      else if (this.answering) this.#socket.resume();
      return answer;
    } catch (error) {
      this.giveUp((error as Error).message);
      return null;
    }
  }

  #pump(): void {
    pump(this.#socket, this.#upload, (chunk) => {
      if (this.#over) return false;
      const data = movedBytes(chunk);
      this.#send?.({ kind: 'chunk', id: this.#id, data }, [data.buffer]);
      return true;
    });
  }

  #conclude(): void {
    this.#finish(null);
    this.#close();
  }

  /** What has been written still leaves, unless the client does not take it. */
  #close(): void {
    this.#socket.setTimeout(KEEP_ALIVE_TIMEOUT_MS, () => this.#socket.destroy());
    this.#socket.destroySoon();
    // The client is told nothing while the system holds what it has sent and nobody reads it.
    this.#socket.resume();
  }

  readonly #onClose = (): void => {
    this.#download.close();
    if (this.#over) return;
    const { readableEnded, writableFinished } = this.#socket;
    // When both sides have ended, the host knows, and may still be reading.
    this.#finish(readableEnded && writableFinished ? null : 'the client went away');
  };

  #finish(cancel: string | null): void {
    this.#over = true;
    if (cancel !== null) this.#send?.({ kind: 'cancel', id: this.#id, reason: cancel });
    this.onOver?.(this);
  }
}
