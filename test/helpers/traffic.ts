// What others do while a plugin misbehaves: steady requests to its neighbours, and single connections that hear all that comes back.
import { readFileSync } from 'node:fs';
import { Agent, request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import type { Test } from 'tap';
import { eventually, type TestKernel } from './kernel.js';

/** Between two requests of one neighbour's client, in milliseconds: steady, and far from what the machine can bear. */
const PAUSE_MS = 5;
/** Requests of each neighbour in the quiet, against which the others are measured. */
const QUIET_REQUESTS = 300;
/** Requests that each neighbour must have had during a fault, for its p99 to mean something. */
const FAULT_REQUESTS_MIN = 100;
/**
 * A p99 below this is no sign of a neighbour's fault, in milliseconds. The kernel, the database, the guilty plugin and the standby that
 * boots after each death share the processors of the test machine with each other and with strangers; a request passes through four
 * threads and processes, and each may wait for several time slices. A kernel that is held by a fault, or a neighbour that waits for a
 * lock of the dead, shows in hundreds of milliseconds.
 */
const P99_FLOOR_MS = 50;
/**
 * Waits for a processor on the way of one request, of each of which the p99 may be that of a thread that has nothing to do with the
 * kernel: client, kernel, worker and back; and as many again for a query, whose bytes the kernel relays to a process of its own.
 */
const WAITS_PER_REQUEST: Readonly<Record<string, number>> = { hello: 4, items: 8 };

/** How long one turn of the kernel's event loop may compute, in milliseconds; the test's own client shares it. */
const LOOP_HELD_MAX_MS = 100;

interface Sample { readonly ms: number; readonly failure: string | null }

export interface Traffic {
  /** Of each neighbour in the quiet, in milliseconds. */
  readonly quietP99: Readonly<Record<string, number>>;
  /** What failed since the beginning. */
  readonly failures: readonly string[];
  /** From now on; the function it returns waits for FAULT_REQUESTS_MIN of each neighbour and asserts that they noticed nothing. */
  watch(): (t: Test, loopHeldMaxMs?: number) => Promise<void>;
}

/** A steady stream to `hello`, and to `items` with its database, until the test ends. Resolves when the quiet has been measured. */
export async function neighbours(t: Test, kernel: TestKernel): Promise<Traffic> {
  const samples: Record<string, Sample[]> = { hello: [], items: [] };
  const agent = new Agent({ keepAlive: true });
  let over = false;
  const stream = async (name: string, send: (n: number) => Promise<string | null>): Promise<void> => {
    for (let n = 0; !over; n += 1) {
      const began = performance.now();
      const { waitedMs } = processor();
      const failure = await send(n).catch((error: Error) => error.message);
      // Without the time in which this thread, the client's and the kernel's, was ready and another had the processor.
      samples[name]!.push({ ms: performance.now() - began - (processor().waitedMs - waitedMs), failure: failure === null ? null : `${name}: ${failure}` });
      await delay(PAUSE_MS);
    }
  };
  const streams = [
    stream('hello', async () => expected(await ask(agent, kernel.url, 'GET', '/plugins/hello/'), 200)),
    stream('items', async (n) => (n % 5 === 0
      ? expected(await ask(agent, kernel.url, 'POST', '/items', `{"name":"item ${n}"}`), 201)
      : expected(await ask(agent, kernel.url, 'GET', '/items?limit=3'), 200))),
  ];
  t.teardown(async () => {
    over = true;
    await Promise.all(streams);
    agent.destroy();
  });

  const bystander = watchProcessors(t);
  const enough = (from: Readonly<Record<string, number>>, count: number): Promise<true> => eventually(`each neighbour has had ${count} requests`, 20_000,
    async () => (Object.entries(samples).every(([name, all]) => all.length - (from[name] ?? 0) >= count) ? true : undefined));
  const lengths = (): Record<string, number> => Object.fromEntries(Object.entries(samples).map(([name, all]) => [name, all.length]));
  await enough({}, 20); // the first ones open connections and compile
  const begin = lengths();
  await enough(begin, QUIET_REQUESTS);
  const quietP99 = Object.fromEntries(Object.entries(samples).map(([name, all]) => [name, p99(all.slice(begin[name]))]));
  t.comment(`p99 in the quiet: ${Object.entries(quietP99).map(([name, ms]) => `${name} ${ms.toFixed(1)} ms`).join(', ')}`);
  return {
    quietP99,
    get failures() { return Object.values(samples).flat().flatMap(({ failure }) => failure ?? []); },
    watch() {
      const from = lengths();
      const noise = bystander();
      const held = watchLoop();
      return async (t, loopHeldMaxMs = LOOP_HELD_MAX_MS) => {
        await enough(from, FAULT_REQUESTS_MIN);
        const noiseMs = noise();
        const heldMs = held();
        t.ok(heldMs <= loopHeldMaxMs, `the kernel's event loop computed for ${heldMs.toFixed(0)} ms at most without a pause`);
        for (const [name, all] of Object.entries(samples)) {
          const mine = all.slice(from[name]);
          t.strictSame(mine.flatMap(({ failure }) => failure ?? []), [], `not one of ${mine.length} requests to ${name} failed`);
          const limit = Math.max(3 * quietP99[name]!, P99_FLOOR_MS) + WAITS_PER_REQUEST[name]! * noiseMs;
          t.ok(p99(mine) <= limit, `p99 of ${name} is ${p99(mine).toFixed(1)} ms, at most ${limit.toFixed(0)} ms (a thread of its own: ${noiseMs.toFixed(1)} ms late)`);
        }
      };
    },
  };
}

/** A thread that wakes every few milliseconds and notes how late it is: what the machine does to everyone. The function begins a time and returns the one that ends it with its p99. */
function watchProcessors(t: Test): () => () => number {
  const SAMPLES = 2 ** 17;
  const memory = new SharedArrayBuffer(8 * (SAMPLES + 1));
  const samples = new Float64Array(memory);
  const thread = new Worker(`
    const samples = new Float64Array(require('node:worker_threads').workerData);
    let expected = performance.now() + ${PAUSE_MS};
    (function note() {
      samples[1 + samples[0] % ${SAMPLES}] = Math.max(0, performance.now() - expected - 1);
      samples[0] += 1;
      expected = performance.now() + ${PAUSE_MS};
      setTimeout(note, ${PAUSE_MS});
    })();`, { eval: true, workerData: memory });
  t.teardown(() => thread.terminate());
  return () => {
    const from = samples[0]!;
    return () => p99(Array.from(samples.slice(1 + from, 1 + samples[0]!), (ms) => ({ ms })));
  };
}

/** The longest time that this thread has computed in one turn of its event loop, until it is asked. */
function watchLoop(): () => number {
  const INTERVAL_MS = 10;
  let heldMs = 0;
  let last = performance.now();
  let lastComputed = processor().computedMs;
  const timer = setInterval(() => {
    const now = performance.now();
    const { computedMs } = processor();
    // Of the time that the turn took, that in which the thread had a processor.
    heldMs = Math.max(heldMs, Math.min(now - last - INTERVAL_MS, computedMs - lastComputed));
    last = now;
    lastComputed = computedMs;
  }, INTERVAL_MS);
  return () => {
    clearInterval(timer);
    return heldMs;
  };
}

/** Time that the main thread has had a processor, and that it was ready and another had it; 0 where the system does not tell. */
function processor(): { readonly computedMs: number; readonly waitedMs: number } {
  try {
    const [computed, waited] = readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ').map(Number);
    return { computedMs: computed! / 1e6, waitedMs: waited! / 1e6 };
  } catch {
    return { computedMs: 0, waitedMs: 0 };
  }
}

function p99(samples: readonly { readonly ms: number }[]): number {
  const sorted = samples.map(({ ms }) => ms).sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * 0.99) - 1)] ?? 0;
}

function expected({ status, text }: { readonly status: number; readonly text: string }, wanted: number): string | null {
  return status === wanted ? null : `${status} ${text}`;
}

function ask(agent: Agent, url: string, method: string, path: string, body = ''): Promise<{ readonly status: number; readonly text: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest(url + path, { method, agent, headers: body === '' ? {} : { 'content-type': 'application/json', 'content-length': body.length } }, (incoming) => {
      let text = '';
      incoming.setEncoding('utf8').on('data', (chunk: string) => { text += chunk; }).once('error', reject).once('end', () => resolve({ status: incoming.statusCode!, text }));
    });
    outgoing.once('error', reject).end(body);
  });
}

export interface Heard {
  /** How many answers came on the connection. */
  readonly answers: number;
  readonly status: number;
  readonly headers: string;
  readonly json: any;
}

/** Sends one request on a connection of its own and returns all that comes back, also what comes too much. */
export async function everything(url: string, path: string, method = 'GET'): Promise<Heard> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  let text = '';
  socket.setEncoding('utf8').on('data', (chunk: string) => { text += chunk; }).on('error', () => {});
  socket.write(`${method} ${path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n`);
  try {
    await eventually(`${method} ${path} is answered`, 15_000, async () => (text.includes('\r\n\r\n') ? true : undefined));
    await delay(150);
  } finally {
    socket.destroy();
  }
  const head = text.slice(0, text.indexOf('\r\n\r\n'));
  return { answers: text.match(/^HTTP\/1\.1 /gm)!.length, status: Number(text.split(' ')[1]), headers: head, json: parsed(text.slice(head.length + 4)) };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}
