// One HTTP/1.1 connection of a client that counts: it takes nothing for granted about what the server sends, unlike a library. Must not know what is asked.
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

export interface Question {
  readonly method: string;
  readonly path: string;
  /** Sent one after the other; several of them, or `chunked`, make a stream. */
  readonly body?: readonly Buffer[];
  readonly contentType?: string;
  /** Without a length. */
  readonly chunked?: boolean;
  /** The client loses its patience then and cuts the connection. */
  readonly leaveAfterMs?: number;
}

export interface Reply {
  /** How it ended: `whole` is an answer to the last byte; `cut` one that began; `none` not even a head; `left` is the client's own doing. */
  readonly end: 'whole' | 'cut' | 'none' | 'left' | 'silence';
  /** 0 without a head. */
  readonly status: number;
  readonly body: Buffer;
}

const CRLF = '\r\n';
const NOTHING = Buffer.alloc(0);
/** Beyond this an answer does not come any more. Under the deadline of a request, for which nothing here is slow enough. */
const SILENCE_MS = 20_000;

export class Connection {
  readonly #socket: Socket;
  readonly #host: string;
  readonly #onStray: (bytes: string) => void;
  #received = NOTHING;
  #settle: ((reply: Reply) => void) | null = null;

  /** `onStray` hears of bytes that answer nothing: an answer too many. */
  constructor(url: string, onStray: (bytes: string) => void) {
    const { hostname, port, host } = new URL(url);
    this.#host = host;
    this.#onStray = onStray;
    this.#socket = connect({ host: hostname, port: Number(port), noDelay: true });
    this.#socket.on('error', () => {}); // 'close' follows
    this.#socket.on('data', (data) => this.#receive(data));
    this.#socket.on('close', () => this.#end(null));
  }

  get usable(): boolean {
    return !this.#socket.destroyed && this.#socket.writable && this.#settle === null;
  }

  close(): void {
    this.#socket.destroy();
  }

  /** Sends one request and resolves with what came of it; never rejects. */
  async ask(question: Question): Promise<Reply> {
    const reply = new Promise<Reply>((resolve) => (this.#settle = resolve));
    const silence = setTimeout(() => this.#end('silence'), SILENCE_MS);
    const leave = question.leaveAfterMs === undefined ? undefined : setTimeout(() => this.#end('left'), question.leaveAfterMs);
    await this.#send(question);
    const result = await reply;
    clearTimeout(silence);
    clearTimeout(leave);
    return result;
  }

  async #send({ method, path, body = [], contentType = 'application/json', chunked = false }: Question): Promise<void> {
    const head = [`${method} ${path} HTTP/1.1`, `Host: ${this.#host}`];
    if (body.length > 0) head.push(`Content-Type: ${contentType}`, chunked ? 'Transfer-Encoding: chunked' : `Content-Length: ${body.reduce((sum, { byteLength }) => sum + byteLength, 0)}`);
    else if (method !== 'GET') head.push('Content-Length: 0');
    await this.#write(Buffer.from(`${head.join(CRLF)}${CRLF}${CRLF}`));
    for (const piece of body) await this.#write(chunked ? Buffer.concat([Buffer.from(piece.byteLength.toString(16) + CRLF), piece, Buffer.from(CRLF)]) : piece);
    if (chunked) await this.#write(Buffer.from(`0${CRLF}${CRLF}`));
  }

  async #write(bytes: Buffer): Promise<void> {
    if (this.#socket.destroyed || this.#socket.write(bytes)) return;
    await Promise.race([once(this.#socket, 'drain'), once(this.#socket, 'close')]).catch(() => {});
  }

  #receive(data: Buffer): void {
    if (this.#settle === null) return this.#onStray(data.toString('latin1', 0, 200));
    this.#received = Buffer.concat([this.#received, data]);
    const answer = readAnswer(this.#received);
    if (answer === null) return;
    const rest = this.#received.subarray(answer.bytes);
    this.#received = NOTHING;
    if (rest.byteLength > 0) this.#onStray(rest.toString('latin1', 0, 200));
    this.#finish({ end: 'whole', status: answer.status, body: answer.body });
    if (answer.last) this.close();
  }

  /** The connection is over, by the server when there is no reason. */
  #end(reason: 'silence' | 'left' | null): void {
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(this.#received.toString('latin1', 0, 16))?.[1] ?? 0);
    this.#finish({ end: reason ?? (status === 0 ? 'none' : 'cut'), status, body: this.#received });
    this.#socket.destroy();
  }

  #finish(reply: Reply): void {
    const settle = this.#settle;
    this.#settle = null;
    settle?.(reply);
  }
}

interface WholeAnswer {
  readonly status: number;
  readonly body: Buffer;
  /** Of all of it, head and body. */
  readonly bytes: number;
  /** Whether the server closes the connection after it. */
  readonly last: boolean;
}

/** The first answer in these bytes, or null while it is not whole. */
function readAnswer(received: Buffer): WholeAnswer | null {
  const headEnd = received.indexOf(`${CRLF}${CRLF}`);
  if (headEnd === -1) return null;
  const head = received.toString('latin1', 0, headEnd);
  const status = Number(head.slice(9, 12));
  const begin = headEnd + 4;
  const last = /\r\nconnection: close/i.test(head);
  if (status === 204 || status === 304) return { status, body: NOTHING, bytes: begin, last };
  if (/\r\ntransfer-encoding: chunked/i.test(head)) {
    const chunks = readChunks(received, begin);
    return chunks === null ? null : { status, last, ...chunks };
  }
  const end = begin + Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1] ?? 0);
  return received.byteLength < end ? null : { status, body: received.subarray(begin, end), bytes: end, last };
}

function readChunks(received: Buffer, begin: number): { readonly body: Buffer; readonly bytes: number } | null {
  const chunks: Buffer[] = [];
  for (let at = begin; ;) {
    const lineEnd = received.indexOf(CRLF, at);
    if (lineEnd === -1) return null;
    const length = Number.parseInt(received.toString('latin1', at, lineEnd), 16);
    const next = lineEnd + 2 + length + 2;
    if (received.byteLength < next) return null;
    if (length === 0) return { body: Buffer.concat(chunks), bytes: next };
    chunks.push(received.subarray(lineEnd + 2, lineEnd + 2 + length));
    at = next;
  }
}
