// The pure parts of supervision: when to restart, who has a path, who hangs, whose turn it is.
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { Mounts } from '../../kernel/plugins/mounts.js';
import { judge, type Setback } from '../../kernel/plugins/restart-policy.js';
import { Turnstile } from '../../kernel/plugins/turnstile.js';
import { Watchdog } from '../../kernel/plugins/watchdog.js';
import { TRANSITIONS, type PluginStatus } from '../../protocol/lifecycle.js';
import { BACKOFF_MAX_MS, DEATHS_BEFORE_QUARANTINE, DEATH_WINDOW_MS, HEARTBEAT_REST_INTERVAL_MS, UNRESPONSIVE_AFTER_MS, WATCHDOG_BUSY_INTERVAL_MS, WATCHDOG_QUIET_AFTER_MS } from '../../protocol/limits.js';
import { StatusBlock } from '../../protocol/status-block.js';

t.test('the restart policy', async (t) => {
  const at = (...times: readonly number[]): Setback[] => times.map((time) => ({ at: time, excused: false }));
  t.strictSame(judge(at(1_000), 1_000, 0), { action: 'restart', delayMs: 0 }, 'restarts at once after the first death');
  t.strictSame(judge(at(0, 1_000), 1_000, 0), { action: 'restart', delayMs: 50 }, 'waits half of 100 ms with the least jitter');
  t.strictSame(judge(at(0, 1_000), 1_000, 0.999), { action: 'restart', delayMs: 100 }, 'and all of it with the most');
  t.strictSame(judge(at(0, 1, 2, 3), 3, 0.999), { action: 'restart', delayMs: 400 }, 'doubles with each death');
  const deaths = Array.from({ length: DEATHS_BEFORE_QUARANTINE }, (_, i) => i * 10);
  t.match(judge(at(...deaths), 50, 0), { action: 'quarantine', reason: /5 times within 60 s/ }, 'gives up after five deaths in a minute');
  const later = deaths.at(-1)! + DEATH_WINDOW_MS;
  t.strictSame(judge(at(...deaths, later), later, 0), { action: 'restart', delayMs: 0 }, 'forgets deaths after a minute of health');
  const slow = Array.from({ length: 15 }, (_, i) => i * 20_000);
  t.strictSame(judge(at(...slow), slow.at(-1)!, 0.999_999), { action: 'restart', delayMs: BACKOFF_MAX_MS }, 'goes on doubling, up to 30 s, for one that dies every 20 s');
  for (let count = 1; count < DEATHS_BEFORE_QUARANTINE; count += 1) {
    const verdict = judge(at(...Array.from({ length: count }, () => 0)), 0, 0.5);
    t.ok(verdict.action === 'restart' && verdict.delayMs <= BACKOFF_MAX_MS, `${count} deaths wait at most 30 s`);
  }
  const excused = Array.from({ length: 15 }, (_, i) => ({ at: i * 10, excused: true }));
  t.strictSame(judge(excused, 150, 0.999_999), { action: 'restart', delayMs: BACKOFF_MAX_MS }, 'never gives up on one that only lacked its database');
  t.match(judge([...excused, ...at(...deaths)], 200, 0), { action: 'quarantine' }, 'which excuses no deaths of another cause');
});

t.test('a path belongs to the longest mount, in whole segments', async (t) => {
  const mounts = new Mounts<string>();
  mounts.set('items', ['/items', '/plugins/items']);
  mounts.set('deep', ['/items/special/offers', '/plugins/deep']);
  const owner = (path: string): string | undefined => mounts.resolve(path)?.owner;
  t.equal(owner('/items'), 'items');
  t.equal(owner('/items/'), 'items');
  t.equal(owner('/items/5'), 'items');
  t.equal(owner('/items/special'), 'items');
  t.equal(owner('/items/special/offers'), 'deep');
  t.equal(mounts.resolve('/items/special/offers/1')?.prefix, '/items/special/offers');
  t.equal(owner('/itemsets'), undefined, 'a longer word is another word');
  t.equal(owner('/'), undefined);
  t.equal(owner(''), undefined);
  t.equal(owner('/plugins'), undefined);
  const before = mounts.version;
  mounts.set('items', []);
  t.equal(owner('/items/5'), undefined, 'what is taken away is gone');
  t.equal(owner('/items/special/offers'), 'deep', 'and nothing else is');
  t.not(mounts.version, before, 'the table says that it changed');
});

t.test('the watchdog', async (t) => {
  /** A watchdog with a clock of its own; `pass` looks every interval, as its timer would. */
  const setup = (hangTimeoutMs = 1_000) => {
    let now = 0;
    let bytes: number | null = null;
    let measured = 0;
    const watchdog = new Watchdog(() => now);
    const status = new StatusBlock();
    const reports: string[] = [];
    const watched = {
      status, busy: () => false, unresponsiveAfterMs: UNRESPONSIVE_AFTER_MS, hangTimeoutMs, memoryMaxBytes: 1_000,
      measure: async () => (measured += 1, bytes),
      onUnresponsive: (silentMs: number) => reports.push(`unresponsive ${silentMs}`),
      onHang: (silentMs: number) => reports.push(`hang ${silentMs}`),
      onMemoryWarning: (bytes: number) => reports.push(`warning ${bytes}`),
      onMemoryExceeded: (bytes: number) => reports.push(`exceeded ${bytes}`),
    };
    watchdog.watch(watched);
    t.teardown(() => watchdog.unwatch(watched));
    const pass = (ms: number, beats: boolean): void => {
      for (let passed = 0; passed < ms; passed += WATCHDOG_BUSY_INTERVAL_MS) {
        now += WATCHDOG_BUSY_INTERVAL_MS;
        if (beats) status.beat();
        watchdog.look();
      }
    };
    return { watchdog, watched, reports, pass, has: (now: number | null) => { bytes = now; }, measured: () => measured, sleep: (ms: number) => { now += ms; }, jump: (ms: number) => { now += ms; watchdog.look(); } };
  };

  await t.test('says nothing while the heart beats', async (t) => {
    const { reports, pass } = setup();
    pass(60_000, true);
    t.strictSame(reports, []);
  });
  await t.test('reports a silence once, then ends it', async (t) => {
    const { reports, pass, watchdog, watched } = setup();
    pass(700, false);
    t.strictSame(reports, [`unresponsive ${UNRESPONSIVE_AFTER_MS}`]);
    t.equal(watchdog.silent(watched), true);
    pass(10_000, false);
    t.strictSame(reports, [`unresponsive ${UNRESPONSIVE_AFTER_MS}`, 'hang 1000']);
  });
  await t.test('knows that a heart that rests beats seldom', async (t) => {
    const { reports, pass, watched } = setup();
    watched.status.resting = true;
    pass(HEARTBEAT_REST_INTERVAL_MS, false);
    t.strictSame(reports, []);
    pass(10_000, false);
    t.match(reports, [/^unresponsive 5[01]\d$/, /^hang 10[01]\d$/], 'and that one that stands still does not');
  });
  await t.test('forgives a silence that ended', async (t) => {
    const { reports, pass, watchdog, watched } = setup();
    pass(900, false);
    pass(100, true);
    t.equal(watchdog.silent(watched), false);
    pass(900, false);
    t.equal(reports.filter((report) => report.startsWith('hang')).length, 0);
  });
  await t.test('forgets the silence of one that is watched anew', async (t) => {
    const { reports, pass, watchdog, watched } = setup(5_000);
    pass(2_000, false);
    watched.hangTimeoutMs = 1_000;
    watchdog.watch(watched);
    pass(900, false);
    t.notOk(reports.some((report) => report.startsWith('hang')), 'what was right before it is no hang after it');
    pass(150, false);
    t.equal(reports.at(-1), 'hang 1000');
  });
  await t.test('blames nobody for a kernel that stood still itself', async (t) => {
    const { reports, pass, jump } = setup();
    pass(300, true);
    jump(2_000);
    pass(WATCHDOG_BUSY_INTERVAL_MS, true);
    jump(5_000);
    t.strictSame(reports, []);
    pass(1_200, false);
    t.equal(reports.at(-1)?.startsWith('hang'), true, 'and still sees a hang after that');
  });
  await t.test('also when the first thing after that is a request', async (t) => {
    const { reports, pass, watchdog, jump, sleep } = setup();
    pass(300, true);
    sleep(2_000);
    watchdog.hurry();
    jump(WATCHDOG_BUSY_INTERVAL_MS);
    t.strictSame(reports, []);
  });
  await t.test('looks often while requests are under way, and seldom in the quiet', async (t) => {
    let busy = true;
    let looks = 0;
    const watchdog = new Watchdog(() => (looks += 1, performance.now()));
    const { watched } = setup(60_000);
    const one = { ...watched, busy: () => busy };
    watchdog.watch(one);
    t.teardown(() => watchdog.unwatch(one));
    const count = async (ms: number): Promise<number> => {
      const before = looks;
      await delay(ms);
      return looks - before;
    };
    const quiet = await count(1_000);
    watchdog.hurry();
    const hurried = await count(1_000);
    busy = false;
    await delay(WATCHDOG_QUIET_AFTER_MS);
    t.ok(hurried > 2 * quiet, `${hurried} looks in a busy second, ${quiet} in a quiet one`);
    t.ok((await count(1_000)) < hurried / 2, 'and seldom again');
  });
  await t.test('reports memory near the limit once, and ends what passes it', async (t) => {
    const { reports, pass, watched } = setup();
    const use = (heapUsed: number, external: number): void => {
      watched.status.memory = { heapUsed, external, arrayBuffers: external };
      pass(WATCHDOG_BUSY_INTERVAL_MS * 3, true);
    };
    use(300, 400);
    use(300, 600);
    use(300, 610);
    t.strictSame(reports, ['warning 900'], 'once');
    use(300, 100);
    use(300, 600);
    t.strictSame(reports, ['warning 900', 'warning 900'], 'and again when it comes near again');
    use(300, 701);
    use(300, 900);
    t.strictSame(reports.slice(2), ['exceeded 1001'], 'and once when it passes');
  });
  await t.test('asks one that is silent for its memory, and ends it for that before it hangs', async (t) => {
    const { reports, pass, has, measured } = setup(10_000);
    has(1_000);
    pass(1_000, true);
    t.equal(measured(), 0, 'not while it can say itself');
    pass(400, false);
    await delay(0);
    t.equal(measured(), 1, 'not again before it has answered');
    t.strictSame(reports, [], 'what is allowed is allowed');
    has(1_001);
    pass(WATCHDOG_BUSY_INTERVAL_MS, false);
    await delay(0);
    t.strictSame(reports, ['exceeded 1001']);
    pass(20_000, false);
    t.equal(reports.length, 1, 'once');
  });
  await t.test('leaves one that cannot be asked to the hang', async (t) => {
    const { reports, pass, has } = setup(300);
    has(null);
    pass(280, false);
    await delay(0);
    t.strictSame(reports, []);
    pass(WATCHDOG_BUSY_INTERVAL_MS, false);
    t.strictSame(reports, ['hang 300']);
  });
  await t.test('keeps to the time that each plugin has set', async (t) => {
    const { reports, pass } = setup(5_000);
    pass(4_900, false);
    t.equal(reports.length, 1);
    pass(200, false);
    t.equal(reports.at(-1), 'hang 5000');
  });
});

t.test('a turnstile lets its number in, in order, and survives failures', async (t) => {
  const turnstile = new Turnstile(2);
  const order: string[] = [];
  let inside = 0;
  let most = 0;
  const task = (name: string, fails = false) => turnstile.run(async () => {
    inside += 1;
    most = Math.max(most, inside);
    order.push(name);
    await delay(5);
    inside -= 1;
    if (fails) throw new Error(name);
    return name;
  });
  const results = await Promise.allSettled([task('a'), task('b', true), task('c'), task('d'), task('e', true), task('f')]);
  t.strictSame(results.map(({ status }) => status), ['fulfilled', 'rejected', 'fulfilled', 'fulfilled', 'rejected', 'fulfilled']);
  t.strictSame(order, ['a', 'b', 'c', 'd', 'e', 'f']);
  t.equal(most, 2);
  t.equal(turnstile.busy, false);
});

t.test('every state can be left, and every state but the first can be reached', async (t) => {
  const states = Object.keys(TRANSITIONS) as PluginStatus[];
  for (const state of states) {
    t.ok(TRANSITIONS[state].length > 0, `${state} can be left`);
    t.ok(states.some((from) => TRANSITIONS[from].includes(state)), `${state} can be reached`);
  }
  t.notOk(TRANSITIONS.running.includes('restarting'), 'a death is always recorded as a failure first');
});
