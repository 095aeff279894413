// A small HTTP load generator: some connections, each with one request under way, for some time. It costs less than the servers that it measures.
import { connect, type Socket } from 'node:net';

export interface LoadOptions {
  readonly url: string;
  readonly method?: string;
  /** Sent as JSON. */
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
export async function load({ url, method = 'GET', body, connections, durationMs }: LoadOptions): Promise<LoadResult> {
  const { hostname, port, pathname, search } = new URL(url);
  const payload = body === undefined ? '' : JSON.stringify(body);
  const head = [`${method} ${pathname}${search} HTTP/1.1`, `host: ${hostname}:${port}`, 'accept: application/json'];
  if (body !== undefined) head.push('content-type: application/json', `content-length: ${Buffer.byteLength(payload)}`);
  const request = Buffer.from(`${head.join('\r\n')}\r\n\r\n${payload}`);

  const latencies: number[] = [];
  const began = performance.now();
  const until = began + durationMs;
  await Promise.all(Array.from({ length: connections }, () => new Promise<void>((resolve, reject) => {
    const socket = connect({ host: hostname, port: Number(port), noDelay: true });
    socket.once('error', reject).once('close', () => reject(new Error(`${url}: the connection was closed`)));
    keepAsking(socket, request, until, latencies, reject, resolve);
  })));
  const seconds = (performance.now() - began) / 1_000;
  latencies.sort((a, b) => a - b);
  const at = (share: number): number => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))] ?? NaN;
  return { requestsPerSecond: latencies.length / seconds, p50: at(0.5), p99: at(0.99) };
}

function keepAsking(socket: Socket, request: Buffer, until: number, latencies: number[], fail: (error: Error) => void, done: () => void): void {
  let sentAt = 0;
  let answer = '';
  const ask = (): void => {
    answer = '';
    sentAt = performance.now();
    socket.write(request);
  };
  socket.once('connect', ask);
  socket.setEncoding('latin1').on('data', (chunk: string) => {
    answer = answer === '' ? chunk : answer + chunk;
    const headEnd = answer.indexOf('\r\n\r\n');
    if (headEnd === -1) return;
    const length = /\r\ncontent-length: (\d+)/i.exec(answer)?.[1];
    if (length === undefined || answer[9] !== '2') return fail(new Error(`an answer that is not expected: ${answer.slice(0, 500)}`));
    if (answer.length < headEnd + 4 + Number(length)) return;
    const now = performance.now();
    latencies.push(now - sentAt);
    if (now < until) return ask();
    done();
    socket.destroy();
  });
}
