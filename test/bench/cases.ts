// What is asked of every candidate, and how an answer is counted. Must not know who answers.
import { connect } from 'node:net';
import { load, wholeRequest, type LoadOptions, type LoadResult } from '../helpers/load.js';

/** Rows that the table of items has. */
export const ROWS = 100;
const EVENTS = 1_000;
const LISTENERS = 50;

export interface Case {
  readonly name: string;
  /** Requests per second of the kernel for one of the in-process Fastify that we mean to reach. */
  readonly target?: number;
  /** Whether the naive hosts, which have only the route of hello, run as well. */
  readonly naive?: boolean;
  /** Whether a kernel runs as well that gives the plugin two threads. */
  readonly twoThreads?: boolean;
  /** Whether a kernel runs as well that has another PostgreSQL than the embedded one. */
  readonly database?: boolean;
  readonly connections: number;
  run(url: string, durationMs: number): Promise<LoadResult>;
}

type Request = Omit<Case, 'run'> & Omit<LoadOptions, 'url' | 'durationMs'> & { readonly path: string };

const asked = ({ name, path, ...rest }: Request): Case => ({
  name, ...rest,
  run: (url, durationMs) => load({ ...rest, url: url + path, durationMs }),
});

/** As a browser sends them. */
const BROWSER_HEADERS = {
  'user-agent': 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36',
  accept: 'application/json, text/plain, */*', 'accept-language': 'en-GB,en;q=0.9,de;q=0.8', 'accept-encoding': 'gzip, deflate, br', connection: 'keep-alive',
  origin: 'http://127.0.0.1', referer: 'http://127.0.0.1/orders', cookie: 'session=0123456789abcdef0123456789abcdef; theme=dark',
  'sec-fetch-dest': 'empty', 'sec-fetch-mode': 'cors', 'sec-fetch-site': 'same-origin', 'cache-control': 'no-cache',
};
/** About 1 KB of JSON. */
const ORDER = {
  customer: 'Ada Lovelace', email: 'ada@example.org',
  lines: Array.from({ length: 12 }, (_, i) => ({ sku: `anchor-${i}`, count: i + 1, price: 9.5 * (i + 1), note: 'handle with some care' })),
};

export const CASES: readonly Case[] = [
  asked({ name: 'hello', path: '/plugins/hello/', connections: 64, target: 0.9, naive: true }),
  asked({ name: 'hello, 8 connections', path: '/plugins/hello/', connections: 8, target: 0.75, naive: true }),
  asked({ name: 'hello, one connection', path: '/plugins/hello/', connections: 1, target: 1, naive: true }),
  asked({ name: 'order of 1 KB, 12 headers', path: '/plugins/freight/order', method: 'POST', headers: BROWSER_HEADERS, body: ORDER, connections: 64, target: 0.85 }),
  asked({ name: 'answer of 10 KB', path: '/plugins/freight/rows', connections: 64, target: 1.2 }),
  asked({ name: '100 µs of work', path: '/plugins/freight/work', connections: 64, target: 1.2, twoThreads: true }),
  asked({ name: 'download of 1 MiB', path: '/plugins/freight/crate', connections: 16, target: 0.8 }),
  asked({ name: 'upload of 1 MiB', path: '/plugins/freight/crate', method: 'POST', headers: { 'content-type': 'application/octet-stream' }, body: Buffer.alloc(2 ** 20, 'crate '), connections: 16, target: 0.8 }),
  { name: `${EVENTS} events, ${LISTENERS} listeners`, connections: LISTENERS, target: 0.8, run: (url) => listen(`${url}/plugins/freight/events`) },
  asked({ name: 'items get', path: '/items/50', connections: 32, target: 0.85, database: true }),
  asked({ name: `items list, ${ROWS} rows`, path: `/items/?limit=${ROWS}`, connections: 32, target: 0.95, database: true }),
  asked({ name: 'items create', path: '/items/', method: 'POST', body: { name: 'anchor', description: 'heavy' }, connections: 32, target: 0.9, database: true }),
];

/** LISTENERS clients read one stream of EVENTS events each. Counts events instead of requests; rejects when one is lost. */
async function listen(url: string): Promise<LoadResult> {
  const began = performance.now();
  const times = await Promise.all(Array.from({ length: LISTENERS }, () => new Promise<number>((resolve, reject) => {
    const { hostname, port } = new URL(url);
    let text = '';
    const socket = connect({ host: hostname, port: Number(port) }, () => socket.write(wholeRequest({ url, headers: { connection: 'close' } })));
    socket.setEncoding('latin1').once('error', reject).on('data', (chunk: string) => (text += chunk)).once('end', () => {
      const events = text.split('"position":').length - 1;
      if (events === EVENTS) resolve(performance.now() - began);
      else reject(new Error(`${url}: ${events} of ${EVENTS} events arrived`));
    });
  })));
  times.sort((a, b) => a - b);
  return { requestsPerSecond: (LISTENERS * EVENTS * 1_000) / times.at(-1)!, p50: times[LISTENERS >> 1]!, p99: times.at(-1)! };
}
