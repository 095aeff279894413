// Faults that end the whole kernel process, under load: nobody is refused, only what was being answered may fail, and all comes back as it was.
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import type * as EmbeddedModule from '../../kernel/database/embedded.js';
import { KERNEL_SETTLED_AFTER_MS, REPORTS_MAX, SILENT_BOOT_FAILURES_MAX } from '../../protocol/guardian-limits.js';
import { eventually, ROOT } from '../helpers/kernel.js';
import { allGone, descendants, startShip, type Ship } from '../helpers/ship.js';
import { SteadyLoad, type Hit } from '../helpers/steady-load.js';

/** From the fault to the moment at which the guardian has said that the kernel ended; in milliseconds of `performance.now()`. */
interface Death { readonly from: number; readonly to: number; readonly fault: string }

/** A client learns that its kept connection is gone a few turns of its own event loop after the guardian has learnt of the death. */
const NEWS_TRAVELS_MS = 50;

/** Does what ends the kernel and waits until the guardian has noticed. */
async function sink(ship: Ship, fault: string, how: () => unknown): Promise<Death> {
  const lines = ship.logLines.length;
  const from = performance.now();
  await how();
  await ship.logged('the kernel was ended by', lines);
  return { from, to: performance.now(), fault };
}

const back = (ship: Ship, lines: number): Promise<Record<string, any>> => ship.logged('the kernel is back', lines);

t.test('twenty faults that end the process, under 200 requests a second', async (t) => {
  const ship = await startShip(t, { PLUGINS_ENABLED: 'hello,items,titanic' });
  await ship.ready();
  const load = new SteadyLoad(ship.url, 200, (count) => {
    if (count % 20 === 0) return { method: 'POST', path: '/items', body: { name: `cargo ${count}` } };
    return { method: 'GET', path: count % 3 === 0 ? '/items?limit=1' : '/plugins/hello/' };
  });
  t.teardown(() => load.stop());
  await delay(500);

  const faults: Record<string, () => unknown> = {
    'new Array(1e8).fill(1)': () => void ship.get('/plugins/titanic/fill').catch(() => {}),
    '[...Array(3e7).keys()]': () => void ship.get('/plugins/titanic/spread').catch(() => {}),
    'kill -9': () => process.kill(ship.kernelPid(), 'SIGKILL'),
    'a native crash': () => process.kill(ship.kernelPid(), 'SIGSEGV'),
  };
  const deaths: Death[] = [];
  for (let round = 1; round <= 5; round += 1) {
    for (const [fault, how] of Object.entries(faults)) {
      const lines = ship.logLines.length;
      deaths.push(await sink(ship, fault, how));
      await back(ship, lines);
      // Otherwise the next one would wait: that is another test.
      await delay(KERNEL_SETTLED_AFTER_MS + 300);
      const end = ship.logLines.slice(lines).find(({ msg }) => String(msg).startsWith('the kernel was ended by'))!;
      const { status, error, deaths: died } = (await ship.get('/plugins/status/titanic')).json;
      const blamed = fault.includes('Array');
      t.equal(end['plugin'], blamed ? 'titanic' : undefined, `round ${round}, ${fault}: ${blamed ? 'the log names the culprit' : 'nobody is blamed'}`);
      if (fault.startsWith('new')) {
        t.equal(status, 'running', 'it comes back after its first offence');
        t.match(died.at(-1), { kind: 'out-of-memory', cause: /^it took the whole kernel down/ }, 'its status says what it did');
      } else {
        t.equal(status, 'quarantined', 'and is quarantined after its second, also for later kernels');
        t.match(error, /took the whole kernel down.*2 times within 10 minutes/);
      }
    }
    t.match((await ship.get('/plugins/titanic/')).json, { code: 'PLUGIN_QUARANTINED' }, 'a client hears why');
    t.equal((await ship.verb('start', 'titanic')).json.status, 'running', 'an operator lets it out');
  }
  await delay(300);
  await load.stop();

  const { hits } = load;
  const within = ({ begin, end }: Hit): boolean => deaths.some(({ from, to }) => begin <= to + NEWS_TRAVELS_MS && end >= from);
  const failed = hits.filter(({ result }) => result !== 200 && result !== 201);
  const describe = ({ shot, newConnection, begin, result, text }: Hit): string => {
    const before = deaths.findLast(({ from }) => from <= begin);
    return `${shot.method} ${shot.path} on a ${newConnection ? 'new' : 'kept'} connection: ${result} ${text}, ${before && Math.round(begin - before.from)} ms after ${before?.fault}, which took ${before && Math.round(before.to - before.from)} ms`;
  };
  t.ok(hits.length > 20 * 200, `${hits.length} requests were made`);
  t.strictSame(failed.filter(({ result }) => result === 'ECONNREFUSED').map(describe), [], 'no connection was refused');
  t.strictSame(failed.filter((hit) => !within(hit)).map(describe), [], 'only requests in flight at the moment of death failed');

  const made = hits.filter(({ shot, result }) => shot.method === 'POST' && result === 201).map(({ text }) => (JSON.parse(text) as { id: number }).id);
  const kept = new Set<number>();
  for (let skip = 0; ; skip += 1_000) {
    const page = (await ship.get(`/items?skip=${skip}&limit=1000`)).json as { id: number }[];
    for (const { id } of page) kept.add(id);
    if (page.length < 1_000) break;
  }
  t.ok(made.length > 100, `${made.length} rows were committed`);
  t.strictSame(made.filter((id) => !kept.has(id)), [], 'and all of them are there');

  const median = (numbers: readonly number[]): number => Math.round([...numbers].sort((one, other) => one - other)[numbers.length >> 1]!);
  /** When a connection that was made after the death had its answer. */
  const answered = deaths.map(({ to }) => Math.min(...hits.filter((hit) => hit.newConnection && hit.begin > to && hit.result === 200).map(({ end }) => end)));
  for (const fault of Object.keys(faults)) {
    const after = deaths.flatMap((death, at) => (death.fault === fault ? [{ dying: death.to - death.from, recovery: answered[at]! - death.from }] : []));
    t.strictSame(after.filter(({ dying, recovery }) => recovery - dying >= 5_000), [], `${fault}: a new connection was answered within five seconds of the death`);
    t.comment(`${fault}: p50 ${median(after.map(({ recovery }) => recovery))} ms to the first answer on a new connection, of which the process took ${median(after.map(({ dying }) => dying))} ms to die`);
  }
  const boots = ship.logLines.flatMap(({ msg, ms }) => (String(msg).startsWith('the kernel is back') ? [ms as number] : []));
  t.comment(`a new kernel with its plugins: p50 ${median(boots)} ms, worst ${Math.max(...boots)} ms; ${failed.length} of ${hits.length} requests were in flight and failed`);
  t.ok((await readdir(join(ship.dataDir, 'reports'))).length <= REPORTS_MAX, 'old reports are removed');
});

t.test('every plugin comes back as it was', async (t) => {
  const ship = await startShip(t, { PLUGINS_ENABLED: 'hello,items,analytics' });
  await ship.ready();
  await ship.request('POST', '/items', { name: 'anchor' });
  await ship.verb('stop', 'analytics');
  await ship.verb('load', 'echo');
  await ship.verb('start', 'echo');
  await ship.verb('load', 'titanic');
  await ship.verb('unload', 'hello');

  const summary = async (): Promise<unknown> => ((await ship.get('/plugins')).json as { name: string; status: string; mounts: string[]; version: string }[])
    .filter(({ name }) => ['hello', 'items', 'analytics', 'echo', 'titanic'].includes(name))
    .map(({ name, status, mounts, version }) => ({ name, status, mounts, version }));
  const before = await summary();
  const { generation } = (await ship.get('/plugins/status/items')).json;
  const lines = ship.logLines.length;
  await sink(ship, 'kill -9', () => process.kill(ship.kernelPid(), 'SIGKILL'));
  await back(ship, lines);

  t.strictSame(await summary(), before);
  t.match(before, [{ name: 'analytics', status: 'stopped' }, { name: 'echo', status: 'running' }, { name: 'hello', status: 'registered' }, { name: 'items', status: 'running' }, { name: 'titanic', status: 'mounted' }]);
  t.equal((await ship.get('/plugins/status/items')).json.generation, generation + 1, 'generations are counted on');
  t.match((await ship.get('/plugins/analytics/count')).json, { code: 'PLUGIN_NOT_RUNNING' }, 'what is stopped says so under its paths');
  t.match((await ship.get('/items')).json, [{ name: 'anchor' }]);
  t.equal((await ship.verb('start', 'analytics')).json.status, 'running', 'and can be started again');
});

t.test('connections that are made while there is no kernel wait for it', async (t) => {
  const ship = await startShip(t, { PLUGINS_ENABLED: 'hello' });
  await ship.ready();
  const lines = ship.logLines.length;
  await sink(ship, 'kill -9', () => process.kill(ship.kernelPid(), 'SIGKILL'));
  const answers = await Promise.all(Array.from({ length: 50 }, () => ship.get('/plugins/hello/')));
  t.ok(answers.every(({ status }) => status === 200), 'each of fifty is answered');
  t.equal(ship.logLines.slice(lines).filter(({ msg }) => String(msg).includes('is back')).length, 1);
  t.match((await ship.get('/plugins/status/hello')).json, { status: 'running', deaths: [] }, 'the innocent have nothing in their record');
});

t.test('a kernel that ends as soon as it is up gets longer and longer pauses, and /health says why', async (t) => {
  const ship = await startShip(t, { PLUGINS_ENABLED: 'hello' });
  await ship.ready();
  const pauses: number[] = [];
  for (let death = 1; death <= SILENT_BOOT_FAILURES_MAX + 1; death += 1) {
    const lines = ship.logLines.length;
    const { to } = await sink(ship, 'kill -9', () => process.kill(ship.kernelPid(), 'SIGKILL'));
    if (death > SILENT_BOOT_FAILURES_MAX) t.match(await ship.get('/health'), { status: 503, json: { status: 'error', reason: /ended by SIGKILL/ } });
    const { ms } = await back(ship, lines);
    pauses.push(performance.now() - to - ms);
  }
  t.ok(pauses.at(-1)! > 350, `they were ${pauses.map(Math.round).join(', ')} ms`);
  t.equal((await ship.get('/plugins/hello/')).status, 200, 'and then it serves again');
});

t.test('SIGTERM answers what is in flight, ends with exit code 0 and leaves no process', async (t) => {
  const ship = await startShip(t, { PLUGINS_ENABLED: 'titanic,items' });
  await ship.ready();
  const processes = await descendants(ship.pid);
  if (process.platform === 'linux') t.ok(processes.length >= 3, `there are ${processes.length} processes below the guardian`);
  const slow = ship.get('/plugins/titanic/slow');
  await delay(200);
  const began = performance.now();
  process.kill(ship.pid, 'SIGTERM');
  t.match((await slow).json, { slow: true });
  t.equal(await ship.exited, 0);
  t.ok(performance.now() - began < 10_000, 'within ten seconds');
  await allGone(processes);
  t.notOk((await readdir(join(ship.dataDir, 'postgres'))).includes('postmaster.pid'), 'the database was shut down');
});

t.test('kill -9 of the guardian, and a second signal, leave no process', async (t) => {
  for (const end of ['SIGKILL', 'SIGTERM'] as const) {
    const ship = await startShip(t, { PLUGINS_ENABLED: 'titanic' });
    await ship.ready();
    const processes = await descendants(ship.pid);
    void ship.get('/plugins/titanic/slow').catch(() => {});
    await delay(100);
    process.kill(ship.pid, end);
    if (end === 'SIGTERM') {
      await ship.logged('a second signal ends at once');
      process.kill(ship.pid, end);
      t.equal(await ship.exited, 130, 'a second signal does not wait');
    }
    await ship.exited;
    await allGone(processes);
  }
  t.pass('they are all gone');
});

t.test('a kernel that cannot boot is tried again, and /health says why', async (t) => {
  const { startEmbeddedDatabase } = await import(join(ROOT, 'dist/kernel/database/embedded.js')) as typeof EmbeddedModule;
  const silent = { info() {}, warn() {} };
  const shore = await startShip(t); // lends its folder
  const database = await startEmbeddedDatabase({ dataDir: join(shore.dataDir, 'other'), user: 'bulkhead', database: 'ship', log: silent });
  t.teardown(() => database.stop());
  const certificate = join(shore.dataDir, 'late.pem');
  const ship = await startShip(t, { PLUGINS_ENABLED: 'hello', DATABASE_URL: `${database.url}&sslrootcert=${certificate}` });

  const health = await eventually('the guardian says why', 15_000, async () => {
    const answer = await ship.get('/health').catch(() => null);
    return answer?.json?.reason === undefined ? undefined : answer;
  });
  t.equal(health.status, 503);
  t.match(health.json, { status: 'error', database: 'ok', reason: /ENOENT.*late\.pem/ });
  t.equal((await ship.get('/health/live')).status, 503);
  const refused = await ship.get('/plugins/hello/');
  t.match(refused.json, { statusCode: 503, code: 'KERNEL_UNAVAILABLE', error: 'Service Unavailable', message: /late\.pem/, requestId: /./ });
  t.ok(Number(refused.headers.get('retry-after')) >= 1);
  await ship.logged('the kernel could not start');

  await writeFile(certificate, '');
  await ship.ready();
  t.strictSame((await ship.get('/health')).json, { status: 'ok', database: 'ok' }, 'what is mended is found without anybody\'s doing');
  t.equal((await ship.get('/plugins/hello/')).status, 200);
});
