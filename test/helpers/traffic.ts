// What others do while a plugin misbehaves: steady requests to its neighbours, and single connections that hear all that comes back.
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import type { Test } from 'tap';
import { eventually, ROOT, type TestKernel } from './kernel.js';

/** Between two requests of one client, in milliseconds: steady, and far from what the machine can bear. */
const PAUSE_MS = 5;
/** Requests of each neighbour before anything is measured: they open connections and compile, and the kernel boots its standby. */
const WARM_UP_REQUESTS = 150;
/** Requests of each neighbour in the quiet, against which the others are measured. */
const QUIET_REQUESTS = 500;
/** Requests that each neighbour must have had during a fault, for its p99 to mean something: two may be slower than it. */
const FAULT_REQUESTS_MIN = 200;
/**
 * How much longer than in the quiet the neighbours may take during a fault, at p99.
 *
 * The guilty plugin, the standby that boots after each death and strangers share the processors of the test machine, and for that no
 * kernel can answer. So a probe is asked at the same time, at the same pace and by the same thread. It waits for a processor as often
 * as a neighbour's request, but nothing of the kernel is on its way. By how many times the probe has become slower, the neighbours may
 * become slower as well. A factor and no difference, because a thread with work to do loses its place to others more often than the
 * probe's, which has none. This is the only allowance for the machine: no sample is corrected, and nothing is added to the limit.
 *
 * On a machine that is busy with other things already in the quiet, three times the quiet is long. What then still tells is
 * LOOP_HELD_MAX_MS and its share: they count the time that the kernel's thread had a processor, which no stranger makes longer.
 */
const TIMES_THE_QUIET = 3;
/** A p99 below this is no sign of a neighbour's fault on a machine as quiet as before, in milliseconds: a few time slices of the scheduler. */
const P99_FLOOR_MS = { hello: 20, items: 50 }; // a query also waits for PostgreSQL's processes
/**
 * How often a request goes to another thread and back: to the worker; for a query also from there to the kernel, which relays to a
 * process of its own, and back.
 */
const BOUNCES = { hello: 1, items: 3 };

/**
 * A stranger on the machine who takes both processors for a few time slices spoils the p99 of 200 requests, and may spare the probe. What a
 * fault does to its neighbours it does each time.
 */
const TIMES_MAX = 3;

/** How long one turn of the kernel's event loop may compute, in milliseconds; the test itself shares it, and its collection of garbage. */
const LOOP_HELD_MAX_MS = 100;
/** That is for a turn or two; a kernel that is held again and again is held by the fault. The third longest may have this share of it. */
const LOOP_HELD_AGAIN_SHARE = 0.3;

const NEIGHBOURS = ['hello', 'items'] as const;
type Neighbour = (typeof NEIGHBOURS)[number];

interface Sample {
  readonly name: Neighbour | `probe of ${Neighbour}`;
  /** When it was answered, in milliseconds of the clock that all threads share. */
  readonly at: number;
  /** Null for one whose time depends on a disk. */
  readonly ms: number | null;
  readonly failure: string | null;
}

export interface Act {
  /** Hears for which time it is done. */
  readonly run: (times: number) => Promise<void>;
  /** Where something else than LOOP_HELD_MAX_MS is right. */
  readonly loopHeldMaxMs?: number;
}

export interface Traffic {
  /** What failed since the beginning. */
  readonly failures: readonly string[];
  /**
   * Asserts that the neighbours notice nothing of the acts, one after the other: of what is asked from their beginning to their end, and at
   * least FAULT_REQUESTS_MIN of each, no request fails and the p99 is as it should be. Each act is to leave the kernel's event loop alone.
   * The acts are done again when only the p99 is not.
   */
  unnoticed(t: Test, ...acts: readonly Act[]): Promise<void>;
}

/** A steady stream to `hello`, and to `items` with its database, until the test ends. Resolves when the quiet has been measured. */
export async function neighbours(t: Test, kernel: TestKernel): Promise<Traffic> {
  const samples: Sample[] = [];
  const list = { method: 'GET', url: `${kernel.url}/items?limit=3`, status: 200 };
  const targets = [
    { name: 'hello', bounces: BOUNCES.hello, shots: [{ method: 'GET', url: `${kernel.url}/plugins/hello/`, status: 200 }] },
    { name: 'items', bounces: BOUNCES.items, database: true, shots: [{ method: 'POST', url: `${kernel.url}/items`, body: '{"name":"item"}', status: 201, timed: false }, list, list, list, list] },
  ];
  // Without the test runner's hooks.
  const shore = new Worker(join(ROOT, 'test/helpers/shore.mjs'), { workerData: { role: 'clients', targets, pauseMs: PAUSE_MS, databaseUrl: kernel.databaseUrl }, execArgv: [], env: {} });
  shore.on('message', (seen: Sample[]) => samples.push(...seen));
  t.teardown(async () => {
    const ended = once(shore, 'exit');
    shore.postMessage('stop');
    await ended;
  });

  const failures = (since: readonly Sample[]): string[] => since.flatMap(({ name, failure }) => (failure === null ? [] : `${name}: ${failure}`));
  /** Waits for `count` requests of each that were answered from now on; the function it returns has all of them. */
  const from = (): ((count: number) => Promise<readonly Sample[]>) => {
    const index = samples.length;
    const begin = performance.timeOrigin + performance.now();
    return (count) => eventually(`each neighbour has had ${count} requests`, 20_000, async () => {
      const since = samples.slice(index).filter(({ at }) => at >= begin);
      return NEIGHBOURS.every((name) => since.filter((sample) => sample.name === name).length >= count) ? since : undefined;
    });
  };
  await from()(WARM_UP_REQUESTS);
  const quiet = timesOf(await from()(QUIET_REQUESTS));
  t.comment(`in the quiet: ${NEIGHBOURS.map((name) => `${name} ${told(quiet[name])}`).join(', ')}`);
  return {
    get failures() { return failures(samples); },
    async unnoticed(t, ...acts) {
      for (let times = 1; ; times += 1) {
        const during = from();
        let since: readonly Sample[] = [];
        for (const [at, { run, loopHeldMaxMs = LOOP_HELD_MAX_MS }] of acts.entries()) {
          const held = watchLoop();
          await run(times);
          if (at === acts.length - 1) since = await during(FAULT_REQUESTS_MIN);
          const [heldMs = 0, , heldAgainMs = 0] = held();
          t.ok(heldMs <= loopHeldMaxMs, `the kernel's event loop computed for ${heldMs.toFixed(0)} ms at most without a pause`);
          t.ok(heldAgainMs <= LOOP_HELD_AGAIN_SHARE * loopHeldMaxMs, `and not again and again: ${heldAgainMs.toFixed(0)} ms the third time`);
        }
        t.strictSame(failures(since), [], `not one of ${since.length} requests failed`);
        const now = timesOf(since);
        const verdicts = NEIGHBOURS.map((name) => {
          const machine = Math.max(1, now[name].probeMs / quiet[name].probeMs);
          const limit = Math.max(TIMES_THE_QUIET * quiet[name].p99Ms, P99_FLOOR_MS[name]) * machine;
          return { slow: now[name].p99Ms > limit, text: `${name}: ${told(now[name])}, at most ${limit.toFixed(1)} ms; in the quiet: ${told(quiet[name])}` };
        });
        if (times === TIMES_MAX || !verdicts.some(({ slow }) => slow)) {
          for (const { slow, text } of verdicts) t.notOk(slow, text);
          return;
        }
        t.comment(`once more: ${verdicts.map(({ text }) => text).join('; ')}`);
      }
    },
  };
}

/** Both at p99. */
interface Times { readonly p99Ms: number; readonly probeMs: number }

function timesOf(samples: readonly Sample[]): Record<Neighbour, Times> {
  const of = (name: Sample['name']): number => p99(samples.filter((sample) => sample.name === name));
  const times = (name: Neighbour): Times => ({ p99Ms: of(name), probeMs: of(`probe of ${name}`) });
  return { hello: times('hello'), items: times('items') };
}

function told({ p99Ms, probeMs }: Times): string {
  return `p99 ${p99Ms.toFixed(1)} ms, of the probe ${probeMs.toFixed(1)} ms`;
}

/** How long this thread has computed between two ticks of a timer, until it is asked; the longest first. */
function watchLoop(): () => readonly number[] {
  const INTERVAL_MS = 10;
  const turns: number[] = [];
  let last = performance.now();
  let lastComputed = computed();
  const timer = setInterval(() => {
    const now = performance.now();
    const computedMs = computed();
    // Of the time that the turn took, that in which the thread had a processor.
    turns.push(Math.min(now - last - INTERVAL_MS, computedMs - lastComputed));
    last = now;
    lastComputed = computedMs;
  }, INTERVAL_MS);
  return () => {
    clearInterval(timer);
    return turns.sort((a, b) => b - a);
  };
}

/** Milliseconds that the main thread has had a processor; 0 where the system does not tell. */
function computed(): number {
  try {
    return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ')[0]) / 1e6;
  } catch {
    return 0;
  }
}

function p99(samples: readonly { readonly ms: number | null }[]): number {
  const sorted = samples.flatMap(({ ms }) => ms ?? []).sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * 0.99) - 1)] ?? 0;
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
