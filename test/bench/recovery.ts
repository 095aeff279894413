// Measures how long a plugin is away after a fault, as its clients see it, and how many of them hear of it.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { PLUGIN_LIMITS, STANDBY_REFILL_DELAY_MS } from '../../protocol/limits.js';
import { end, findRoot, machine, startKernel } from './servers.js';

const KILLS = 50;
/** Between two kills: the standby is replaced, and the machine comes to rest. */
const REST_MS = STANDBY_REFILL_DELAY_MS + 500;
const TRAFFIC_MS = 20_000;
const TRAFFIC_PER_SECOND = 200;
const KILL_INTERVAL_MS = 1_000;

interface Measurement {
  readonly name: string;
  /** From the fault to the next answer, sorted, in milliseconds. */
  readonly times: readonly number[];
}

interface Traffic {
  readonly requests: number;
  readonly kills: number;
  readonly failures: number;
  readonly slowestMs: number;
}

export async function measureRecovery(): Promise<void> {
  const dataDir = await mkdtemp(join(tmpdir(), 'bulkhead-bench-'));
  try {
    const without = await withKernel(dataDir, '0', async (url) => [await measure('throw, without standby', url, 'throw')]);
    const [traffic, ...measured] = await withKernel(dataDir, '1', async (url): Promise<[Traffic, ...Measurement[]]> =>
      [await killUnderTraffic(url), await measure('throw, with standby', url, 'throw'), await measure(`hang, killed after ${PLUGIN_LIMITS.hangTimeoutMs} ms`, url, 'hang')]);
    report([...without, ...measured], traffic);
  } finally {
    await rm(dataDir, { recursive: true, force: true });
  }
}

async function withKernel<T>(dataDir: string, standbyWorkers: string, work: (url: string) => Promise<T>): Promise<T> {
  const server = await startKernel({ DATA_DIR: dataDir, PLUGINS_DIR: join(findRoot(), 'test/bench/plugins'), PLUGINS_ENABLED: 'fragile', STANDBY_WORKERS: standbyWorkers });
  try {
    await delay(REST_MS);
    return await work(server.url);
  } finally {
    await end(server.process);
  }
}

async function measure(name: string, url: string, fault: string): Promise<Measurement> {
  const times: number[] = [];
  for (let i = 0; i < KILLS; i += 1) {
    const asked = process.hrtime.bigint();
    const fatal = await fetch(`${url}/plugins/fragile/${fault}`, { method: 'POST' });
    const next = await fetch(`${url}/plugins/fragile/`);
    const served = process.hrtime.bigint();
    times.push(Number(served - ((await timeOfThrow(url)) ?? asked)) / 1e6);
    if (fatal.status < 500 || next.status !== 200) throw new Error(`${fault}: answered ${fatal.status}, then ${next.status}`);
    await Promise.all([fatal.text(), next.text()]);
    await pardon(url);
    await delay(REST_MS);
  }
  return { name, times: times.sort((a, b) => a - b) };
}

/** What the plugin says of its last death; a loop says nothing and begins with its request. */
async function timeOfThrow(url: string): Promise<bigint | null> {
  const { deaths } = (await (await fetch(`${url}/plugins/status/fragile`)).json()) as { deaths: { cause: string }[] };
  const at = /thrown at (\d+)/.exec(deaths.at(-1)!.cause);
  return at === null ? null : BigInt(at[1]!);
}

/** A steady stream of GETs while the worker is killed every second. */
async function killUnderTraffic(url: string): Promise<Traffic> {
  let requests = 0;
  let failures = 0;
  let kills = 0;
  let slowestMs = 0;
  const get = async (): Promise<void> => {
    requests += 1;
    const began = performance.now();
    const status = await fetch(`${url}/plugins/fragile/`).then(async (answer) => (await answer.text(), answer.status), () => 0);
    slowestMs = Math.max(slowestMs, performance.now() - began);
    if (status !== 200) failures += 1;
  };
  const pending: Promise<void>[] = [];
  const began = performance.now();
  while (performance.now() - began < TRAFFIC_MS) {
    const passed = performance.now() - began;
    while (pending.length < (passed / 1_000) * TRAFFIC_PER_SECOND) pending.push(get());
    if (passed > (kills + 1) * KILL_INTERVAL_MS) {
      kills += 1;
      pending.push(fetch(`${url}/plugins/fragile/throw`, { method: 'POST' }).then(async (answer) => void (await answer.text())).then(() => pardon(url)));
    }
    await delay(1);
  }
  await Promise.all(pending);
  return { requests, kills, failures, slowestMs };
}

/** An operator's start takes the death off the plugin's record: without, the fifth would be its last. */
async function pardon(url: string): Promise<void> {
  const { status } = await fetch(`${url}/plugins/start/fragile`, { method: 'POST' });
  if (status !== 200) throw new Error(`the operator's start answered ${status}`);
}

function report(measurements: readonly Measurement[], traffic: Traffic): void {
  const at = (times: readonly number[], share: number): string => times[Math.min(times.length - 1, Math.floor(times.length * share))]!.toFixed(1);
  const lines = measurements.map(({ name, times }) => `${name.padEnd(34)}${at(times, 0.5).padStart(9)}${at(times, 0.99).padStart(9)}`);
  process.stdout.write([
    `${machine()}; ${KILLS} kills each, from the throw, or the request that hangs, to the next answer`,
    `${''.padEnd(34)}${'p50 ms'.padStart(9)}${'p99 ms'.padStart(9)}`,
    ...lines,
    `${TRAFFIC_PER_SECOND} GETs per second, killed every ${KILL_INTERVAL_MS / 1_000} s: ${traffic.failures} of ${traffic.requests} failed in ${traffic.kills} kills, the slowest took ${traffic.slowestMs.toFixed(0)} ms`,
    '',
  ].join('\n'));
}
