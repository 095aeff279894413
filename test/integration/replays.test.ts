// What becomes of requests whose plugin dies under them or is away for a moment: tried again when that is safe, else answered, and never more than once.
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { DEATHS_BEFORE_QUARANTINE, PLUGIN_LIMITS } from '../../protocol/limits.js';
import { assertClean, atRest, writeUnruly } from '../helpers/clean.js';
import { eventually, rawRequest, startTestKernel, type TestKernel } from '../helpers/kernel.js';
import { everything } from '../helpers/traffic.js';

const inFlight = (kernel: TestKernel, count: number, name = 'unruly'): Promise<true> =>
  eventually(`${count} requests are in flight`, 5_000, async () => ((await kernel.status(name)).requests.inFlight === count ? true : undefined));

t.test('requests whose plugin dies', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'observer,unruly' });
  const url = (path: string): string => `/plugins/unruly${path}`;

  /** A test that begins and ends with a kernel at rest and a plugin whose deaths are forgiven. */
  const test = (name: string, body: (t: Test) => Promise<void>): void => {
    t.test(name, async (t) => {
      await kernel.verb('start', 'unruly');
      const before = await atRest(kernel);
      await body(t);
      await kernel.until('unruly', 'running');
      await assertClean(t, kernel, before);
    });
  };

  test('one that was never begun is tried again, whatever its method', async (t) => {
    const loop = everything(kernel.url, url('/fault/loop'), 'POST');
    await inFlight(kernel, 1);
    const { replayed } = (await kernel.status('unruly')).requests;
    // The loop has the worker: these wait in its port.
    const others = ['POST', 'PATCH', 'GET'].map((method) => everything(kernel.url, url(`/slow?ms=1&${method}`), method));
    t.match(await loop, { answers: 1, status: 504, json: { code: 'PLUGIN_UNRESPONSIVE' } });
    for (const other of await Promise.all(others)) t.match(other, { answers: 1, status: 200, json: { done: true } });
    t.equal((await kernel.status('unruly')).requests.replayed, replayed + 3, 'and counted');
    t.equal((await kernel.get(url('/heard'))).json.begun, 4, 'the new generation has had each of them once');
  });

  test('one that was begun is tried again when its method is idempotent', async (t) => {
    const methods = ['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS'];
    const others = methods.map((method) => everything(kernel.url, url('/slow?ms=400'), method));
    await inFlight(kernel, methods.length);
    t.match(await everything(kernel.url, url('/fault/exit'), 'POST'), { answers: 1, status: 502 });
    for (const [i, other] of (await Promise.all(others)).entries()) t.match(other, { answers: 1, status: 200 }, methods[i]!);
    t.equal((await kernel.get(url('/heard'))).json.begun, methods.length + 1, 'the new generation has had each of them once');
  });

  test('one that was begun is not tried again when it might happen twice', async (t) => {
    const { lost } = (await kernel.status('unruly')).requests;
    const others = ['POST', 'PATCH'].map((method) => everything(kernel.url, url('/slow?ms=400'), method));
    await inFlight(kernel, 2);
    await everything(kernel.url, url('/fault/exit'), 'POST');
    for (const other of await Promise.all(others)) t.match(other, { answers: 1, status: 502, json: { code: 'PLUGIN_CRASHED', message: /Whether the request took effect is not known/ } });
    t.equal((await kernel.status('unruly')).requests.lost, lost + 3);
  });

  test('one that was interrupted twice is given up, without being blamed', async (t) => {
    const other = everything(kernel.url, url('/slow?ms=3000'));
    for (let death = 0; death < 2; death += 1) {
      await inFlight(kernel, 1);
      t.equal((await everything(kernel.url, url('/fault/exit'), 'POST')).status, 502);
      await kernel.until('unruly', 'running');
    }
    t.match(await other, { answers: 1, status: 502, json: { code: 'PLUGIN_CRASHED' } });
    t.equal((await kernel.get(url('/slow?ms=1'))).status, 200, 'nor is its path refused');
  });

  test('one that ends two generations is refused, until the operator forgives it; others come through', async (t) => {
    const { generation, restarts } = await kernel.status('unruly');
    const others = Array.from({ length: 5 }, () => everything(kernel.url, url('/slow?ms=200')));
    await inFlight(kernel, 5);
    const guilty = await everything(kernel.url, url('/fault/exit?n=1'));
    t.match(guilty, { answers: 1, status: 500, json: { code: 'REQUEST_REFUSED', message: /GET \/plugins\/unruly\/fault\/exit\?n=1 has ended plugin "unruly" 2 times \(it called process\.exit\(3\)\)/ } });
    for (const other of await Promise.all(others)) t.match(other, { answers: 1, status: 200, json: { done: true } });
    const details = await kernel.until('unruly', 'running');
    t.equal(details.restarts, restarts + 2);
    t.strictSame(details.deaths.filter((death) => death.generation >= generation).map(({ request }) => request), Array.from({ length: 2 }, () => `GET ${url('/fault/exit?n=1')}`), 'both deaths name it');

    const began = performance.now();
    t.match(await kernel.get(url('/fault/exit?n=1')), { status: 500, json: { code: 'REQUEST_REFUSED' } }, 'it is refused at once');
    t.ok(performance.now() - began < 500);
    t.equal((await kernel.status('unruly')).generation, details.generation, 'and ends nobody any more');
    t.equal((await kernel.get(url('/slow?ms=1'))).status, 200, 'other requests are served');
    t.equal((await kernel.request('POST', url('/fault/exit?n=1'))).status, 502, 'also with its URL and another method');
    await kernel.until('unruly', 'running');

    await kernel.verb('start', 'unruly');
    t.equal((await kernel.get(url('/fault/exit?n=1'))).status, 500, 'forgiven, it is tried again');
    t.equal((await kernel.until('unruly', 'running')).restarts, restarts + 5, 'and has ended two more');
  });

  test('one that is not tried again is refused when it has ended two generations alone, until the operator forgives it', async (t) => {
    const { restarts } = await kernel.status('unruly');
    const post = (): ReturnType<TestKernel['request']> => kernel.request('POST', url('/fault/exit?n=2'));
    t.match(await post(), { status: 502, json: { code: 'PLUGIN_CRASHED' } }, 'the first death may be chance');
    await kernel.until('unruly', 'running');
    t.match(await post(), { status: 500, json: { code: 'REQUEST_REFUSED', message: /POST \/plugins\/unruly\/fault\/exit\?n=2 has ended plugin "unruly" 2 times \(it called process\.exit\(3\)\)/ } });
    const details = await kernel.until('unruly', 'running');
    for (let i = 0; i < DEATHS_BEFORE_QUARANTINE; i += 1) t.match(await post(), { status: 500, json: { code: 'REQUEST_REFUSED' } }, 'a client that does not give up is refused');
    t.match(await kernel.status('unruly'), { status: 'running', generation: details.generation, restarts: restarts + 2 }, 'and ends nobody any more');
    t.equal((await kernel.request('POST', url('/slow?ms=1'))).status, 200, 'other requests are served');
    t.equal((await kernel.get(url('/slow?ms=1'))).status, 200);

    await kernel.verb('start', 'unruly');
    t.equal((await post()).status, 502, 'forgiven, it is begun again');
  });

  test('of two that are near every death together neither is refused', async (t) => {
    for (let death = 0; death < 3; death += 1) {
      const innocent = kernel.request('POST', url('/slow?ms=1500'));
      await inFlight(kernel, 1);
      for (const { status, json } of await Promise.all([kernel.request('POST', url('/fault/exit?n=3')), innocent])) t.strictSame([status, json.code], [502, 'PLUGIN_CRASHED']);
      await kernel.until('unruly', 'running');
    }
    t.equal((await kernel.request('POST', url('/slow?ms=1500'))).status, 200);
  });

  test('an upload of which a part has left is not tried again, one that was small enough is, with its body', async (t) => {
    const chunked = `transfer-encoding: chunked\r\ncontent-type: application/octet-stream\r\n\r\n5\r\nhello\r\n`;
    const partly = upload(t, kernel.url, `PUT ${url('/hold')} HTTP/1.1\r\nhost: test\r\n${chunked}`);
    const whole = rawRequest(kernel.url, 'PUT', url('/slow?ms=300'), { headers: { 'content-type': 'application/octet-stream' }, body: 'hello' });
    await inFlight(kernel, 2);
    await delay(50);
    await everything(kernel.url, url('/fault/exit'), 'POST');
    t.match(await partly.answer, /^HTTP\/1\.1 502 /);
    t.match(await whole, { status: 200, json: { done: true } });
    partly.socket.destroy();
  });

  test('an answer of which a part has left is cut, and not begun again', async (t) => {
    const answer = await fetch(`${kernel.url}${url('/endless')}`);
    const reader = answer.body!.getReader();
    t.notOk((await reader.read()).done);
    await everything(kernel.url, url('/fault/exit'), 'POST');
    await t.rejects((async () => { while (!(await reader.read()).done); })(), /terminated/, 'so that its client knows');
  });

  test('a client that leaves while its request waits is forgotten', async (t) => {
    const { socket } = upload(t, kernel.url, `GET ${url('/hold')} HTTP/1.1\r\nhost: test\r\n\r\n`);
    await inFlight(kernel, 1);
    await everything(kernel.url, url('/fault/exit'), 'POST');
    await inFlight(kernel, 1); // tried again
    socket.destroy();
    await inFlight(kernel, 0);
    t.equal((await kernel.get(url('/heard'))).json.aborted, 1, 'and its handler told');
  });
});

t.test('requests that are made while their plugin is away', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'observer' });
  const away = async (name: string, fault: string): Promise<void> => {
    await writeUnruly(kernel, name, '');
    for (const verb of ['load', 'start'] as const) await kernel.verb(verb, name);
    await kernel.writePlugin(name, fault, 'fault.txt');
    t.equal((await kernel.request('POST', `/plugins/${name}/fault/exit`)).status, 502);
  };

  t.test('wait for it, for a while', async (t) => {
    await away('slowcoach', 'init:pause'); // 700 ms
    const answers = await Promise.all(['GET', 'POST', 'DELETE'].map((method) => everything(kernel.url, '/plugins/slowcoach/slow?ms=1', method)));
    for (const answer of answers) t.match(answer, { answers: 1, status: 200, json: { done: true } });
    t.match((await kernel.status('slowcoach')).requests, { waiting: 0, inFlight: 0, shed: 0 });
  });

  t.test('hear when to come again, when it takes too long', async (t) => {
    await away('latecomer', 'init:late'); // 3 s
    const began = performance.now();
    const early = everything(kernel.url, '/plugins/latecomer/');
    await eventually('it waits', 1_000, async () => ((await kernel.status('latecomer')).requests.waiting === 1 ? true : undefined));
    const answer = await early;
    const waited = performance.now() - began;
    t.match(answer, { answers: 1, status: 503, json: { code: 'PLUGIN_NOT_RUNNING' }, headers: /retry-after: [1-9]/i });
    t.ok(waited >= PLUGIN_LIMITS.replayWaitMs && waited < PLUGIN_LIMITS.replayWaitMs + 900, `after ${Math.round(waited)} ms`);
    t.match(await everything(kernel.url, '/plugins/latecomer/'), { answers: 1, status: 200, json: { well: true } }, 'and one that came later has not waited in vain');
  });

  t.test('are refused at once when it does not come back', async (t) => {
    await away('goner', 'init:exit');
    const waiting = Array.from({ length: 3 }, () => everything(kernel.url, '/plugins/goner/'));
    for (const answer of await Promise.all(waiting)) t.match(answer, { answers: 1, status: 503, json: { code: /^PLUGIN_(QUARANTINED|NOT_RUNNING)$/ } });
    await kernel.until('goner', 'quarantined');
    const began = performance.now();
    t.match(await kernel.get('/plugins/goner/'), { status: 503, json: { code: 'PLUGIN_QUARANTINED' } });
    t.ok(performance.now() - began < 500);
  });

  t.test('are no more than its queue has places', async (t) => {
    await writeUnruly(kernel, 'narrow', '', 'queue: 2,');
    for (const verb of ['load', 'start'] as const) await kernel.verb(verb, 'narrow');
    await kernel.writePlugin('narrow', 'init:pause', 'fault.txt');
    await kernel.request('POST', '/plugins/narrow/fault/exit');
    const answers = await Promise.all(Array.from({ length: 4 }, () => everything(kernel.url, '/plugins/narrow/')));
    t.strictSame(answers.map(({ status }) => status).sort(), [200, 200, 503, 503]);
    const shed = answers.find(({ status }) => status === 503)!;
    t.match(shed, { json: { code: 'PLUGIN_OVERLOADED' }, headers: /retry-after: 1/i });
    t.equal((await kernel.status('narrow')).requests.shed, 2);
  });
});

/** Sends this much and no more; the first answer is what comes back. */
function upload(t: Test, url: string, text: string): { readonly socket: Socket; readonly answer: Promise<string> } {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname, () => socket.write(text)).on('error', () => {});
  t.teardown(() => socket.destroy());
  return { socket, answer: new Promise((resolve) => socket.setEncoding('utf8').once('data', resolve).once('close', () => resolve('nothing'))) };
}
