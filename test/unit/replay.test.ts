// What becomes of requests whose generation died: the verdicts, the budget, the refusals, and the waiting.
import { EventEmitter } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Dispatcher, noRequests } from '../../kernel/dispatch/dispatcher.js';
import { Exchange } from '../../kernel/dispatch/exchange.js';
import { ReplayMemory, type Orphan } from '../../kernel/dispatch/replay.js';
import { Gate } from '../../kernel/plugins/gate.js';
import { BulkheadError } from '../../protocol/errors.js';
import type { KernelToHostFrame } from '../../protocol/frames.js';
import type { Death } from '../../protocol/lifecycle.js';
import { PLUGIN_LIMITS, POISON_REFUSED_MS, REFUSED_REQUESTS_MAX, REPLAY_WINDOW_MS, REPLAYS_MIN, REQUEST_KILLS_MAX, type PluginLimits } from '../../protocol/limits.js';

/** A request without a socket; `heard` is what its client was answered. */
function request(method = 'GET', url = '/x'): { readonly exchange: Exchange; readonly heard: () => { status: number; code: string } | null } {
  const req = Object.assign(new EventEmitter(), { method, url, headers: {}, rawHeaders: [], httpVersion: '1.1', socket: {} });
  let body: { statusCode: number; code: string } | null = null;
  const res = Object.assign(new EventEmitter(), {
    headersSent: false, writableEnded: false, destroyed: false, statusCode: 200, getHeaderNames: () => [], setHeader() {}, appendHeader() {},
    end(text: string) { body = JSON.parse(text) as typeof body; },
  });
  const exchange = new Exchange(req as unknown as IncomingMessage, res as unknown as ServerResponse, 'id', { plugin: 'p', mount: '/p', url, bodyLimitBytes: 1 });
  return { exchange, heard: () => (body === null ? null : { status: body.statusCode, code: body.code }) };
}

const orphan = (exchange: Exchange, begun: boolean, suspect = false, alone = false): Orphan =>
  ({ exchange, begun, suspect, alone, cause: 'it died', error: new BulkheadError('PLUGIN_CRASHED', { name: 'p', reason: 'it died' }) });

t.test('what is tried again', async (t) => {
  const memory = new ReplayMemory();
  for (const method of ['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'POST', 'PATCH']) {
    const safe = method !== 'POST' && method !== 'PATCH';
    t.equal(memory.judge(orphan(request(method).exchange, false), 0), 'replay', `${method} that was never begun`);
    const { exchange } = request(method);
    t.equal(memory.judge(orphan(exchange, true), 0), safe ? 'replay' : 'give up', `${method} that was begun`);
    t.equal(memory.judge(orphan(exchange, true), 0), 'give up', `${method} that was begun twice`);
  }
  const { exchange } = request();
  t.equal(memory.judge(orphan(exchange, true), 0), 'replay');
  t.equal(memory.judge(orphan(exchange, false), 0), 'replay', 'and again when the second generation never began it');
});

t.test('replays have a budget, so that a plugin that dies of its load does not get all of it again', async (t) => {
  const memory = new ReplayMemory();
  const begun = (now: number): string => memory.judge(orphan(request().exchange, true), now);
  for (let i = 0; i < REPLAYS_MIN; i += 1) t.equal(begun(0), 'replay');
  t.equal(begun(0), 'give up', 'with little traffic it is a number');
  for (let i = 0; i < 1_000; i += 1) memory.count(0);
  const rest = 1_000 / 5 - REPLAYS_MIN;
  for (let i = 0; i < rest; i += 1) t.equal(begun(REPLAY_WINDOW_MS - 1), 'replay');
  t.equal(begun(REPLAY_WINDOW_MS - 1), 'give up', 'with more it is a fifth of the recent requests');
  t.equal(begun(REPLAY_WINDOW_MS + 1), 'give up', 'also a moment later');
  t.equal(begun(3 * REPLAY_WINDOW_MS), 'replay', 'and later there is a new one');
  t.equal(memory.judge(orphan(request('POST').exchange, false), 0), 'replay', 'what was never begun costs nothing');
});

t.test('a request that has ended two generations is refused for a minute', async (t) => {
  const memory = new ReplayMemory();
  const { exchange } = request('GET', '/bad?x=1');
  t.equal(memory.judge(orphan(exchange, true, true), 0), 'replay', 'once may be chance');
  t.equal(memory.refusal(request('GET', '/bad?x=1').exchange, 1), null);
  t.equal(memory.judge(orphan(exchange, true, true), 10), 'poison');
  t.equal(memory.refusal(request('GET', '/bad?x=1').exchange, 20), 'it died');
  t.equal(memory.refusal(request('GET', '/bad?x=2').exchange, 20), null, 'another URL is another request');
  t.equal(memory.refusal(request('PUT', '/bad?x=1').exchange, 20), null, 'and so is another method');
  t.equal(memory.refusal(request('GET', '/bad?x=1').exchange, 10 + POISON_REFUSED_MS), null, 'after a minute it may try again');
  memory.pardon();
  t.equal(memory.refusal(request('GET', '/bad?x=1').exchange, 20), null, 'or when the operator has intervened');
  for (let i = 0; i < 10; i += 1) t.equal(memory.judge(orphan(request('GET', '/popular').exchange, true, true), 0), 'replay', 'many requests that each were there once prove nothing');
});

t.test('one that is not tried again is known by its URL, when it was alone', async (t) => {
  const died = (memory: ReplayMemory, url: string, now: number, alone = true, method = 'POST'): string => memory.judge(orphan(request(method, url).exchange, true, true, alone), now);
  const refused = (memory: ReplayMemory, url: string, now: number, method = 'POST'): boolean => memory.refusal(request(method, url).exchange, now) !== null;

  await t.test('twice within a minute, and it is refused for a minute', async (t) => {
    const memory = new ReplayMemory();
    t.equal(died(memory, '/bad', 0), 'give up', 'once may be chance');
    t.notOk(refused(memory, '/bad', 1));
    t.equal(died(memory, '/bad', 10), 'poison');
    t.ok(refused(memory, '/bad', 20));
    t.notOk(refused(memory, '/bad?x', 20), 'another URL is another request');
    t.notOk(refused(memory, '/bad', 20, 'PATCH'), 'and so is another method');
    t.equal(memory.judge(orphan(request('POST', '/bad').exchange, false), 20), 'poison', 'one that waited behind it is not sent to the next generation');
    t.notOk(refused(memory, '/bad', 10 + POISON_REFUSED_MS), 'after a minute it may try again');
    t.equal(died(memory, '/bad', 10 + POISON_REFUSED_MS), 'give up', 'and that begins anew');
  });

  await t.test('with others it is never known which one it was', async (t) => {
    const memory = new ReplayMemory();
    for (let i = 0; i < 10; i += 1) t.equal(died(memory, '/popular', i, false), 'give up');
    t.equal(died(memory, '/popular', 10), 'give up', 'and once alone is once');
    t.notOk(refused(memory, '/popular', 11));
  });

  await t.test('different URLs have nothing to do with each other', async (t) => {
    const memory = new ReplayMemory();
    for (let i = 0; i < 10; i += 1) t.equal(died(memory, `/${i}`, i), 'give up');
    t.equal(died(memory, '/0', 10, true, 'PATCH'), 'give up');
  });

  await t.test('a death is forgotten after a minute, and when the operator has intervened', async (t) => {
    const memory = new ReplayMemory();
    t.equal(died(memory, '/rare', 0), 'give up');
    t.equal(died(memory, '/rare', POISON_REFUSED_MS), 'give up');
    memory.pardon();
    t.equal(died(memory, '/rare', POISON_REFUSED_MS + 1), 'give up');
    t.equal(died(memory, '/rare', POISON_REFUSED_MS + 2), 'poison');
    memory.pardon();
    t.notOk(refused(memory, '/rare', POISON_REFUSED_MS + 3));
  });

  await t.test('one that is tried again is counted by itself and not by its URL', async (t) => {
    const memory = new ReplayMemory();
    for (let i = 0; i < 10; i += 1) t.equal(died(memory, '/get', i, true, 'GET'), 'replay');
    const { exchange } = request('GET', '/get');
    exchange.interruptions = 1;
    t.equal(memory.judge(orphan(exchange, true, true, true), 10), 'give up', 'until it is not any more');
    t.notOk(refused(memory, '/get', 11, 'GET'), 'and then it is the first');
  });

  await t.test('no more are remembered than there are places', async (t) => {
    const memory = new ReplayMemory();
    for (let i = 0; i <= REFUSED_REQUESTS_MAX; i += 1) died(memory, `/${i}`, 0);
    t.equal(died(memory, '/1', 1), 'poison');
    t.equal(died(memory, '/0', 1), 'give up', 'the oldest made room');
  });
});

/** A gate with generations that only note what they are sent. With the test it closes and they end, so that no request waits for its timeout. */
function setup(t: Test, limits: Partial<PluginLimits> = {}) {
  const plugin = { name: 'p', requests: noRequests(), limits: { ...PLUGIN_LIMITS, ...limits }, threads: 1 };
  const gate = new Gate(plugin, () => new BulkheadError('PLUGIN_NOT_RUNNING', { name: 'p', status: 'restarting' }));
  const generation = (): { dispatcher: Dispatcher; got: string[]; die: (lastBegun: number, kind?: Death['kind'], last?: boolean) => void } => {
    const got: string[] = [];
    const dispatcher = new Dispatcher('p', plugin.limits, (frame: KernelToHostFrame) => { if (frame.kind === 'request') got.push(frame.url); }, plugin.requests);
    gate.open(dispatcher);
    t.teardown(() => {
      gate.close();
      dispatcher.abandon({ kind: 'stopped', cause: 'the test is over', generation: 1, at: 0, request: null }, 0, 0);
    });
    return {
      dispatcher, got,
      die: (lastBegun, kind = 'crashed', last = true) => {
        const orphans = dispatcher.abandon({ kind, cause: 'it died', generation: 1, at: 0, request: null }, lastBegun, 0);
        if (last) gate.wait();
        gate.takeBack(orphans);
      },
    };
  };
  return { plugin, gate, generation };
}

t.test('at the gate of a plugin that dies', async (t) => {
  await t.test('what had been begun and what had not goes to the next generation, in order', async (t) => {
    const { gate, generation, plugin } = setup(t, { concurrency: 2 });
    const first = generation();
    const requests = ['/a', '/b', '/c'].map((url) => request('GET', url));
    for (const { exchange } of requests) gate.admit(exchange);
    t.strictSame(first.got, ['/a', '/b'], 'two have a place, one waits for it');
    first.die(0);
    t.equal(gate.waiting, 3);
    gate.admit(request('POST', '/new').exchange);
    const second = generation();
    t.strictSame(second.got, ['/a', '/b']);
    t.equal(second.dispatcher.queued, 2, 'with those behind it who came meanwhile');
    t.match(plugin.requests, { admitted: 4, replayed: 3, lost: 0, shed: 0 });
    second.die(0);
    gate.close();
    t.equal(gate.waiting, 0);
  });

  await t.test('a begun POST is answered and not repeated', async (t) => {
    const { gate, generation } = setup(t);
    const first = generation();
    const post = request('POST');
    const unbegun = request('POST', '/later');
    gate.admit(post.exchange);
    gate.admit(unbegun.exchange);
    first.die(1);
    t.strictSame(post.heard(), { status: 502, code: 'PLUGIN_CRASHED' });
    t.equal(unbegun.heard(), null);
    const second = generation();
    t.strictSame(second.got, ['/later']);
    second.die(0);
    gate.close();
  });

  await t.test('the last one begun is held back until the others are done, and refused when it ends the next generation too', async (t) => {
    const { gate, generation } = setup(t);
    const first = generation();
    const innocent = request('GET', '/innocent');
    const guilty = request('GET', '/guilty');
    gate.admit(innocent.exchange);
    gate.admit(guilty.exchange);
    first.die(2);
    const second = generation();
    await delay(20);
    t.strictSame(second.got, ['/innocent']);
    innocent.exchange.fail(new BulkheadError('KERNEL_ERROR', {})); // any answer will do
    for (let i = 0; i < 100 && second.got.length < 2; i += 1) await delay(5);
    t.strictSame(second.got, ['/innocent', '/guilty']);
    second.die(2);
    t.strictSame(guilty.heard(), { status: 500, code: 'REQUEST_REFUSED' });
    t.equal(guilty.exchange.kills, REQUEST_KILLS_MAX);
    generation();
    const again = request('GET', '/guilty');
    gate.admit(again.exchange);
    t.strictSame(again.heard(), { status: 500, code: 'REQUEST_REFUSED' }, 'at the gate');
  });

  await t.test('one of several hands over to the others, and what may have ended it waits for those who died with it', async (t) => {
    const { gate, generation } = setup(t);
    const [one, two] = [generation(), generation()];
    const [innocent, , guilty] = ['/innocent', '/of-the-other', '/guilty'].map((url) => {
      const asked = request('GET', url);
      gate.admit(asked.exchange);
      return asked;
    });
    t.strictSame([one.got, two.got], [['/innocent', '/guilty'], ['/of-the-other']], 'who has the least to do is asked');
    one.die(2, 'crashed', false);
    t.strictSame(two.got, ['/of-the-other', '/innocent']);
    const three = generation();
    await delay(20);
    t.strictSame([two.got.length, three.got], [2, []], 'a new one does not end the wait');
    innocent!.exchange.fail(new BulkheadError('KERNEL_ERROR', {})); // any answer will do
    for (let i = 0; i < 100 && three.got.length < 1; i += 1) await delay(5);
    t.strictSame(three.got, ['/guilty']);
    three.die(1, 'crashed', false);
    t.strictSame(guilty!.heard(), { status: 500, code: 'REQUEST_REFUSED' });
    t.strictSame(two.got.length, 2, 'and the last one never sees it');
  });

  await t.test('a POST that was the only one begun twice is refused', async (t) => {
    const { gate, generation, plugin } = setup(t);
    const ask = (method: string, url: string): ReturnType<typeof request> => {
      const asked = request(method, url);
      gate.admit(asked.exchange);
      return asked;
    };
    const crashed = { status: 502, code: 'PLUGIN_CRASHED' };
    const refused = { status: 500, code: 'REQUEST_REFUSED' };
    for (let i = 0; i < 3; i += 1) {
      const one = generation();
      ask('POST', '/other');
      const company = ask('POST', '/bad');
      one.die(2);
      t.strictSame(company.heard(), crashed, 'in company it may be as innocent as the other');
    }
    for (let i = 0; i < 3; i += 1) {
      const one = generation();
      const stopped = ask('POST', '/bad');
      one.die(1, 'stopped');
      t.strictSame(stopped.heard(), { status: 502, code: 'PLUGIN_CRASHED' }, 'a stop is not its doing');
    }
    const first = generation();
    const once = ask('POST', '/bad');
    const unbegun = ask('GET', '/get');
    first.die(1);
    t.strictSame(once.heard(), crashed, 'those behind it were not begun');
    const second = generation();
    unbegun.exchange.fail(new BulkheadError('KERNEL_ERROR', {})); // any answer will do
    const [twice, behind] = [ask('POST', '/bad'), ask('POST', '/bad')];
    second.die(2);
    t.strictSame(twice.heard(), refused);
    t.strictSame(behind.heard(), refused, 'with the one that waited behind it');
    const { got, dispatcher } = generation();
    t.strictSame(ask('POST', '/bad').heard(), refused, 'and the next one at the gate');
    const other = ask('POST', '/other');
    gate.pardon();
    const forgiven = ask('POST', '/bad');
    t.strictSame(got, ['/other', '/bad'], 'others are served, and it is too when the operator has intervened');
    t.equal(plugin.requests.lost, 3 * 2 + 3 + 3);
    for (const { exchange } of [other, forgiven]) exchange.fail(new BulkheadError('KERNEL_ERROR', {}));
    t.equal(dispatcher.inFlight, 0);
    gate.close();
  });

  await t.test('who waits is answered after replayWaitMs, when the gate closes, or when it has left', async (t) => {
    const { gate, generation } = setup(t, { replayWaitMs: 100 });
    generation().die(0);
    const late = request();
    gate.admit(late.exchange);
    for (let i = 0; i < 200 && late.heard() === null; i += 1) await delay(5);
    t.strictSame(late.heard(), { status: 503, code: 'PLUGIN_NOT_RUNNING' });
    const dismissed = request('POST');
    gate.admit(dismissed.exchange);
    gate.close();
    t.strictSame(dismissed.heard(), { status: 503, code: 'PLUGIN_NOT_RUNNING' });
    t.equal(gate.waiting, 0, 'nobody is left');
  });

  await t.test('who is held back does not wait for the plugin any more, which is there', async (t) => {
    const { gate, generation } = setup(t, { replayWaitMs: 100 });
    const first = generation();
    const slow = request('GET', '/slow');
    const suspect = request('GET', '/suspect');
    gate.admit(slow.exchange);
    gate.admit(suspect.exchange);
    first.die(2);
    const second = generation();
    await delay(300);
    t.equal(suspect.heard(), null, 'longer than replayWaitMs');
    slow.exchange.fail(new BulkheadError('KERNEL_ERROR', {}));
    for (let i = 0; i < 100 && second.got.length < 2; i += 1) await delay(5);
    t.strictSame(second.got, ['/slow', '/suspect']);
    second.die(0);
    gate.close();
  });

  await t.test('no more wait than the queue has places', async (t) => {
    const { gate, generation, plugin } = setup(t, { queue: 2 });
    generation().die(0);
    const requests = [1, 2, 3].map(() => request());
    for (const { exchange } of requests) gate.admit(exchange);
    t.strictSame(requests.map(({ heard }) => heard()?.code), [undefined, undefined, 'PLUGIN_OVERLOADED']);
    t.equal(plugin.requests.shed, 1);
    gate.close();
  });
});
