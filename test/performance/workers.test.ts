// What workers cost in time: the boot of many, and the way of a request through one.
import { readFileSync } from 'node:fs';
import { Agent, get as httpGet } from 'node:http';
import type { AddressInfo } from 'node:net';
import fastify from 'fastify';
import t from 'tap';
import type { PluginApp, PluginContext } from 'bulkhead/protocol';
import hello from '../../plugins/hello/plugin.js';
import { startTestKernel } from '../helpers/kernel.js';

const PLUGINS = 50;
/** Longest time for which the kernel may hold its event loop. */
const HELD_MAX_MS = 100;
/** In the same process both servers share their thread with the client, which leaves the two wake-ups of a worker. */
const LATENCY_RATIO_MAX = 8;

t.setTimeout(300_000);

t.test(`${PLUGINS} plugins boot while the kernel keeps its event loop turning`, { timeout: 180_000 }, async (t) => {
  const kernel = await startTestKernel(t, { LOG_LEVEL: 'warn' });
  const names = Array.from({ length: PLUGINS }, (_, i) => `sailor-${i}`);
  await Promise.all(names.map((name, i) => kernel.writePlugin(name, `
    import { definePlugin } from 'bulkhead/protocol';
    export default definePlugin({
      name: '${name}', version: '1.0.0',
      async routes(app) { app.get('/', async () => ({ number: ${i} })); },
    });`)));

  const { supervisor } = kernel.kernel;
  const times: number[] = [];
  const loop = watchLoop();
  const began = performance.now();
  await Promise.all(names.map(async (name) => {
    await supervisor.perform('load', name);
    await supervisor.perform('start', name);
    times.push(performance.now() - began);
  }));
  const totalMs = performance.now() - began;
  const longest = loop.stop();

  // They arrive one after the other: the steps between them are what each one takes.
  const steps = times.map((at, i) => at - (times[i - 1] ?? 0));
  t.comment(`${PLUGINS} plugins loaded and started in ${totalMs.toFixed(0)} ms; one came every ${median(steps).toFixed(0)} ms (median)`);
  t.comment(`longest turn of the kernel's event loop: ${longest.busyMs.toFixed(0)} ms of work, or ${longest.stoodMs.toFixed(0)} ms with what it was made to wait for`);
  t.ok(longest.busyMs < HELD_MAX_MS, `the event loop is never held for ${HELD_MAX_MS} ms`);
  t.ok(longest.stoodMs < 10 * HELD_MAX_MS, 'nor does it stand still in a call that blocks');

  const states = await supervisor.list();
  t.strictSame(names.filter((name) => states.find((plugin) => plugin.name === name)?.status !== 'running'), [], 'all of them run');
  const answers = await Promise.all(names.map((name) => kernel.get(`/plugins/${name}/`)));
  t.strictSame(answers.map(({ json }) => json), names.map((_, number) => ({ number })), 'and each one answers');
});

t.test('a request through a worker takes a small multiple of one through an in-process Fastify', { timeout: 60_000 }, async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'hello', LOG_LEVEL: 'warn' });
  const app = fastify();
  await app.register(async (scope) => hello.routes?.(scope as unknown as PluginApp, {} as PluginContext));
  await app.listen({ host: '127.0.0.1', port: 0 });
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  t.teardown(async () => {
    agent.destroy();
    await app.close();
  });

  const candidates = [
    { url: `http://127.0.0.1:${(app.server.address() as AddressInfo).port}/`, times: [] as number[] },
    { url: `${kernel.url}/plugins/hello/`, times: [] as number[] },
  ] as const;
  const ROUNDS = 10;
  for (let round = 0; round <= ROUNDS; round += 1) {
    for (const { url, times } of candidates) {
      for (let i = 0; i < 150; i += 1) {
        const began = performance.now();
        await get(url, agent);
        if (round > 0) times.push(performance.now() - began); // the first round is for the compilers
      }
    }
  }
  const [inProcess, inWorker] = candidates.map(({ times }) => median(times)) as [number, number];
  t.comment(`one request after the other, median: in-process ${micros(inProcess)}, through a worker ${micros(inWorker)}`);
  t.comment(`latency added by the worker: ${micros(inWorker - inProcess)}, ratio ${(inWorker / inProcess).toFixed(2)}`);
  t.ok(inWorker < LATENCY_RATIO_MAX * inProcess, `the ratio is under ${LATENCY_RATIO_MAX}`);
});

/** Each of them the longest of any turn. */
interface LongestTurn {
  /** For which the thread had a core. */
  readonly busyMs: number;
  /** For which it was not asleep in its loop, whoever had the cores meanwhile. */
  readonly stoodMs: number;
}

/**
 * Like `monitorEventLoopDelay`, but tells what the loop's own work takes from the time for which the thread slept too long or was not
 * given a core: on a busy or virtual machine that happens, and is no fault of the kernel.
 */
function watchLoop(): { stop(): LongestTurn } {
  const INTERVAL_MS = 10;
  let longest: LongestTurn = { busyMs: 0, stoodMs: 0 };
  let lastTick = performance.now();
  let lastActive = performance.eventLoopUtilization().active;
  let lastRan = ranMs();
  const timer = setInterval(() => {
    const [now, { active }, ran] = [performance.now(), performance.eventLoopUtilization(), ranMs()];
    const stoodMs = Math.min(now - lastTick - INTERVAL_MS, active - lastActive);
    const busyMs = ran === null || lastRan === null ? stoodMs : Math.min(stoodMs, ran - lastRan);
    longest = { busyMs: Math.max(longest.busyMs, busyMs), stoodMs: Math.max(longest.stoodMs, stoodMs) };
    [lastTick, lastActive, lastRan] = [now, active, ran];
  }, INTERVAL_MS);
  return {
    stop() {
      clearInterval(timer);
      return longest;
    },
  };
}

/** How long the main thread has had a core since it began, in milliseconds: the first figure of Linux's schedstat. Null where there is none. */
function ranMs(): number | null {
  if (process.platform !== 'linux') return null;
  try {
    return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ')[0]) / 1e6;
  } catch {
    return null;
  }
}

function get(url: string, agent: Agent): Promise<void> {
  return new Promise((resolve, reject) => {
    httpGet(url, { agent }, (res) => {
      res.resume().once('end', () => (res.statusCode === 200 ? resolve() : reject(new Error(`${url} answered ${res.statusCode}`))));
    }).once('error', reject);
  });
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

function micros(ms: number): string {
  return `${(ms * 1_000).toFixed(0)} µs`;
}
