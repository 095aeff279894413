// Every way in which a plugin may misbehave: it is restarted or refused, its clients get an answer, its neighbours notice nothing, and the kernel is left clean.
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import t, { type Test } from 'tap';
import type { DeathKind } from '../../protocol/lifecycle.js';
import { BOOT_TIMEOUT_MS, DEATHS_BEFORE_QUARANTINE, HOOK_TIMEOUT_MS, LOG_LINES_PER_SECOND_MAX, SHUTDOWN_TIMEOUT_MS, STOP_TIMEOUT_MS, UNRESPONSIVE_AFTER_MS } from '../../protocol/limits.js';
import { assertClean, atRest, holdings, writeUnruly } from '../helpers/clean.js';
import { eventually, startTestKernel, type TestKernel } from '../helpers/kernel.js';
import { load } from '../helpers/load.js';
import { workerThreads } from '../helpers/scales.js';
import { everything, neighbours, type Traffic } from '../helpers/traffic.js';

/** Requests that end in an error and leave the worker alone. */
const ERRORS: readonly { readonly name: string; readonly method?: string; readonly path: string; readonly heard: readonly [number, string] }[] = [
  { name: 'a throw in a handler', path: '/sync/throw', heard: [500, 'PLUGIN_HANDLER_FAILED'] },
  { name: 'a handler that rejects', path: '/fault/reject', heard: [500, 'PLUGIN_HANDLER_FAILED'] },
  { name: 'a handler that throws a text', path: '/fault/throw-text', heard: [500, 'PLUGIN_HANDLER_FAILED'] },
  { name: 'a handler that throws nothing', path: '/fault/throw-nothing', heard: [500, 'PLUGIN_HANDLER_FAILED'] },
  { name: 'a handler that throws what must not be looked at', path: '/fault/throw-trap', heard: [500, 'PLUGIN_HANDLER_FAILED'] },
  { name: 'a handler that posts what cannot be cloned', path: '/fault/uncloneable', heard: [500, 'PLUGIN_HANDLER_FAILED'] },
  { name: 'an answer that cannot be cloned', path: '/unsendable', heard: [502, 'PLUGIN_BAD_ANSWER'] },
  { name: 'a flood of events', path: '/fault/events', heard: [503, 'EVENTS_TOO_MANY'] },
];

/** Requests that end the worker: what the client hears, and what the operator sees. */
const DEATHS: readonly { readonly name: string; readonly path: string; readonly kind: DeathKind; readonly cause: RegExp; readonly loopHeldMaxMs?: number }[] = [
  { name: 'a throw in a timer', path: '/timer/throw', kind: 'crashed', cause: /^Error: a secret at \/etc\/passwd$/ },
  { name: 'nothing thrown in a timer', path: '/timer/throw-nothing', kind: 'crashed', cause: /^Error: undefined$/ },
  { name: 'an unhandled rejection', path: '/timer/reject', kind: 'crashed', cause: /^Error: a secret at \/etc\/passwd$/ },
  { name: 'process.exit() in a handler', path: '/fault/exit', kind: 'crashed', cause: /^it called process\.exit\(3\)$/ },
  { name: 'an endless loop in a handler', path: '/fault/loop', kind: 'unresponsive', cause: /^its event loop stood still for \d{4} ms in POST \/plugins\/unruly\/fault\/loop$/ },
  { name: 'a heap full of small arrays', path: '/fault/small-arrays', kind: 'out-of-memory', cause: /^it used up its heap$/ },
  { name: 'a heap full of one growing array', path: '/fault/growing-array', kind: 'out-of-memory', cause: /^it used up its heap$/ },
  { name: 'a heap full of strings', path: '/fault/strings', kind: 'out-of-memory', cause: /^it used up its heap$/ },
  { name: 'a hoard of Buffers', path: '/fault/buffers', kind: 'out-of-memory', cause: /^it used \d{3} MiB of memory, and 110 are its limit$/ },
  { name: 'a timer that posts what cannot be cloned', path: '/timer/uncloneable', kind: 'crashed', cause: /could not be cloned\.$/ },
  { name: 'an object thrown in a timer', path: '/timer/throw-object', kind: 'crashed', cause: /no Error; the log has it$/ },
  { name: 'an object thrown in a timer that throws when it is looked at', path: '/timer/throw-trap', kind: 'crashed', cause: /^Error: a value that cannot be shown$/ },
  { name: 'ports that were closed', path: '/fault/closed-ports', kind: 'crashed', cause: /^it closed its port to the kernel$/ },
  // By all of its ports at once: either the channel is first to notice, or Piscina.
  { name: 'a message that is no frame', path: '/fault/garbage-null', kind: 'crashed', cause: /^it sent what is no frame$/ },
  { name: 'a frame of no kind', path: '/fault/garbage-object', kind: 'crashed', cause: /^it sent a undefined frame that cannot be handled|^Error: Unexpected message from Worker/ },
  { name: 'log lines that are no text', path: '/fault/garbage-log', kind: 'crashed', cause: /something else where text belongs$|^Error: Unexpected message from Worker/ },
  { name: 'a port where a number belongs', path: '/fault/garbage-ref', kind: 'crashed', cause: /something else where a number belongs$|^Error: Unexpected message from Worker/ },
  { name: 'a port where bytes belong', path: '/fault/garbage-event', kind: 'crashed', cause: /something else where bytes belong$|^Error: Unexpected message from Worker/ },
  { name: 'credit for nothing', path: '/fault/garbage-credit', kind: 'crashed', cause: /it gave credit for bytes that it never got$|^Error: Unexpected message from Worker/ },
  { name: 'a body before its head', path: '/fault/garbage-chunk', kind: 'crashed', cause: /its head is missing$|^Error: Unexpected message from Worker/ },
  { name: 'an error as long as a book', path: '/timer/throw-book', kind: 'crashed', cause: /^Error: x{100,1020}$/ },
  { name: 'a flood of frames', path: '/fault/frames', kind: 'crashed', cause: /^it sent more than \d+ frames (in a second|at once)$/, loopHeldMaxMs: 400 }, // so many frames are read first, at 1 to 2 µs each
  { name: 'a throw in a timer with nothing in flight', path: '/later/throw', kind: 'crashed', cause: /^Error: a secret/ },
  { name: 'an endless loop in a timer with nothing in flight', path: '/later/loop', kind: 'unresponsive', cause: /^its event loop stood still for \d{4} ms$/ },
  { name: 'a heap filled with nothing in flight', path: '/later/growing-array', kind: 'out-of-memory', cause: /^it used up its heap$/ },
];

t.test('a plugin that misbehaves beside others', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'hello,items,observer,unruly' });
  const traffic = await neighbours(t, kernel);
  t.test('while it runs', (t) => whileItRuns(t, kernel, traffic));
  t.test('on the way up and down', (t) => onTheWay(t, kernel, traffic));
  t.test('with deaths in a row', (t) => deathsInARow(t, kernel, traffic));
  t.test('in all of this no neighbour missed an answer', async (t) => t.strictSame(traffic.failures, []));
});

async function whileItRuns(t: Test, kernel: TestKernel, traffic: Traffic): Promise<void> {
  for (const { name, path, heard } of ERRORS) {
    t.test(`${name} is an error without a death`, async (t) => {
      const before = await atRest(kernel);
      const { generation } = await kernel.status('unruly');
      const answer = await kernel.get(`/plugins/unruly${path}`);
      t.strictSame(Object.keys(answer.json), ['statusCode', 'code', 'error', 'message', 'requestId']);
      t.strictSame([answer.status, answer.json.code], heard);
      t.notMatch(answer.text, /secret|do not look|stack|\bat /, 'nothing of the cause leaks');
      if (heard[1] === 'PLUGIN_HANDLER_FAILED') {
        const logged = await eventually('the cause is in the log', 2_000, async () => kernel.logLines.find(({ requestId, err }) => requestId === answer.json.requestId && err !== undefined));
        t.match(logged, { level: 'error', plugin: 'unruly', err: { message: /secret|text|undefined|cannot be shown|cloned/ } }, 'the operator finds it by its requestId');
      }
      const details = await kernel.status('unruly');
      t.strictSame([details.status, details.generation], ['running', generation], 'the worker lives');
      await assertClean(t, kernel, before);
    });
  }

  const die = async (t: Test, { path, kind, cause }: (typeof DEATHS)[number]): Promise<void> => {
    const { generation, restarts } = (await kernel.verb('start', 'unruly')).json; // it runs; this forgives its deaths
    const before = await atRest(kernel);
    // What it holds when it dies: connections, one of them in a transaction, and requests of others.
    await kernel.get('/plugins/unruly/lock');
    t.equal((await holdings(kernel)).transactions, 1, 'a transaction is open');
    const alone = path.startsWith('/later');
    const bystanders = alone ? [] : Array.from({ length: 2 }, () => everything(kernel.url, '/plugins/unruly/slow?ms=300'));
    if (!alone) await eventually('two requests are begun', 5_000, async () => ((await kernel.status('unruly')).requests.inFlight === 2 ? true : undefined));

    const began = performance.now();
    const guilty = await everything(kernel.url, `/plugins/unruly${path}`, 'POST');
    const death = await eventually('its death is known', 10_000, async () => (await kernel.status('unruly')).deaths.find((one) => one.generation >= generation));
    const details = await kernel.until('unruly', 'running');
    t.comment(`running again ${Math.round(performance.now() - began)} ms after the request`);
    const others = await Promise.all(bystanders);

    t.equal(guilty.answers, 1, 'the guilty request has one answer');
    if (alone) t.equal(guilty.status, 200);
    else t.strictSame([guilty.status, guilty.json.code], kind === 'unresponsive' ? [504, 'PLUGIN_UNRESPONSIVE'] : [502, 'PLUGIN_CRASHED'], 'which says what happened');
    for (const other of others) t.strictSame([other.answers, other.status, other.json], [1, 200, { done: true }], 'the others get what they asked for');
    t.match(death, { kind, cause, generation, request: alone ? null : `POST /plugins/unruly${path}` }, 'the status says what it died of and in which request');
    t.ok(Math.abs(Date.now() - death.at) < 30_000, 'and when');
    t.match([details.restarts, details.restartAt, details.error], [restarts + 1, null, null], 'it was restarted once');
    t.ok(details.generation > generation, 'as a new generation');
    t.strictSame((await kernel.get('/plugins/unruly')).json, { well: true }, 'and serves again');
    t.match(kernel.logLines.find((line) => line['plugin'] === 'unruly' && line['to'] === 'failed' && line['generation'] === generation), { level: 'warn', cause }, 'the log says it too');
    await assertClean(t, kernel, before);
  };
  // By twos: each is over before the neighbours have been asked often enough for a p99, which then is that of both.
  for (let at = 0; at < DEATHS.length; at += 2) {
    const both = DEATHS.slice(at, at + 2);
    t.test(both.map(({ name }) => name).join('; '), (t) => traffic.unnoticed(t, ...both.map((death) => ({
      run: async () => void await t.test(death.name, (t) => die(t, death)),
      ...(death.loopHeldMaxMs !== undefined && { loopHeldMaxMs: death.loopHeldMaxMs }),
    }))));
  }

  t.test('a hoard of Buffers in one endless loop', (t) => traffic.unnoticed(t, { run: async () => {
    await writeUnruly(kernel, 'hoarder', '', 'hangTimeoutMs: 2_000,');
    for (const verb of ['load', 'start'] as const) await kernel.verb(verb, 'hoarder');
    const before = await atRest(kernel);
    // Where Node cannot ask a worker in a loop, the loop itself ends it.
    const heard = 'getHeapStatistics' in Worker.prototype ? [502, 'out-of-memory', /^it used \d+ MiB of memory, and 110 are its limit$/] as const : [504, 'unresponsive', /stood still/] as const;
    t.match(await everything(kernel.url, '/plugins/hoarder/fault/buffers-in-a-loop', 'POST'), { answers: 1, status: heard[0] });
    t.match((await kernel.until('hoarder', 'running')).deaths, [{ kind: heard[1], cause: heard[2], request: 'POST /plugins/hoarder/fault/buffers-in-a-loop' }]);
    await assertClean(t, kernel, before);
    await kernel.verb('unload', 'hoarder');
  } }));

  t.test('of what nobody caught the log has the stack', async (t) => {
    for (const message of ['a secret at /etc/passwd', /could not be cloned/]) {
      t.match(kernel.logLines.find((line) => line['level'] === 'fatal' && line['plugin'] === 'unruly' && (typeof message === 'string' ? line['err'].message === message : message.test(line['err'].message))),
        { err: { stack: /faults|unruly/ }, msg: /ends the worker/ });
    }
  });

  t.test('a flood of log lines is cut, and told', (t) => traffic.unnoticed(t, { run: async () => {
    await kernel.verb('restart', 'unruly');
    const before = await atRest(kernel);
    const from = kernel.logLines.length;
    t.equal((await kernel.request('POST', '/plugins/unruly/fault/log-lines')).status, 200);
    await delay(1_100);
    await kernel.get('/plugins/unruly/fault/throw'); // the next line, which brings the count
    const flood = (): readonly Record<string, any>[] => kernel.logLines.slice(from).filter(({ msg }) => msg === 'and so on');
    t.ok(flood().length <= 2 * LOG_LINES_PER_SECOND_MAX, `${flood().length} of 5000 lines were kept`);
    t.ok(await eventually('the loss is told', 2_000, async () => kernel.logLines.slice(from).find(({ dropped }) => dropped > 3_000)));
    await assertClean(t, kernel, before);
  } }));

  t.test('an answer that never ends lasts as long as its client, and holds nothing after that', (t) => traffic.unnoticed(t, { run: async () => {
    const before = await atRest(kernel);
    const { aborted } = (await kernel.get('/plugins/unruly/heard')).json;
    const answer = await fetch(`${kernel.url}/plugins/unruly/endless`);
    const reader = answer.body!.getReader();
    for (let i = 0; i < 10; i += 1) t.notOk((await reader.read()).done);
    t.equal((await kernel.status('unruly')).requests.inFlight, 1);
    await reader.cancel();
    await eventually('the handler has heard of it', 2_000, async () => ((await kernel.get('/plugins/unruly/heard')).json.aborted === aborted + 1 ? true : undefined));
    await assertClean(t, kernel, before);
  } }));

  t.test('a pause of the event loop is reported with its request, and forgiven', async (t) => {
    const { generation } = await kernel.status('unruly');
    const from = kernel.logLines.length;
    const paused = kernel.request('POST', '/plugins/unruly/fault/pause?n=1');
    await eventually('the status calls it unresponsive', 2_000, async () => ((await kernel.status('unruly')).workers[0]?.unresponsive === true ? true : undefined));
    t.equal((await paused).status, 200);
    const line = kernel.logLines.slice(from).find(({ msg }) => /^unresponsive/.test(msg));
    t.match(line, { level: 'warn', plugin: 'unruly', generation, request: 'POST /plugins/unruly/fault/pause?n=1' });
    t.ok(line!['silentMs'] >= UNRESPONSIVE_AFTER_MS && line!['silentMs'] < 700, `after ${line!['silentMs']} ms`);
    await eventually('it is not unresponsive any more', 2_000, async () => ((await kernel.status('unruly')).workers[0]?.unresponsive === false ? true : undefined));
    t.equal((await kernel.status('unruly')).generation, generation);
  });

  t.test('a plugin that dies inside a transaction leaves no lock behind', async (t) => {
    await kernel.verb('restart', 'unruly');
    const { pid } = (await kernel.get('/plugins/unruly/lock')).json;
    const states = (): Promise<object[]> => kernel.query('SELECT state FROM pg_stat_activity WHERE pid = $1', [pid]);
    t.strictSame(await states(), [{ state: 'idle in transaction' }], 'it holds the lock');
    const waiting = kernel.request('POST', '/plugins/observer/update');
    await delay(200);
    const began = performance.now();
    t.equal((await kernel.request('POST', '/plugins/unruly/fault/exit')).status, 502);
    const updated = await waiting;
    t.strictSame([updated.status, updated.json], [200, { n: 1 }], 'the row has what it had before, and can be changed');
    t.ok(performance.now() - began < 3_000, 'at once');
    t.strictSame(await states(), [], 'the connection is gone from the server');
  });

  t.test('a service of a dead plugin is unavailable until it is back, and an event reaches each generation once', async (t) => {
    await kernel.verb('restart', 'unruly');
    t.strictSame((await kernel.get('/plugins/observer/echo')).json, { text: 'hello' });
    await kernel.request('POST', '/plugins/unruly/fault/exit');
    const heard = new Set<string>();
    await eventually('the service is back', 5_000, async () => {
      const { status, json } = await kernel.get('/plugins/observer/echo');
      heard.add(`${status} ${json.code}`);
      return status === 200 ? true : undefined;
    });
    t.strictSame([...heard].filter((one) => one !== '200 undefined' && one !== '503 SERVICE_UNAVAILABLE'), [], 'and all that is heard in between is that it is not available');
    await kernel.request('POST', '/plugins/observer/call');
    await eventually('the event arrived', 2_000, async () => ((await kernel.get('/plugins/unruly/heard')).json.heard > 0 ? true : undefined));
    await delay(50);
    t.equal((await kernel.get('/plugins/unruly/heard')).json.heard, 1);
    await kernel.verb('stop', 'unruly');
    t.match((await kernel.get('/plugins/observer/echo')).json, { statusCode: 503, code: 'SERVICE_UNAVAILABLE' }, 'a stopped one has none');
    await kernel.verb('start', 'unruly');
    t.equal((await kernel.get('/plugins/observer/echo')).status, 200);
  });

  t.test('after a stop nothing is left but the name, and after an unload nothing', async (t) => {
    await kernel.verb('start', 'unruly');
    t.equal((await kernel.get('/plugins/unruly/borrow')).json.pids.length, 2);
    const running = await kernel.status('unruly');
    t.match(running, { workers: [{ connections: 2 }], services: ['unruly.echo'] });
    const { watched } = kernel.kernel.supervisor.census();
    t.match((await kernel.verb('stop', 'unruly')).json, { status: 'stopped', workers: [], services: [] });
    await eventually('its worker is gone', 3_000, async () => (kernel.kernel.supervisor.census().workers === watched ? true : undefined)); // the others and the standby
    t.equal((await kernel.verb('unload', 'unruly')).json.status, 'registered');
    t.match((await kernel.get('/plugins/unruly')).json, { statusCode: 404, code: 'PLUGIN_NOT_LOADED' });
  });
}

interface Hook { readonly fault: string; readonly verb: 'load' | 'start' | 'stop'; readonly reason: RegExp }

/** Hooks that do not come back: the verb that fails of it, and the reason that the operator reads. */
const HANGS: readonly Hook[] = [
  { fault: 'import:hang', verb: 'load', reason: new RegExp(`its import did not finish within ${BOOT_TIMEOUT_MS} ms`) },
  { fault: 'init:hang', verb: 'load', reason: new RegExp(`init\\(\\) did not finish within ${HOOK_TIMEOUT_MS} ms`) },
  { fault: 'start:hang', verb: 'start', reason: new RegExp(`start\\(\\) did not finish within ${HOOK_TIMEOUT_MS} ms`) },
  { fault: 'stop:hang', verb: 'stop', reason: new RegExp(`stop\\(\\) did not finish within ${STOP_TIMEOUT_MS} ms`) },
];
const FAILURES: readonly Hook[] = [
  { fault: 'import:throw', verb: 'load', reason: /a secret at/ },
  { fault: 'init:reject', verb: 'load', reason: /a secret at/ },
  { fault: 'start:throw-nothing', verb: 'start', reason: /undefined/ },
  { fault: 'stop:throw-text', verb: 'stop', reason: /just text/ },
  { fault: 'import:exit', verb: 'load', reason: /process\.exit\(3\)/ },
  { fault: 'init:exit', verb: 'load', reason: /process\.exit\(3\)/ },
  { fault: 'start:exit', verb: 'start', reason: /process\.exit\(3\)/ },
  { fault: 'stop:exit', verb: 'stop', reason: /process\.exit\(3\)/ },
  { fault: 'start:buffers', verb: 'start', reason: /MiB of memory/ },
];
/** One at a time: each takes a processor for itself. */
const LOOPS: readonly Hook[] = [
  { fault: 'import:loop', verb: 'load', reason: /stood still for \d{4} ms/ },
  { fault: 'init:loop', verb: 'load', reason: /stood still for \d{4} ms/ },
  { fault: 'start:loop', verb: 'start', reason: /stood still for \d{4} ms/ },
  { fault: 'stop:loop', verb: 'stop', reason: /stood still for \d{4} ms/ },
];
/** Code that cannot be a plugin. */
const CODE: readonly { readonly name: string; readonly source: string; readonly reason: RegExp }[] = [
  { name: 'unparseable', source: 'export default {', reason: /plugin\.ts:1/ },
  { name: 'lost-import', source: "import 'a-package-that-is-not-there'; export default {};", reason: /a-package-that-is-not-there/ },
  { name: 'no-default', source: 'export const name = 1;', reason: /no default export/ },
  { name: 'wrong-manifest', source: "export default { name: 'wrong-manifest', mounts: 'x' };", reason: /`version` must be a string.*`mounts` must be an array/ },
  { name: 'misnamed', source: "export default { name: 'other', version: '1.0.0' };", reason: /"other" but its folder is "misnamed"/ },
];

async function onTheWay(t: Test, kernel: TestKernel, traffic: Traffic): Promise<void> {
  const before = await atRest(kernel);
  await traffic.unnoticed(t, { run: async () => {

    const verbs = ['load', 'start', 'stop'] as const;
    const meet = async ({ fault, verb, reason }: Hook): Promise<void> => {
      const name = fault.replace(':', '-');
      await writeUnruly(kernel, name, fault);
      for (const earlier of verbs.slice(0, verbs.indexOf(verb))) t.equal((await kernel.verb(earlier, name)).status, 200, `${fault}: ${earlier} succeeds`);
      const answer = await kernel.verb(verb, name);
      const details = await kernel.status(name);
      if (verb === 'stop') {
        t.strictSame([answer.status, details.status], [200, 'stopped'], `${fault}: the plugin is stopped all the same`);
        t.match(details.transitions.at(-1)!.cause, reason, `${fault}: and the transition says how`);
      } else {
        t.strictSame([answer.status, details.status, answer.json.code], [422, 'failed', verb === 'load' ? 'PLUGIN_LOAD_FAILED' : 'PLUGIN_START_FAILED'], `${fault}: ${verb} fails`);
        t.match(answer.json.message, reason, `${fault}: and says why`);
        t.match(details.error, reason, `${fault}: as does the status`);
        t.match(await kernel.get(`/plugins/${name}`), { status: 503, json: { code: 'PLUGIN_NOT_RUNNING' } }, `${fault}: requests are refused`);
      }
      t.strictSame(details.workers, [], `${fault}: no worker is left`);
      await kernel.writePlugin(name, '', 'fault.txt');
      const started = await kernel.verb('start', name);
      t.equal(started.status, 200, `${fault}: mended, it starts${started.status === 200 ? '' : `, and not: ${started.text}`}`);
      t.strictSame((await kernel.get(`/plugins/${name}`)).json, { well: true }, `${fault}: and serves`);
      await kernel.verb('unload', name);
    };
    const cannotBe = async ({ name, source, reason }: (typeof CODE)[number]): Promise<void> => {
      await kernel.writePlugin(name, source);
      const answer = await kernel.verb('load', name);
      t.match([answer.status, answer.json], [422, { code: 'PLUGIN_LOAD_FAILED', message: reason }], `${name}: the operator hears why`);
      t.match(await kernel.status(name), { status: 'failed', error: reason, workers: [] }, `${name}: so says the status`);
      await kernel.writePlugin(name, `export default { name: '${name}', version: '1.0.0' };`);
      t.equal((await kernel.verb('start', name)).status, 200, `${name}: mended, it starts`);
      await kernel.verb('unload', name);
    };
    const oneByOne = async (): Promise<void> => { for (const loop of LOOPS) await meet(loop); };
    const others = async (): Promise<void> => {
      for (const row of CODE) await cannotBe(row);
      for (const row of FAILURES) await meet(row);
    };
    await Promise.all([...HANGS.map(meet), others(), oneByOne()]);
  } });
  await assertClean(t, kernel, before);
}

async function deathsInARow(t: Test, kernel: TestKernel, traffic: Traffic): Promise<void> {
  for (const verb of ['load', 'start'] as const) t.equal((await kernel.verb(verb, 'unruly')).status, 200);

  t.test(`${DEATHS_BEFORE_QUARANTINE} deaths in a minute are too many, and an operator's start is a new beginning`, async (t) => {
    for (let death = 1; death <= DEATHS_BEFORE_QUARANTINE; death += 1) {
      await kernel.until('unruly', 'running');
      // Another URL each time: the second request with the same one would be its last.
      t.equal((await kernel.request('POST', `/plugins/unruly/fault/exit?n=${death}`)).status, 502);
    }
    const details = await kernel.until('unruly', 'quarantined');
    t.match(details.error, /died 5 times within 60 s: it called process\.exit\(3\)/);
    t.match(details, { workers: [], restartAt: null, restarts: DEATHS_BEFORE_QUARANTINE - 1 }, 'no worker is left and none is due');
    t.strictSame(details.deaths.map(({ kind, request }) => [kind, request]), Array.from({ length: DEATHS_BEFORE_QUARANTINE }, (_, i) => ['crashed', `POST /plugins/unruly/fault/exit?n=${i + 1}`]), 'all deaths are there');
    t.match(await kernel.get('/plugins/unruly'), { status: 503, json: { code: 'PLUGIN_QUARANTINED', message: /POST \/plugins\/start\/unruly/ } });
    t.ok(kernel.logLines.some(({ level, plugin, to }) => level === 'error' && plugin === 'unruly' && to === 'quarantined'));

    t.equal((await kernel.verb('start', 'unruly')).json.status, 'running');
    t.strictSame((await kernel.get('/plugins/unruly')).json, { well: true });
    await kernel.request('POST', '/plugins/unruly/fault/exit');
    t.equal((await kernel.until('unruly', ['running', 'quarantined'])).status, 'running', 'the next death is the first again');
  });

  t.test('a worker that dies while it is restarted is tried again with growing waits, and quarantined', (t) => traffic.unnoticed(t, { run: async (times) => {
    const name = `unlucky-${times}`;
    await writeUnruly(kernel, name, '');
    for (const verb of ['load', 'start'] as const) await kernel.verb(verb, name);
    const before = await atRest(kernel);
    await kernel.writePlugin(name, 'init:exit', 'fault.txt');
    await kernel.request('POST', `/plugins/${name}/fault/exit`);
    const waiting = await kernel.until(name, 'restarting');
    t.ok(waiting.restartAt !== null && Math.abs(waiting.restartAt - Date.now()) < 2_000, 'the status says when it is tried again');
    const details = await kernel.until(name, 'quarantined');
    const waits = details.transitions.filter(({ to }) => to === 'restarting').map(({ cause }) => Number(/\d+/.exec(cause)![0]));
    t.equal(waits[0], 0, 'the first restart is immediate');
    for (const [i, ms] of waits.slice(1).entries()) t.ok(ms >= 50 * 2 ** i && ms <= 100 * 2 ** i, `then it waits ${ms} ms`);
    t.equal(details.deaths.length, DEATHS_BEFORE_QUARANTINE, 'its deaths while it booted are listed too');
    t.match(details.error, /process\.exit\(3\)/);
    await kernel.writePlugin(name, '', 'fault.txt');
    t.equal((await kernel.verb('start', name)).status, 200, 'mended, it starts');
    await assertClean(t, kernel, before);
  } }));

  t.test('a worker that dies while it is drained answers what is open, and is stopped', async (t) => {
    await kernel.verb('restart', 'unruly');
    const before = await atRest(kernel);
    const open = everything(kernel.url, '/plugins/unruly/hold');
    await eventually('the request is begun', 5_000, async () => ((await kernel.status('unruly')).requests.inFlight === 1 ? true : undefined));
    await kernel.request('POST', '/plugins/unruly/later/exit');
    const stopped = await kernel.verb('stop', 'unruly');
    t.strictSame([stopped.status, stopped.json.status, stopped.json.workers], [200, 'stopped', []]);
    t.match(await open, { answers: 1, status: 502, json: { code: 'PLUGIN_CRASHED' } });
    t.match((await kernel.status('unruly')).deaths.at(-1), { kind: 'crashed', cause: /process\.exit/ });
    await kernel.verb('start', 'unruly');
    await assertClean(t, kernel, before);
  });
}

t.test('nobody is ended without reason', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'hello,items,observer,unruly' });
  const from = kernel.logLines.length;
  const before = await Promise.all(['hello', 'items', 'observer', 'unruly'].map(async (name) => (await kernel.status(name)).generation));
  const stall = (ms: number): void => { for (const until = performance.now() + ms; performance.now() < until;); };
  const never = everything(kernel.url, '/plugins/unruly/hold'); // meanwhile: a handler that never answers
  const full = load({ url: `${kernel.url}/plugins/hello/`, connections: 32, durationMs: 20_000 });
  for (const afterMs of [3_000, 7_000]) {
    await delay(afterMs);
    stall(2_000);
  }
  const { requestsPerSecond } = await full;
  t.comment(`${Math.round(requestsPerSecond)} requests/s, with a kernel that stood still for 2 s twice`);
  stall(2_000);
  await delay(300);
  t.match(await never, { answers: 1, status: 504, json: { code: 'PLUGIN_TIMEOUT' } }, 'a handler that never answers is answered for');
  t.equal((await kernel.status('unruly')).requests.timedOut, 1, 'and counted');
  const details = await Promise.all(['hello', 'items', 'observer', 'unruly'].map((name) => kernel.status(name)));
  t.strictSame(details.map(({ generation }) => generation), before, 'all workers live');
  t.strictSame(kernel.logLines.slice(from).filter(({ level }) => level !== 'info'), [], 'and nobody was suspected');
});

t.test('a kernel that stops lets open requests finish, and leaves no thread', async (t) => {
  const before = workerThreads();
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'hello,unruly' });
  const slow = Array.from({ length: 3 }, () => everything(kernel.url, '/plugins/unruly/slow?ms=1000'));
  const hold = everything(kernel.url, '/plugins/unruly/hold');
  await eventually('four requests are begun', 5_000, async () => ((await kernel.status('unruly')).requests.inFlight === 4 ? true : undefined));
  const began = performance.now();
  const stopping = kernel.stop();
  for (const answer of await Promise.all(slow)) t.match(answer, { answers: 1, status: 200, json: { done: true } });
  await stopping;
  t.ok(performance.now() - began < SHUTDOWN_TIMEOUT_MS, `it took ${Math.round(performance.now() - began)} ms`);
  t.match(await hold, { answers: 1, status: 502, json: { code: 'PLUGIN_CRASHED' } }, 'also the one that would never have ended has its answer');
  t.strictSame(kernel.kernel.supervisor.census(), { requests: 0, connections: 0, services: 0, subscriptions: 0, watched: 0, workers: 0, standbys: 0, berths: 0 });
  t.equal(workerThreads(), before, 'the process has no thread of it');
});
