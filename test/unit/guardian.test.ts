// What the guardian concludes: who took a kernel down, what follows, and how plugins are brought back.
import { Worker } from 'node:worker_threads';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { Harbour } from '../../kernel/guardian/harbour.js';
import { kernelEnvironment } from '../../kernel/config.js';
import { Chronicle } from '../../kernel/guardian/chronicle.js';
import { readReport, tidyReports, type Finding } from '../../kernel/guardian/report.js';
import { isHeapOf, takeHeapMark } from '../../kernel/plugins/heap-mark.js';
import { firstLife, type PriorLife } from '../../kernel/plugins/prior-life.js';
import { OFFENCE_WINDOW_MS, REPORTS_MAX } from '../../protocol/guardian-limits.js';
import { WORKER_YOUNG_GENERATION_MB } from '../../protocol/limits.js';
import { eventually } from '../helpers/kernel.js';

const MIB = 1024 * 1024;
const finding = (more: Partial<Finding>): Finding => ({ threadId: 7, heapLimitBytes: 76 * MIB, event: 'out of memory', file: 'report.json', ...more });

/** A kernel in which each plugin has the thread, and the mark of its heap, that its place gives. */
function chronicle(...plugins: readonly string[]): Chronicle {
  const made = new Chronicle(plugins);
  plugins.forEach((plugin, at) => made.note({ kind: 'thread', threadId: 7 + at, occupant: { plugin, generation: 1, heapLimitMb: 64 + at / 4 } }));
  return made;
}
const prior = (kept: Chronicle, name: string): PriorLife | undefined => kept.plugins.find((plugin) => plugin.name === name);

t.test('a plugin that takes the kernel down', async (t) => {
  const kept = chronicle('first', 'second');
  t.match(kept.judge(finding({}), 1_000), { culprit: { plugin: 'first' }, death: { kind: 'out-of-memory', generation: 1, at: 1_000 }, verdict: 'started again' }, 'is named by its thread');
  t.match(prior(kept, 'first'), { standing: { status: 'running' }, restarts: 1, deaths: [{ cause: 'it took the whole kernel down: out of memory' }] }, 'comes back once');
  t.equal(kept.judge(finding({}), 1_100), null, 'threads of a former kernel mean nothing');

  const again = (at: number, kept: Chronicle) => {
    kept.note({ kind: 'thread', threadId: 3, occupant: { plugin: 'first', generation: 2, heapLimitMb: 64 } });
    return kept.judge(finding({ threadId: 3, heapLimitBytes: null }), at);
  };
  t.match(again(1_000 + OFFENCE_WINDOW_MS - 1, kept), { death: { kind: 'crashed' }, verdict: 'quarantined' }, 'and is quarantined the second time');
  t.match(prior(kept, 'first'), { standing: { status: 'quarantined', fault: { code: 'PLUGIN_CRASHED', message: /2 times within 10 minutes/ } } });
  t.strictSame(prior(kept, 'second'), firstLife('second'), 'which leaves the others alone');
  kept.note({ kind: 'plugin', name: 'first', prior: firstLife('first') });
  t.match(again(1_000 + OFFENCE_WINDOW_MS, kept), { verdict: 'started again' }, 'an operator who lets it out forgives');

  const loading = new Chronicle([]);
  loading.note({ kind: 'thread', threadId: 7, occupant: { plugin: 'third', generation: 1, heapLimitMb: 64 } });
  t.match(loading.judge(finding({}), 0), { culprit: { plugin: 'third' }, verdict: 'not loaded' }, 'one that was just being loaded is named, and not tried again');
  t.strictSame(loading.plugins, []);

  const slow = chronicle('first');
  slow.judge(finding({}), 0);
  t.match(again(OFFENCE_WINDOW_MS, slow), { verdict: 'started again' }, 'ten minutes forgive as well');
});

t.test('where Node does not name the thread', async (t) => {
  t.match(chronicle('first', 'second', 'third').judge(finding({ threadId: null, heapLimitBytes: (64.25 + 12) * MIB }), 0), { culprit: { plugin: 'second' } }, 'the heap tells');
  t.match(chronicle('first', 'second', 'third').judge(finding({ threadId: null, heapLimitBytes: (64.5 + 12 + 32) * MIB }), 0), { culprit: { plugin: 'third' } }, 'also with what Node grants at the end');
  t.equal(chronicle('first').judge(finding({ threadId: null, heapLimitBytes: 2_096 * MIB }), 0), null, 'the heap of the kernel itself is nobody\'s');
  t.equal(chronicle('first').judge(finding({ threadId: null, heapLimitBytes: null }), 0), null, 'and nobody is blamed without a heap');
  t.equal(chronicle('first').judge(finding({ threadId: 0 }), 0), null, 'nor for the kernel\'s own thread');
  t.equal(chronicle('first').judge(null, 0), null, 'nor without a report');
});

t.test('each worker has a heap limit of its own, and V8 keeps to it', async (t) => {
  const marks = [takeHeapMark(), takeHeapMark(), takeHeapMark()];
  t.strictSame(marks.map(({ extraMb }) => extraMb), [0, 0.25, 0.5]);
  marks[1]!.release();
  t.equal(takeHeapMark().extraMb, 0.25, 'a mark that is free is taken again');
  const limits = await Promise.all([64, 64.25, 79.75].map(async (maxOldGenerationSizeMb) => {
    const code = `require('node:worker_threads').parentPort.postMessage(require('node:v8').getHeapStatistics().heap_size_limit)`;
    const worker = new Worker(code, { eval: true, env: {}, execArgv: [], resourceLimits: { maxOldGenerationSizeMb, maxYoungGenerationSizeMb: WORKER_YOUNG_GENERATION_MB } });
    const [limit] = (await once(worker, 'message')) as [number];
    await worker.terminate();
    return limit;
  }));
  t.strictSame(limits.map((limit) => [64, 64.25, 79.75].map((old) => isHeapOf(limit, old))), [[true, false, false], [false, true, false], [false, false, true]]);
});

t.test('the harbour', async (t) => {
  const turnedAway: Socket[] = [];
  const harbour = new Harbour((socket) => {
    turnedAway.push(socket);
    socket.end('sorry');
  });
  t.teardown(() => harbour.close());
  const { port } = await harbour.listen('127.0.0.1', 0);
  const given = { former: [] as number[], next: [] as number[] };
  const kernel = (name: keyof typeof given) => ({ give: (id: number) => void given[name].push(id) });
  const arrive = async (): Promise<Socket> => {
    const socket = connect(port, '127.0.0.1');
    t.teardown(() => socket.destroy());
    await once(socket, 'connect');
    return socket;
  };
  const has = (what: string, list: readonly unknown[], length: number): Promise<true> => eventually(what, 5_000, async () => (list.length === length ? true : undefined));

  await arrive();
  harbour.open(kernel('former'));
  await has('who came before the kernel is given to it', given.former, 1);
  await arrive();
  await has('who comes after it too', given.former, 2);
  harbour.taken(given.former[0]!);
  harbour.hold();
  const waiting = await arrive();
  harbour.open(kernel('next'));
  await has('the next kernel gets who was not taken, and who came meanwhile', given.next, 2);
  t.notOk(given.next.includes(given.former[0]!), 'and nobody whom the former one has taken');
  harbour.hold();
  harbour.shut();
  t.equal(turnedAway.length, 2, 'when there will be no kernel, who waits is turned away');
  t.equal(String((await once(waiting, 'data'))[0]), 'sorry');
  await arrive();
  await has('who comes then is turned away as well', turnedAway, 3);
  await t.rejects(new Harbour(() => {}).listen('127.0.0.1', port), { code: 'EADDRINUSE' }, 'a port that is taken is an error');
});

t.test('what plugins are brought back', async (t) => {
  const kept = new Chronicle(['first', 'second']);
  const stopped: PriorLife = { ...firstLife('third'), standing: { status: 'stopped' }, generation: 4 };
  kept.note({ kind: 'plugin', name: 'third', prior: stopped });
  kept.note({ kind: 'plugin', name: 'first', prior: null });
  t.strictSame(kept.plugins, [firstLife('second'), stopped], 'as the kernel last said');
});

t.test('reports', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'bulkhead-reports-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const write = (name: string, content: unknown): Promise<void> => writeFile(join(folder, name), typeof content === 'string' ? content : JSON.stringify(content));
  const report = (threadId: number | null, trigger = 'OOMError') => ({ header: { threadId, event: 'e', trigger }, javascriptHeap: { memoryLimit: 5 } });
  await write('report.20261123.022430.31.1.001.json', report(1));
  await write('report.20261123.022431.31.0.002.json', report(null));
  await write('report.20261123.022432.32.2.001.json', report(2, 'FatalError'));
  await write('report.20261123.022433.33.2.001.json', '{"header":{"thr');
  await write('notes.txt', '');
  t.match(await readReport(folder, 31), { threadId: null, heapLimitBytes: 5, file: /002\.json$/ }, 'the newest of the process counts');
  t.match(await readReport(folder, 32), { threadId: 2, heapLimitBytes: null });
  t.equal(await readReport(folder, 33), null, 'half a report is none');
  t.equal(await readReport(folder, 34), null);
  t.equal(await readReport(join(folder, 'not there'), 31), null);
  for (let i = 1; i <= REPORTS_MAX; i += 1) await write(`report.20261124.000000.9.0.00${i}.json`, '');
  await tidyReports(folder);
  t.strictSame((await readdir(folder)).sort(), ['notes.txt', ...Array.from({ length: REPORTS_MAX }, (_, i) => `report.20261124.000000.9.0.00${i + 1}.json`)], 'only the newest are kept');
});

t.test('the environment of the kernel\'s process holds nothing secret, and no options for Node', async (t) => {
  const environment = kernelEnvironment({ PATH: '/bin', HOME: '/root', LANG: 'C', LC_ALL: 'C', TZ: 'UTC', NODE_OPTIONS: '--max-old-space-size=64', DATABASE_URL: 'postgresql://u:p@h/d', OPERATOR_TOKEN: 'secret', PLUGIN_A_KEY: 'x' });
  t.strictSame(environment, { PATH: '/bin', HOME: '/root', LANG: 'C', LC_ALL: 'C', TZ: 'UTC' });
});
