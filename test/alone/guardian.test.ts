// Faults that end the whole kernel process, under load: nobody is refused, and only what was being answered may fail.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { KERNEL_SETTLED_AFTER_MS, REPORTS_MAX } from '../../protocol/guardian-limits.js';
import { startShip } from '../helpers/ship.js';
import { back, sink, type Sinking } from '../helpers/sinking.js';
import { SteadyLoad, type Hit } from '../helpers/steady-load.js';

/** Two of the four faults of a round leave a report: after three rounds there are more than may be kept. */
const ROUNDS = 3;

/** A client learns that its kept connection is gone a few turns of its own event loop after the guardian has learnt of the death. */
const NEWS_TRAVELS_MS = 50;

t.test('twelve faults that end the process, under 200 requests a second', async (t) => {
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
  const deaths: Sinking[] = [];
  for (let round = 1; round <= ROUNDS; round += 1) {
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
