// What becomes of a ship whose kernel process, or whose guardian, ends: all comes back as it was, and nothing is left behind.
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type * as EmbeddedModule from '../../kernel/database/embedded.js';
import { SILENT_BOOT_FAILURES_MAX } from '../../protocol/guardian-limits.js';
import { eventually, ROOT } from '../helpers/kernel.js';
import { allGone, descendants, startShip, type Ship } from '../helpers/ship.js';
import { back, sink } from '../helpers/sinking.js';

/** Asks titanic for something slow, and waits until it is at it. */
async function slowly(ship: Ship): Promise<{ readonly answer: ReturnType<Ship['get']> }> {
  const answer = ship.get('/plugins/titanic/slow');
  answer.catch(() => {});
  await eventually('the request is begun', 5_000, async () => ((await ship.get('/plugins/status/titanic')).json.requests.inFlight === 1 ? true : undefined));
  return { answer };
}

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
    await sink(ship, 'kill -9', () => process.kill(ship.kernelPid(), 'SIGKILL'));
    if (death > SILENT_BOOT_FAILURES_MAX) t.match(await ship.get('/health'), { status: 503, json: { status: 'error', reason: /ended by SIGKILL/ } });
    const ended = await ship.logged('the kernel was ended by', lines);
    const again = await back(ship, lines);
    pauses.push(again['time'] - ended['time'] - again['ms']);
  }
  t.ok(pauses.at(-1)! > 350, `they were ${pauses.map(Math.round).join(', ')} ms`);
  t.equal((await ship.get('/plugins/hello/')).status, 200, 'and then it serves again');
});

t.test('SIGTERM answers what is in flight, ends with exit code 0 and leaves no process', async (t) => {
  const ship = await startShip(t, { PLUGINS_ENABLED: 'titanic,items' });
  await ship.ready();
  const processes = await descendants(ship.pid);
  if (process.platform === 'linux') t.ok(processes.length >= 3, `there are ${processes.length} processes below the guardian`);
  const slow = await slowly(ship);
  const began = performance.now();
  process.kill(ship.pid, 'SIGTERM');
  t.match((await slow.answer).json, { slow: true });
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
    await slowly(ship);
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
