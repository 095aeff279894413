// A small HTTP load generator: some connections, each with one request under way, for some time. It costs less than the servers that it measures.
import { connect, type Socket } from 'node:net';

export interface LoadOptions {
  readonly url: string;
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as it is when it is bytes, else as JSON. */
  readonly body?: unknown;
  readonly connections: number;
  readonly durationMs: number;
}

export interface LoadResult {
  readonly requestsPerSecond: number;
  /** In milliseconds. */
  readonly p50: number;
  readonly p99: number;
}

/** Rejects when an answer is no 2xx, has no `content-length`, or its connection is lost. */
export async function load({ connections, durationMs, ...options }: LoadOptions): Promise<LoadResult> {
  const { hostname, port } = new URL(options.url);
  const request = wholeRequest(options);
  const latencies: number[] = [];
  const began = performance.now();
  const until = began + durationMs;
  await Promise.all(Array.from({ length: connections }, () => new Promise<void>((resolve, reject) => {
    const socket = connect({ host: hostname, port: Number(port), noDelay: true });
    socket.once('error', reject).once('close', () => reject(new Error(`${options.url}: the connection was closed`)));
    keepAsking(socket, request, until, latencies, reject, resolve);
  })));
  const seconds = (performance.now() - began) / 1_000;
  latencies.sort((a, b) => a - b);
  const at = (share: number): number => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))] ?? NaN;
  return { requestsPerSecond: latencies.length / seconds, p50: at(0.5), p99: at(0.99) };
}

/** A request as it goes over the wire, body included. */
export function wholeRequest({ url, method = 'GET', headers = {}, body }: Pick<LoadOptions, 'url' | 'method' | 'headers' | 'body'>): Buffer {
  const { host, pathname, search } = new URL(url);
  const payload = body === undefined ? null : body instanceof Uint8Array ? body : Buffer.from(JSON.stringify(body));
  const lines = [`${method} ${pathname}${search} HTTP/1.1`, `host: ${host}`];
  for (const [name, value] of Object.entries({ accept: 'application/json', ...(payload !== null && { 'content-type': 'application/json' }), ...headers })) lines.push(`${name}: ${value}`);
  if (payload !== null) lines.push(`content-length: ${payload.byteLength}`);
  return Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`), payload ?? Buffer.alloc(0)]);
}

function keepAsking(socket: Socket, request: Buffer, until: number, latencies: number[], fail: (error: Error) => void, done: () => void): void {
  let sentAt = 0;
  let head = '';
  /** Bytes of the body that are still to come; -1 while the head is. */
  let missing = -1;
  const ask = (): void => {
    head = '';
    missing = -1;
    sentAt = performance.now();
    socket.write(request);
  };
  socket.once('connect', ask);
  socket.on('data', (chunk: Buffer) => {
    if (missing < 0) {
      head += chunk.toString('latin1');
      const end = head.indexOf('\r\n\r\n');
      if (end === -1) return;
      const length = /\r\ncontent-length: (\d+)/i.exec(head)?.[1];
      if (length === undefined || head[9] !== '2') return fail(new Error(`an answer that is not expected: ${head.slice(0, 500)}`));
      missing = Number(length) - (head.length - end - 4);
    } else missing -= chunk.byteLength;
    if (missing > 0) return;
    const now = performance.now();
    latencies.push(now - sentAt);
    if (now < until) return ask();
    done();
    socket.destroy();
  });
}
