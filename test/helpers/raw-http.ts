// HTTP/1 over a plain socket, byte for byte: requests exactly as written, and answers as they came, with nothing joined, decoded or repaired.
import { connect, type Socket } from 'node:net';

const PATIENCE_MS = 10_000;
const HEAD_END = Buffer.from('\r\n\r\n');

export interface RawAnswer {
  readonly version: string;
  readonly status: number;
  readonly reason: string;
  /** In the order and case of the wire. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly body: Buffer;
  readonly trailers: readonly (readonly [name: string, value: string])[];
  /** Status codes of the 1xx answers before it. */
  readonly interim: readonly number[];
  /** False when the connection ended before the body did. */
  readonly complete: boolean;
}

interface Message {
  readonly headers?: readonly string[];
  readonly body?: string | Uint8Array;
  /** Sent in chunks instead of `body`. */
  readonly chunks?: readonly (string | Uint8Array)[];
  readonly trailers?: readonly string[];
  readonly version?: string;
}

/** The bytes of a request. Header lines are latin1; `Host` and the framing of the body are added. */
export function message(method: string, target: string, { headers = [], body, chunks, trailers = [], version = '1.1' }: Message = {}): Buffer {
  const framing = chunks !== undefined ? ['Transfer-Encoding: chunked'] : body !== undefined ? [`Content-Length: ${Buffer.byteLength(body)}`] : [];
  const host = headers.some((line) => /^host:/i.test(line)) ? [] : ['Host: conform.test'];
  const head = Buffer.from([`${method} ${target} HTTP/${version}`, ...host, ...headers, ...framing, '', ''].join('\r\n'), 'latin1');
  const pieces = chunks?.map((chunk) => Buffer.concat([Buffer.from(`${Buffer.byteLength(chunk).toString(16)}\r\n`), Buffer.from(chunk as Uint8Array), Buffer.from('\r\n')]));
  const end = pieces === undefined ? [] : [...pieces, Buffer.from(['0', ...trailers, '', ''].join('\r\n'))];
  return Buffer.concat([head, body === undefined ? Buffer.alloc(0) : Buffer.from(body as Uint8Array), ...end]);
}

export class RawConnection {
  readonly socket: Socket;
  #received: Buffer = Buffer.alloc(0);
  #ended = false;
  #wake: () => void = () => {};

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#wake();
    });
    const end = (): void => {
      this.#ended = true;
      this.#wake();
    };
    socket.on('end', end).on('close', end).on('error', end); // a connection that is cut is an end as well
  }

  static async open(url: string): Promise<RawConnection> {
    const { hostname, port } = new URL(url);
    const socket = connect({ port: Number(port), host: hostname, noDelay: true, allowHalfOpen: true });
    await new Promise<void>((resolve, reject) => void socket.once('connect', resolve).once('error', reject));
    return new RawConnection(socket);
  }

  write(bytes: string | Uint8Array): void {
    if (this.socket.writable) this.socket.write(bytes);
  }

  /** What has come and was no part of an answer yet. */
  get rest(): Buffer {
    return this.#received;
  }

  /** Resolves when the other side has ended the connection. */
  async ended(): Promise<void> {
    await this.#until('the connection ends', () => (this.#ended ? true : undefined));
  }

  /** Reads the next answer; to `HEAD` it has no body. */
  async answer(method = 'GET'): Promise<RawAnswer> {
    const interim: number[] = [];
    for (;;) {
      const head = await this.#head();
      if (head.status < 200) {
        interim.push(head.status);
        continue;
      }
      return { ...head, interim, ...(await this.#body(method, head)) };
    }
  }

  destroy(): void {
    this.socket.destroy();
  }

  async #head(): Promise<Pick<RawAnswer, 'version' | 'status' | 'reason' | 'headers'>> {
    const length = await this.#until('an answer has its head', () => {
      const at = this.#received.indexOf(HEAD_END);
      if (at === -1 && this.#ended) throw new Error(`the connection ended without an answer, after ${JSON.stringify(this.#received.toString('latin1').slice(0, 200))}`);
      return at === -1 ? undefined : at + HEAD_END.byteLength;
    });
    const [first = '', ...lines] = this.#take(length).toString('latin1').trimEnd().split('\r\n');
    const [, version = '', status = '', reason = ''] = /^HTTP\/(\S+) (\d+) ?(.*)$/.exec(first) ?? [];
    return { version, status: Number(status), reason, headers: lines.map(pair) };
  }

  async #body(method: string, { status, headers }: Pick<RawAnswer, 'status' | 'headers'>): Promise<Pick<RawAnswer, 'body' | 'trailers' | 'complete'>> {
    const of = (wanted: string): string | undefined => headers.find(([name]) => name.toLowerCase() === wanted)?.[1];
    const nothing = { body: Buffer.alloc(0), trailers: [], complete: true };
    if (method === 'HEAD' || status === 204 || status === 304) return nothing;
    if (/chunked/i.test(of('transfer-encoding') ?? '')) return this.#chunks();
    const length = of('content-length');
    const wanted = length === undefined ? Infinity : Number(length);
    await this.#until(`a body of ${wanted} bytes has come`, () => (this.#received.byteLength >= wanted || this.#ended ? true : undefined));
    const body = this.#take(Math.min(wanted, this.#received.byteLength));
    return { body, trailers: [], complete: wanted === Infinity || body.byteLength === wanted };
  }

  async #chunks(): Promise<Pick<RawAnswer, 'body' | 'trailers' | 'complete'>> {
    const pieces: Buffer[] = [];
    const cut = (): Pick<RawAnswer, 'body' | 'trailers' | 'complete'> => ({ body: Buffer.concat(pieces), trailers: [], complete: false });
    for (;;) {
      const size = await this.#line();
      if (size === null) return cut();
      const bytes = Number.parseInt(size, 16);
      if (bytes > 0) {
        await this.#until('a chunk has come', () => (this.#received.byteLength >= bytes + 2 || this.#ended ? true : undefined));
        if (this.#received.byteLength < bytes + 2) return cut();
        pieces.push(this.#take(bytes + 2).subarray(0, bytes));
        continue;
      }
      const trailers: RawAnswer['trailers'][number][] = [];
      for (let line = await this.#line(); line !== ''; line = await this.#line()) {
        if (line === null) return cut();
        trailers.push(pair(line));
      }
      return { body: Buffer.concat(pieces), trailers, complete: true };
    }
  }

  async #line(): Promise<string | null> {
    const end = await this.#until('a line has come', () => {
      const at = this.#received.indexOf('\r\n');
      return at === -1 && !this.#ended ? undefined : at;
    });
    return end === -1 ? null : this.#take(end + 2).toString('latin1').slice(0, -2);
  }

  #take(bytes: number): Buffer {
    const taken = this.#received.subarray(0, bytes);
    this.#received = this.#received.subarray(bytes);
    return taken;
  }

  async #until<T>(what: string, ready: () => T | undefined): Promise<T> {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      const result = ready();
      if (result !== undefined) return result;
      if (Date.now() >= deadline) throw new Error(`after ${PATIENCE_MS} ms it is still not true that ${what}`);
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        timer = setTimeout(resolve, deadline - Date.now());
      });
      clearTimeout(timer);
    }
  }
}

function pair(line: string): readonly [string, string] {
  const colon = line.indexOf(':');
  return [line.slice(0, colon), line.slice(colon + 1).trim()];
}
