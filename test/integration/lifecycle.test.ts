// Every verb of the operator in every state, what a plugin may do wrong on the way, and what it is given.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import type { PluginStatus, Transition } from '../../protocol/lifecycle.js';
import { HEAP_ALLOWANCE_MB, HISTORY_MAX_ENTRIES } from '../../protocol/limits.js';
import { startTestKernel, type TestKernel } from '../helpers/kernel.js';

const VERBS = ['load', 'start', 'stop', 'unload', 'restart'] as const;
type Verb = (typeof VERBS)[number];

/** A plugin that answers "I am <mark>"; `more` are further properties of its definition. */
const good = (name: string, mark = 'well', more = ''): string =>
  `export default { name: '${name}', version: '1.0.0', mounts: ['/of-${name}'], limits: { replayWaitMs: 0 }, routes(app) { app.get('/', async () => ({ mark: '${mark}' })); }, ${more} };`;
/** A plugin that runs for a moment and then ends its worker, every time. */
const dying = (name: string): string => good(name, 'dying', 'start() { setTimeout(() => process.exit(3), 20); }');
const failing = (name: string): string => good(name, 'failing', "init() { throw new Error('no anchor'); }");

/** How a plugin is brought into a state. The code is good when it is there, so that the verb after it can succeed. */
const INTO: Readonly<Record<string, (kernel: TestKernel, name: string) => Promise<void>>> = {
  registered: (kernel, name) => kernel.writePlugin(name, good(name)),
  async mounted(kernel, name) {
    await kernel.writePlugin(name, good(name));
    await kernel.verb('load', name);
  },
  async running(kernel, name) {
    await INTO['mounted']!(kernel, name);
    await kernel.verb('start', name);
  },
  async stopped(kernel, name) {
    await INTO['running']!(kernel, name);
    await kernel.verb('stop', name);
  },
  async failed(kernel, name) {
    await kernel.writePlugin(name, failing(name));
    await kernel.verb('load', name);
    await kernel.writePlugin(name, good(name));
  },
  async quarantined(kernel, name) {
    await startDying(kernel, name);
    await kernel.until(name, 'quarantined', 20_000);
  },
  async restarting(kernel, name) {
    // The fourth wait has 200 ms at least: time enough for a request and a verb.
    const waiting = new Promise<void>((resolve) => {
      let waits = 0;
      const end = kernel.kernel.supervisor.onTransition(({ plugin, to }) => {
        if (plugin !== name || to !== 'restarting' || (waits += 1) < 4) return;
        end();
        resolve();
      });
    });
    await startDying(kernel, name);
    await waiting;
  },
};

async function startDying(kernel: TestKernel, name: string): Promise<void> {
  await kernel.writePlugin(name, dying(name));
  await kernel.verb('load', name);
  // On a busy machine it may die before the verb is done, which then has failed.
  for (let tries = 0; tries < 20 && (await kernel.verb('start', name)).status !== 200; tries += 1);
  await kernel.writePlugin(name, good(name)); // restarts after deaths go on with the code that was loaded
}

type Row = Readonly<Record<Verb, readonly [status: number, state: PluginStatus]>>;
const FROM_REST: Row = { load: [200, 'mounted'], start: [200, 'running'], stop: [200, 'stopped'], unload: [200, 'registered'], restart: [200, 'running'] };
const TABLE: Readonly<Record<string, Row>> = {
  registered: { load: [200, 'mounted'], start: [409, 'registered'], stop: [409, 'registered'], unload: [200, 'registered'], restart: [409, 'registered'] },
  mounted: FROM_REST,
  running: { ...FROM_REST, load: [200, 'running'] },
  stopped: FROM_REST,
  failed: FROM_REST,
  quarantined: FROM_REST,
  restarting: FROM_REST,
};
/** What a verb that has nothing to do leaves untouched: the very worker. */
const IDLE: ReadonlySet<string> = new Set(['mounted load', 'running load', 'running start', 'stopped stop', 'registered unload']);
/** What a request to the plugin hears in each state. */
const HEARD: Readonly<Record<string, readonly [status: number, code: string | undefined]>> = {
  registered: [404, 'PLUGIN_NOT_LOADED'], mounted: [503, 'PLUGIN_NOT_RUNNING'], running: [200, undefined], stopped: [503, 'PLUGIN_NOT_RUNNING'],
  failed: [503, 'PLUGIN_NOT_RUNNING'], quarantined: [503, 'PLUGIN_QUARANTINED'], restarting: [503, 'PLUGIN_NOT_RUNNING'],
};

t.test('every verb in every state', async (t) => {
  const kernel = await startTestKernel(t);
  for (const [state, row] of Object.entries(TABLE)) {
    t.test(`a ${state} plugin`, async (t) => {
      const meet = async (verb: Verb): Promise<void> => {
        const name = `${state}-${verb}`;
        await INTO[state]!(kernel, name);
        const before = await kernel.status(name); // also lets the kernel look into its folders
        const heard = await kernel.get(`/plugins/${name}/`);
        t.equal(before.status, state, `${name}: the plugin is ${state} before the verb`);
        t.strictSame([heard.status, heard.json.code], HEARD[state], `${name}: requests hear so`);
        if (state === 'restarting') {
          t.match(heard.headers.get('retry-after'), /^[1-9]\d*$/, `${name}: with the time of the next try`);
          t.ok(before.restartAt !== null && before.restartAt > before.transitions.at(-1)!.at, `${name}: which the operator sees too`);
        } else t.equal(heard.headers.get('retry-after'), null, `${name}: without a promise`);

        const answer = await kernel.verb(verb, name);
        const [status, after] = row[verb];
        t.equal(answer.status, status, `${verb} answers ${status}`);
        if (status === 200) t.equal(answer.json.status, after, `${verb} answers with the resulting state`);
        else t.equal(answer.json.code, 'PLUGIN_CONFLICT');
        const details = await kernel.status(name);
        t.equal(details.status, after, `${verb} leads to ${after}`);
        t.equal((details.workers.length === 0), !['mounted', 'running'].includes(after), `${verb}: there is a worker only where one is of use`);
        if (IDLE.has(`${state} ${verb}`)) t.equal(details.generation, before.generation, `${verb} leaves the worker alone`);
        if (status === 409) t.match(answer.json.message, `POST /plugins/load/${name}`, `${verb}: the refusal says what to do`);
        const [heardStatus, heardCode] = HEARD[after]!;
        const again = await kernel.get(`/plugins/${name}/`);
        t.strictSame([again.status, again.json.code], [heardStatus, heardCode], `${verb}: requests hear so after it`);
        t.equal((await kernel.get(`/of-${name}`)).status, heardStatus, `${verb}: and so at its other mount`);
      };
      // A wait between restarts is short: one at a time, so that the machine has nothing else to do in it.
      if (state === 'restarting') for (const verb of VERBS) await meet(verb);
      else await Promise.all(VERBS.map(meet));
    });
  }
});

t.test('one plugin and its operators', async (t) => {
  const kernel = await startTestKernel(t);

  t.test('twenty verbs at once are carried out one after the other', async (t) => {
    const name = 'contested';
    await kernel.writePlugin(name, good(name));
    const transitions: Transition[] = [];
    t.teardown(kernel.kernel.supervisor.onTransition((transition) => { if (transition.plugin === name) transitions.push(transition); }));
    for (let round = 0; round < 3; round += 1) {
      const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => kernel.verb(VERBS[(i * 3 + round) % VERBS.length]!, name)));
      t.strictSame([...new Set(answers.map(({ status }) => status))].filter((status) => status !== 200 && status !== 409), [], 'every operator hears 200 or 409');
      t.ok(answers.some(({ status }) => status === 200), 'and some 200');
      const { status } = await kernel.status(name);
      t.ok(['registered', 'mounted', 'running', 'stopped'].includes(status), `the plugin came to rest: ${status}`);
      const row = (await kernel.get('/plugins')).json.find((plugin: { name: string }) => plugin.name === name);
      t.equal(row.status, status, 'the list says the same');
    }
    for (const [i, transition] of transitions.entries()) if (i > 0) t.equal(transition.from, transitions[i - 1]!.to, 'each transition begins where the last one ended');
    await kernel.verb('load', name);
    const started = await kernel.verb('start', name);
    t.equal(started.json.status, 'running', 'it can still be started');
    t.strictSame((await kernel.get(`/plugins/${name}/`)).json, { mark: 'well' });
  });

  t.test('an unload and a load that cross each other leave one plugin, which the list knows', async (t) => {
    const name = 'crossed';
    await kernel.writePlugin(name, good(name));
    for (let round = 0; round < 5; round += 1) {
      await kernel.verb('load', name);
      const unloaded = kernel.verb('unload', name);
      await delay(round * 3);
      const loaded = await kernel.verb('load', name);
      await unloaded;
      const { status } = await kernel.status(name);
      t.equal(loaded.status, 200);
      const heard = await kernel.get(`/plugins/${name}/`);
      t.strictSame([heard.status, heard.json.code], HEARD[status], `what requests hear fits the state ${status}`);
    }
  });

  for (const [way, verbs] of [['a restart', ['restart']], ['a stop and a start', ['stop', 'start']]] as const) {
    t.test(`${way} picks up edited code`, async (t) => {
      const name = `edited-${verbs.length}`;
      await kernel.writePlugin(name, good(name, 'first'));
      await kernel.verb('load', name);
      await kernel.verb('start', name);
      t.strictSame((await kernel.get(`/of-${name}`)).json, { mark: 'first' });
      await kernel.writePlugin(name, good(name, 'second'));
      t.strictSame((await kernel.get(`/of-${name}`)).json, { mark: 'first' }, 'not before it');
      for (const verb of verbs) t.equal((await kernel.verb(verb, name)).status, 200);
      t.strictSame((await kernel.get(`/of-${name}`)).json, { mark: 'second' });
    });
  }

  t.test('a restart into broken code fails with its reason, and mended code runs again', async (t) => {
    const name = 'broken-later';
    await INTO['running']!(kernel, name);
    await kernel.writePlugin(name, failing(name));
    const answer = await kernel.verb('restart', name);
    t.equal(answer.status, 422);
    t.match(answer.json.message, 'no anchor');
    t.equal((await kernel.status(name)).status, 'failed');
    for (const verb of ['load', 'start', 'restart'] as const) {
      t.equal((await kernel.verb(verb, name)).status, 422, `${verb} fails again`);
      t.equal((await kernel.status(name)).status, 'failed');
    }
    await kernel.writePlugin(name, good(name, 'mended'));
    t.equal((await kernel.verb('start', name)).status, 200);
    t.strictSame((await kernel.get(`/of-${name}`)).json, { mark: 'mended' });
  });

  t.test('a stop lets the open request finish, refuses new ones, and runs the hooks in order', async (t) => {
    const name = 'orderly';
    await kernel.writePlugin(name, `
      let slowDone = false;
      export default { name: 'orderly', version: '1.0.0',
        init(ctx) { ctx.log.info('hook: init'); },
        routes(app, ctx) {
          ctx.log.info('hook: routes');
          app.get('/slow', async () => { await new Promise((resolve) => setTimeout(resolve, 700)); slowDone = true; ctx.log.info('hook: slow done'); return { done: true }; });
        },
        start(ctx) {
          ctx.log.info('hook: start');
          ctx.signal.addEventListener('abort', () => ctx.log.info('hook: aborted'));
        },
        async stop(ctx) {
          await new Promise((resolve) => setTimeout(resolve, 20));
          ctx.log.info('hook: stop ' + slowDone + ' ' + ctx.signal.aborted);
        },
      };`);
    await kernel.verb('load', name);
    await kernel.verb('start', name);
    const slow = kernel.get(`/plugins/${name}/slow`);
    while ((await kernel.status(name)).requests.inFlight === 0) await delay(5);
    const stopping = kernel.verb('stop', name);
    await kernel.until(name, 'stopping');
    const refused = await kernel.get(`/plugins/${name}/slow`);
    t.strictSame([refused.status, refused.json.code], [503, 'PLUGIN_NOT_RUNNING'], 'a new request is refused while it drains');
    t.strictSame([(await slow).status, (await slow).json], [200, { done: true }], 'the open one gets its answer');
    t.equal((await stopping).json.status, 'stopped');
    const heard = kernel.logLines.filter(({ plugin, msg }) => plugin === name && String(msg).startsWith('hook: ')).map(({ msg }) => String(msg).slice(6));
    t.strictSame(heard, ['init', 'routes', 'start', 'slow done', 'aborted', 'stop true true']);
  });

  t.test('a stop waits for open requests as long as the plugin says, and no longer', async (t) => {
    await kernel.writePlugin('patient', `export default { name: 'patient', version: '1.0.0', limits: { drainTimeoutMs: 300 },
      routes(app) { app.get('/hold', () => new Promise(() => {})); } };`);
    await kernel.verb('load', 'patient');
    await kernel.verb('start', 'patient');
    const open = kernel.get('/plugins/patient/hold');
    while ((await kernel.status('patient')).requests.inFlight === 0) await delay(5);
    const began = performance.now();
    t.equal((await kernel.verb('stop', 'patient')).json.status, 'stopped');
    const waited = performance.now() - began;
    t.ok(waited >= 300 && waited < 2_000, `it took ${Math.round(waited)} ms`);
    t.match(await open, { status: 502, json: { code: 'PLUGIN_CRASHED', message: /Whether the request took effect is not known/ } });
  });

  t.test('requests that come while an operator restarts the plugin wait for it', async (t) => {
    await kernel.writePlugin('brisk', "export default { name: 'brisk', version: '1.0.0', routes(app) { app.get('/', async () => ({})); } };");
    await kernel.verb('load', 'brisk');
    const { generation } = (await kernel.verb('start', 'brisk')).json;
    const restarting = kernel.verb('restart', 'brisk');
    const heard: number[] = [];
    for (let done = false; !done;) {
      void restarting.then(() => { done = true; });
      heard.push((await kernel.get('/plugins/brisk')).status);
    }
    t.strictSame([(await restarting).json.status, (await restarting).json.generation > generation], ['running', true]);
    t.strictSame([...new Set(heard)], [200], `${heard.length} requests`);
  });

  t.test('a stop() that throws is told, and the plugin is stopped all the same', async (t) => {
    await kernel.writePlugin('sulking', good('sulking', 'well', "stop() { throw new Error('I will not go'); }"));
    await kernel.verb('load', 'sulking');
    await kernel.verb('start', 'sulking');
    const stopped = await kernel.verb('stop', 'sulking');
    t.strictSame([stopped.status, stopped.json.status, stopped.json.workers], [200, 'stopped', []]);
    t.match(stopped.json.transitions.at(-1).cause, 'I will not go');
    t.equal((await kernel.verb('start', 'sulking')).json.status, 'running');
  });

  t.test('a hook that throws is an answer with its reason', async (t) => {
    for (const [hook, code] of [['init', 'PLUGIN_LOAD_FAILED'], ['routes', 'PLUGIN_LOAD_FAILED'], ['start', 'PLUGIN_START_FAILED']] as const) {
      for (const [kind, body] of [['throws', `${hook}() { throw new Error('the ${hook} anchor dragged'); }`], ['rejects', `async ${hook}() { await null; throw new Error('the ${hook} anchor dragged'); }`]] as const) {
        const name = `${hook}-${kind}`;
        await kernel.writePlugin(name, `export default { name: '${name}', version: '1.0.0', ${body} };`);
        let answer = await kernel.verb('load', name);
        if (hook === 'start') {
          t.equal(answer.status, 200);
          answer = await kernel.verb('start', name);
        }
        t.strictSame([answer.status, answer.json.code], [422, code], `${hook} ${kind}`);
        t.match(answer.json.message, `the ${hook} anchor dragged`, 'with the message of the cause');
        const details = await kernel.status(name);
        t.strictSame([details.status, details.workers], ['failed', []], 'the plugin has failed, and no worker is left');
        t.match(details.error, `the ${hook} anchor dragged`);
        t.match(details.deaths.at(-1), { kind: 'failed', generation: details.generation });
      }
    }
  });

  t.test('thrown values that are no errors are told as they are', async (t) => {
    for (const [name, thrown, said] of [['throws-text', "'just text'", /just text/], ['throws-null', 'null', /null/], ['throws-object', '{ message: "an object" }', /an object/]] as const) {
      await kernel.writePlugin(name, `export default { name: '${name}', version: '1.0.0', init() { throw ${thrown}; } };`);
      const answer = await kernel.verb('load', name);
      t.strictSame([answer.status, answer.json.code], [422, 'PLUGIN_LOAD_FAILED']);
      t.match(answer.json.message, said);
    }
  });

  t.test('a plugin that cannot be imported is a 422 that says why', async (t) => {
    const cases: readonly (readonly [name: string, source: string, said: RegExp])[] = [
      ['syntax', 'export default {\n  name: ,\n};', /plugin\.ts:2: Unexpected ","/],
      ['toplevel', "throw new Error('thrown while importing');", /thrown while importing/],
      ['nopackage', "import x from 'no-such-package-at-all';\nexport default { name: 'nopackage', version: x };", /plugin\.ts:1: Could not resolve "no-such-package-at-all"/],
      ['nodefault', 'export const name = 1;', /no default export/],
      ['nulldefault', 'export default null;', /no default export/],
      ['misnamed', "export default { name: 'other', version: '1.0.0' };", /"other" but its folder is "misnamed"/],
      ['unversioned', "export default { name: 'unversioned' };", /`version` must be a string/],
      ['badhook', "export default { name: 'badhook', version: '1.0.0', init: 3 };", /`init` must be a function/],
      ['greedy', "export default { name: 'greedy', version: '1.0.0', limits: { heapMb: 1e9 } };", /`limits\.heapMb` must be a whole number from 16 to 4096/],
      ['unknownlimit', "export default { name: 'unknownlimit', version: '1.0.0', limits: { heap: 64 } };", /`limits\.heap` is not a limit/],
      ['healthy', "export default { name: 'healthy', version: '1.0.0', mounts: ['/health'] };", /"\/health" lies under \/health, which belongs to the kernel/],
      ['healthier', "export default { name: 'healthier', version: '1.0.0', mounts: ['/health/mine'] };", /lies under \/health/],
      ['rootmount', "export default { name: 'rootmount', version: '1.0.0', mounts: ['/'] };", /mount "\/" must be a path/],
      ['dotmount', "export default { name: 'dotmount', version: '1.0.0', mounts: ['/a/../b'] };", /must be a path/],
      ['exits', 'process.exit(7);', /process\.exit\(7\)|code 7/],
    ];
    await Promise.all(cases.map(async ([name, source, said]) => {
      await kernel.writePlugin(name, source);
      const answer = await kernel.verb('load', name);
      t.strictSame([answer.status, answer.json.code], [422, 'PLUGIN_LOAD_FAILED'], `${name} is refused`);
      t.match(answer.json.message, said);
      t.notMatch(answer.text, /\\n\s+at /, `${name}: without a stack`);
      const details = await kernel.status(name);
      t.strictSame([details.status, details.workers], ['failed', []], `${name} has failed`);
      t.match(details.error, said);
    }));
    t.equal((await kernel.get('/health')).status, 200, 'the kernel is well');
  });

  t.test('a manifest with several mistakes hears of all of them', async (t) => {
    await kernel.writePlugin('sloppy', "export default { name: 'slop', mounts: ['x'], limits: { queue: -1 } };");
    const { json } = await kernel.verb('load', 'sloppy');
    for (const said of [/folder is "sloppy"/, /`version`/, /mount "x"/, /`limits\.queue`/]) t.match(json.message, said);
  });

  t.test('a mount that another plugin has is a conflict that names the owner', async (t) => {
    await kernel.writePlugin('owner', "export default { name: 'owner', version: '1.0.0', mounts: ['/harbour'] };");
    await kernel.writePlugin('rival', "export default { name: 'rival', version: '1.0.0', mounts: ['/harbour'] };");
    t.equal((await kernel.verb('load', 'owner')).status, 200);
    const refused = await kernel.verb('load', 'rival');
    t.strictSame([refused.status, refused.json.code], [409, 'PLUGIN_CONFLICT']);
    t.match(refused.json.message, /mount \/harbour belongs to plugin "owner"/);
    t.equal((await kernel.status('rival')).status, 'failed');
    await kernel.verb('stop', 'owner');
    t.equal((await kernel.verb('load', 'rival')).status, 409, 'a stopped plugin keeps its mounts');
    await kernel.verb('unload', 'owner');
    t.equal((await kernel.verb('load', 'rival')).status, 200, 'an unloaded one gives them back');
  });

  t.test('of two plugins that want one mount at the same moment one gets it', async (t) => {
    for (const name of ['twin-a', 'twin-b']) await kernel.writePlugin(name, `export default { name: '${name}', version: '1.0.0', mounts: ['/twins'] };`);
    const answers = await Promise.all([kernel.verb('load', 'twin-a'), kernel.verb('load', 'twin-b')]);
    t.strictSame(answers.map(({ status }) => status).sort(), [200, 409]);
  });

  t.test('a plain object in plugin.js needs no import', async (t) => {
    await kernel.writePlugin('plainjs', good('plainjs', 'plain'), 'plugin.js');
    t.equal((await kernel.verb('load', 'plainjs')).status, 200, 'a folder that was just dropped in can be loaded');
    t.equal((await kernel.verb('start', 'plainjs')).status, 200);
    t.strictSame((await kernel.get('/of-plainjs')).json, { mark: 'plain' });
  });

  t.test('TypeScript, several files, definePlugin and TypeBox work in a folder that was just dropped in', async (t) => {
    await kernel.writePlugin('typed', "export const word = (n: number): string => 'ay'.repeat(n);", 'words.ts');
    await kernel.writePlugin('typed', `
      import { Type } from '@sinclair/typebox';
      import { definePlugin } from 'bulkhead/protocol';
      import { word } from './words.js';
      enum Side { Port = 2 }
      export default definePlugin({ name: 'typed', version: '2.1.0', description: 'typed', async routes(app) {
        app.get('/', { schema: { querystring: Type.Object({ n: Type.Integer({ default: Side.Port }) }) } }, async (request) => ({ word: word(request.query.n) }));
      } });`);
    const listed = (await kernel.get('/plugins')).json.find(({ name }: { name: string }) => name === 'typed');
    t.match(listed, { name: 'typed', version: null, status: 'registered' }, 'it is listed before it is loaded');
    await kernel.verb('load', 'typed');
    await kernel.verb('start', 'typed');
    t.strictSame((await kernel.get('/plugins/typed')).json, { word: 'ayay' });
    t.strictSame((await kernel.get('/plugins/typed?n=3')).json, { word: 'ayayay' });
    t.equal((await kernel.get('/plugins/typed?n=x')).status, 400);
  });

  t.test('a wish for memory in the manifest is the heap limit of the worker', async (t) => {
    await kernel.writePlugin('roomy', `
      import { getHeapStatistics } from 'node:v8';
      import { resourceLimits } from 'node:worker_threads';
      export default { name: 'roomy', version: '1.0.0', limits: { heapMb: 96 }, routes(app) {
        app.get('/', async () => ({ asked: resourceLimits.maxOldGenerationSizeMb, limitMb: getHeapStatistics().heap_size_limit / 1048576 }));
      } };`);
    for (const verb of ['load', 'start'] as const) {
      const { json } = await kernel.verb(verb, 'roomy');
      t.equal(json.workers[0].heapLimitMb, 96);
    }
    const { json } = await kernel.get('/plugins/roomy');
    t.ok(json.asked >= 96 && json.asked < 96 + HEAP_ALLOWANCE_MB, 'but for the mark by which its heap is known');
    t.ok(json.limitMb >= 96 && json.limitMb < 192, `V8 has a limit of ${json.limitMb} MiB`);
    await kernel.verb('restart', 'roomy');
    t.equal((await kernel.status('roomy')).workers[0]?.heapLimitMb, 96, 'and that of the next one');
  });

  t.test('each transition is one log line, and the last twenty are kept', async (t) => {
    const name = 'busybody';
    await INTO['running']!(kernel, name);
    for (let i = 0; i < 4; i += 1) for (const verb of ['stop', 'start'] as const) await kernel.verb(verb, name);
    const details = await kernel.status(name);
    const logged = kernel.logLines.filter(({ plugin, to }) => plugin === name && to !== undefined);
    t.equal(details.transitions.length, HISTORY_MAX_ENTRIES);
    t.equal(logged.length, 4 + 4 * 6, 'one line for each: registered to running, then four times around');
    t.strictSame(logged.slice(-HISTORY_MAX_ENTRIES).map(({ plugin, from, to, generation, cause, at, ms }) => ({ plugin, from, to, generation, cause, at, ms })), details.transitions);
    t.match(logged[0], { level: 'info', from: 'registered', to: 'initialized', cause: 'load', generation: 1, msg: `${name}: registered -> initialized (load)` });
    t.match(logged.at(-1), { from: 'started', to: 'running', cause: 'start', generation: 5 });
    t.ok(logged.every(({ ms }) => Number.isInteger(ms) && ms >= 0), 'with the time that the state before it lasted');
  });
});

t.test('a plugin is given its own settings and nothing else', async (t) => {
  // What the kernel's process knows, as in production.
  for (const [name, value] of [['DATABASE_URL', 'postgresql://a:secret@b/c'], ['OPERATOR_TOKEN', 'very-secret-token'], ['PLUGIN_TOLD_STRAY', 'from the process']] as const) {
    process.env[name] = value;
    t.teardown(() => { delete process.env[name]; });
  }
  const kernel = await startTestKernel(t, { PLUGIN_TOLD_GREETING: 'ahoy', PLUGIN_TOLD_EMPTY: '', PLUGIN_OTHER_GREETING: 'no', PLUGIN_TOLD_MORE_WORD: 'longer', OPERATOR_TOKEN: 'very-secret-token' });
  const source = (name: string): string => `export default { name: '${name}', version: '1.0.0', routes(app, ctx) { app.get('/', async () => ({ config: ctx.config, environment: { ...process.env }, name: ctx.name, argv: process.execArgv })); } };`;
  for (const name of ['told', 'told-more']) await kernel.writePlugin(name, source(name));
  for (const name of ['told', 'told-more']) {
    t.equal((await kernel.verb('load', name)).status, 401, 'the verbs need the token');
    for (const verb of ['load', 'start']) t.equal((await kernel.request('POST', `/plugins/${verb}/${name}`, undefined, { authorization: 'Bearer very-secret-token' })).status, 200);
  }
  const told = await kernel.get('/plugins/told');
  t.strictSame(told.json, { config: { GREETING: 'ahoy', EMPTY: '' }, environment: { PLUGIN_TOLD_GREETING: 'ahoy', PLUGIN_TOLD_EMPTY: '' }, name: 'told', argv: [] });
  const more = await kernel.get('/plugins/told-more');
  t.strictSame(more.json.config, { WORD: 'longer' }, 'the longest fitting name has the variable');
  t.strictSame(more.json.environment, { PLUGIN_TOLD_MORE_WORD: 'longer' });
  t.notMatch(told.text + more.text, /secret/);
});

t.test('a plugin that fails while the kernel boots is tried again, unless that is of no use', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'bulkhead-boot-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  const mark = JSON.stringify(join(dir, 'tried'));
  const drop = async (name: string, source: string): Promise<void> => {
    await mkdir(join(dir, name));
    await writeFile(join(dir, name, 'plugin.ts'), source);
  };
  await drop('second-try', `import fs from 'node:fs';` + good('second-try', 'well', `init() { if (!fs.existsSync(${mark})) { fs.writeFileSync(${mark}, ''); throw new Error('not yet'); } }`));
  await drop('never', failing('never'));
  await drop('unreadable', 'export default {');
  const kernel = await startTestKernel(t, { PLUGINS_DIR: dir, PLUGINS_ENABLED: 'second-try,never,unreadable', PLUGIN_SECOND_TRY_PERMISSIONS: `read:${dir},write:${dir}` });
  await kernel.until('second-try', 'running');
  t.match(await kernel.status('second-try'), { restarts: 1, deaths: [{ kind: 'failed', cause: /not yet/ }] });
  t.match(await kernel.until('never', 'quarantined'), { restarts: 4, error: /died 5 times within 60 s: .*no anchor/ });
  t.match(await kernel.status('unreadable'), { status: 'quarantined', restarts: 0, error: /no restart can mend it: .*plugin\.ts:1/ });
});

t.test('of several folders the earlier one wins, and one that does not exist yet is empty', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'bulkhead-dirs-'));
  t.teardown(() => rm(root, { recursive: true, force: true }));
  const drop = async (dir: string, name: string, mark: string): Promise<void> => {
    await mkdir(join(root, dir, name), { recursive: true });
    await writeFile(join(root, dir, name, 'plugin.ts'), good(name, mark));
  };
  await drop('one', 'both', 'one');
  await drop('two', 'both', 'two');
  await drop('two', 'second', 'two');
  await mkdir(join(root, 'one', 'Not-A-Name'));
  await writeFile(join(root, 'one', 'Not-A-Name', 'plugin.ts'), good('Not-A-Name'));
  const kernel = await startTestKernel(t, { PLUGINS_DIR: [join(root, 'one'), join(root, 'later'), join(root, 'two')].join(':'), PLUGINS_ENABLED: 'both,second,absent' });
  t.strictSame((await kernel.get('/plugins')).json.map(({ name, status }: { name: string; status: string }) => [name, status]), [['both', 'running'], ['second', 'running']]);
  t.strictSame((await kernel.get('/of-both')).json, { mark: 'one' });
  t.strictSame((await kernel.get('/of-second')).json, { mark: 'two' });
  t.ok(kernel.logLines.some(({ level, plugin, msg }) => level === 'error' && plugin === 'absent' && /no plugin "absent"/.test(msg)), 'an enabled plugin that is not there is a line in the log and stops nobody');

  const unknown = await kernel.verb('load', 'third');
  t.strictSame([unknown.status, unknown.json.code], [404, 'PLUGIN_UNKNOWN']);
  t.match(unknown.json.message, 'both, second');
  await drop('later', 'third', 'later');
  t.equal((await kernel.verb('load', 'third')).status, 200, 'a folder that appears later is found at once');
});
