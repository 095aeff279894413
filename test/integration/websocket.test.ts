// Connections that leave HTTP: WebSocket with @fastify/websocket as its documentation has it, other protocols, and what becomes of both when something ends.
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import fastify from 'fastify';
import t, { type Test } from 'tap';
import { WebSocket } from 'ws';
import { SHUTDOWN_TIMEOUT_MS } from '../../protocol/limits.js';
import switchboard from '../fixtures/plugins/switchboard/plugin.js';
import { eventually, FIXTURES, ROOT, startTestKernel, type TestKernel } from '../helpers/kernel.js';
import { startShip } from '../helpers/ship.js';

const MIB = 1024 * 1024;

/** A WebSocket to a plugin, open. Rejects with what it heard instead. */
async function open(kernel: Pick<TestKernel, 'url'>, path: string, protocols: string[] = [], options: object = {}): Promise<WebSocket> {
  const socket = new WebSocket(kernel.url.replace('http', 'ws') + path, protocols, { perMessageDeflate: false, ...options });
  await once(socket, 'open');
  socket.on('error', () => {});
  return socket;
}

async function heard(socket: WebSocket): Promise<string> {
  const [data] = await once(socket, 'message', { signal: AbortSignal.timeout(10_000) }) as [Buffer];
  return data.toString();
}

async function closed(socket: WebSocket): Promise<{ code: number; reason: string }> {
  const [code, reason] = await once(socket, 'close', { signal: AbortSignal.timeout(10_000) }) as [number, Buffer];
  return { code, reason: reason.toString() };
}

/** Whether a socket still has both ends. */
async function echoes(socket: WebSocket): Promise<boolean> {
  const text = randomBytes(8).toString('hex');
  const answer = heard(socket);
  socket.send(text);
  return (await answer) === text;
}

interface Wire { readonly socket: Socket; text(): string; readonly ended: Promise<void> }

/** A connection on which this much is written, and all that comes back. */
function wire(t: Test, url: string, text: string): Wire {
  const { hostname, port } = new URL(url);
  const socket = connect({ port: Number(port), host: hostname, allowHalfOpen: true }).on('error', () => {});
  socket.write(text);
  t.teardown(() => socket.destroy());
  let received = '';
  socket.setEncoding('latin1').on('data', (data: string) => { received += data; });
  const ended = new Promise<void>((resolve) => socket.once('end', resolve).once('close', () => resolve()));
  return { socket, text: () => received, ended };
}

const KEY = 'dGhlIHNhbXBsZSBub25jZQ==';
/** A request for a WebSocket as bytes; `headers` replace those of a good one. */
function handshake(path: string, headers: Record<string, string | undefined> = {}): string {
  const all = { host: 'test', connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': KEY, ...headers };
  return `GET ${path} HTTP/1.1\r\n${Object.entries(all).flatMap(([name, value]) => (value === undefined ? [] : [`${name}: ${value}\r\n`])).join('')}\r\n`;
}

const bulk = (path: string, more = ''): string => `GET ${path} HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: bulk\r\n\r\n${more}`;

/** All that came back until the connection ended, as status and JSON. */
async function refusal({ text, ended }: Wire): Promise<{ status: number; json: any; head: string }> {
  await ended;
  const [head = '', body = ''] = text().split('\r\n\r\n');
  return { status: Number(head.split(' ')[1]), head, json: body === '' ? null : JSON.parse(body) as unknown };
}

async function startPlugin(kernel: TestKernel, name: string, source: string): Promise<void> {
  await kernel.writePlugin(name, source, 'plugin.js');
  for (const verb of ['load', 'start'] as const) {
    const { status, text } = await kernel.verb(verb, name);
    if (status !== 200) throw new Error(text);
  }
}

/** The fixture once more, under another name. */
async function startTwin(kernel: TestKernel, name: string): Promise<void> {
  const source = await readFile(join(FIXTURES, 'switchboard/plugin.ts'), 'utf8');
  await kernel.writePlugin(name, source.replace("name: 'switchboard'", `name: '${name}'`));
  for (const verb of ['load', 'start'] as const) await kernel.verb(verb, name);
}

const nothingOpen = (kernel: TestKernel): Promise<true> =>
  eventually('no request is open', 5_000, async () => (kernel.kernel.supervisor.census().requests === 0 ? true : undefined));

/** Bytes that this thread holds. */
function held(): number {
  globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

t.test('WebSocket through a worker', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'switchboard,echo' });
  const at = '/plugins/switchboard';

  /** A test that leaves nothing open, neither here nor in the worker. */
  const test = (name: string, body: (t: Test) => Promise<void>): void => {
    t.test(name, async (t) => {
      await body(t);
      await nothingOpen(kernel);
      await eventually('the plugin has no socket', 5_000, async () => ((await kernel.get(`${at}/counts`)).json.open === 0 ? true : undefined));
    });
  };

  test('text and binary messages come back as they went, of any size', async (t) => {
    const socket = await open(kernel, `${at}/echo`);
    socket.send('ä\u0000😀');
    t.equal(await heard(socket), 'ä\u0000😀');
    for (const size of [0, 1, 125, 126, 65_535, 65_536, 300_001]) {
      const bytes = randomBytes(size);
      socket.send(bytes);
      const [data, isBinary] = await once(socket, 'message') as [Buffer, boolean];
      t.ok(isBinary && data.equals(bytes), `${size} bytes`);
    }
    socket.send('in ', { fin: false });
    await delay(10);
    socket.send('fragments', { fin: true });
    t.equal(await heard(socket), 'in fragments');
    socket.close();
    await closed(socket);
  });

  test('8 MB in one message go up and come down, and leave nothing behind', async (t) => {
    const socket = await open(kernel, `${at}/echo`, [], { maxPayload: 16 * MIB });
    const bytes = randomBytes(8 * MIB);
    for (let round = 0; round < 2; round += 1) {
      socket.send(bytes);
      const [data] = await once(socket, 'message') as [Buffer];
      t.ok(data.equals(bytes));
    }
    socket.close();
    await closed(socket);
  });

  test('a hundred sockets at once each have their own', async (t) => {
    const sockets = await Promise.all(Array.from({ length: 100 }, () => open(kernel, `${at}/echo`)));
    t.equal((await kernel.status('switchboard')).requests.inFlight, 100, 'each is a request in flight');
    for (let round = 0; round < 3; round += 1) t.ok((await Promise.all(sockets.map(echoes))).every(Boolean));
    for (const socket of sockets) socket.close();
    await Promise.all(sockets.map(closed));
  });

  test('a handler sees the request as it was sent, below its mount', async (t) => {
    const socket = new WebSocket(`${kernel.url.replace('http', 'ws')}${at}/seen?a=1&b=%20x`, ['chat.v1', 'chat.v2'], { headers: { 'x-own': 'yes', 'x-request-id': 'id-of-the-client' } });
    const seen = JSON.parse(await heard(socket)) as object;
    t.match(seen, {
      url: '/seen?a=1&b=%20x', originalUrl: `${at}/seen?a=1&b=%20x`, mount: at, query: { a: '1', b: ' x' }, id: 'id-of-the-client', protocol: 'http',
      ip: /^(::ffff:)?127\.0\.0\.1$|^::1$/, port: Number, subprotocol: 'chat.v2', headers: { 'x-own': 'yes', upgrade: 'websocket' },
    });
    t.equal(socket.protocol, 'chat.v2', 'and chooses a subprotocol');
    socket.close();
    await closed(socket);
    await eventually('the signal is aborted', 2_000, async () => (kernel.logLines.some(({ msg }) => msg === 'the signal of the handshake is aborted') ? true : undefined));
  });

  test('pings are answered, and close codes arrive on both sides', async (t) => {
    const socket = await open(kernel, `${at}/echo`);
    socket.ping('are you there');
    t.equal(String((await once(socket, 'pong'))[0]), 'are you there');
    socket.close(4_321, 'done');
    t.strictSame(await closed(socket), { code: 4_321, reason: 'done' }, 'the plugin answers with the code that it got');
    t.strictSame(await closed(await open(kernel, `${at}/closes?code=4001`)), { code: 4_001, reason: 'enough' });
    t.equal((await closed(await open(kernel, `${at}/vanishes`))).code, 1_006, 'one that is cut has none');
  });

  test('a handler that throws ends its own socket and nobody else\'s', async (t) => {
    const other = await open(kernel, `${at}/echo`);
    const { generation } = await kernel.status('switchboard');
    for (const path of ['throws', 'rejects']) {
      t.equal((await closed(await open(kernel, `${at}/${path}`))).code, 1_006);
      t.ok(kernel.logLines.some(({ err }) => err?.message === `a handler that ${path}`), 'the log has the error');
    }
    t.ok(await echoes(other));
    t.equal((await kernel.status('switchboard')).generation, generation);
    other.close();
    await closed(other);
  });

  test('a route may be both, and one that is not for WebSocket closes it', async (t) => {
    t.strictSame((await kernel.get(`${at}/both`)).json, { over: 'HTTP' });
    const socket = new WebSocket(`${kernel.url.replace('http', 'ws')}${at}/both`);
    t.equal(await heard(socket), 'over WebSocket');
    socket.close();
    await closed(socket);
    t.equal((await closed(await open(kernel, `${at}/plain`))).code, 1_005);
    t.equal((await kernel.get(`${at}/echo`)).status, 404, 'one that is for nothing else is not there without');
  });

  test('a refusal has the bytes that Fastify alone would send, and is the last on its connection', async (t) => {
    const app = fastify();
    await app.register(async (scope) => { await switchboard.routes!(scope as never, {} as never); });
    await app.listen({ port: 0, host: '127.0.0.1' });
    t.teardown(() => app.close());
    const alone = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`;
    const bare = ({ text }: Wire): string => text().replace(/^date: .*\r\n/im, 'date\r\n').replace(/^connection: (close|keep-alive)\r\n/im, '');
    const cases: readonly [sentence: string, path: string, headers?: Record<string, string | undefined>][] = [
      ['a hook refuses', '/guarded'],
      ['a version that it does not speak', '/echo', { 'sec-websocket-version': '99' }],
      ['no key', '/echo', { 'sec-websocket-key': undefined }],
      ['another protocol', '/echo', { upgrade: 'bulk' }],
      ['a route without WebSocket', '/plain'],
      ['it is closed at once', '/closes?code=4001'],
      ['it is cut at once', '/vanishes'],
    ];
    for (const [sentence, path, headers] of cases) {
      const wires = [wire(t, alone, handshake(path, headers)), wire(t, kernel.url, handshake(at + path, headers))] as const;
      // A server that has said goodbye waits for the client to say it as well.
      for (const { socket } of wires) socket.once('data', () => setTimeout(() => socket.end(), 50));
      await Promise.all(wires.map(({ ended }) => ended));
      t.match(bare(wires[0]), /^HTTP\/1\.1 [14]/);
      t.equal(bare(wires[1]), bare(wires[0]), sentence);
      if (!bare(wires[1]).startsWith('HTTP/1.1 101')) t.match(wires[1].text(), /^connection: close\r\n/im);
    }
    t.match(await refusal(wire(t, kernel.url, handshake(`${at}/broken`))), { status: 409, json: { statusCode: 409, message: 'no tea left', requestId: /\S/ } }, 'an error has our body');
    t.match(await refusal(wire(t, kernel.url, handshake(`${at}/absent`))), { status: 404, json: { code: 'ROUTE_UNKNOWN' } }, 'and so has a path that is not there');
  });

  test('a client that does not read stops the plugin, and nobody fills', async (t) => {
    const size = 64 * MIB;
    const before = held();
    const socket = await open(kernel, `${at}/flood?bytes=${size}`);
    socket.pause();
    let last = -1;
    await eventually('the plugin has stopped', 10_000, async () => {
      const { produced } = (await kernel.get(`${at}/counts`)).json as { produced: number };
      await delay(150);
      const stopped = produced > 0 && produced === last;
      last = produced;
      return stopped ? true : undefined;
    });
    t.ok(last < size / 4, `it stopped after ${(last / MIB).toFixed(1)} of 64 MiB`);
    const grown = held() - before;
    t.ok(grown < 8 * MIB, `the kernel's memory grew by ${(grown / MIB).toFixed(1)} MiB`);
    const { memory } = (await kernel.status('switchboard')).workers[0]!;
    t.ok(memory.arrayBuffers < 32 * MIB, `the worker has ${(memory.arrayBuffers / MIB).toFixed(1)} MiB of Buffers`);
    t.comment(`stopped after ${(last / MIB).toFixed(2)} MiB, kernel grew by ${(grown / MIB).toFixed(2)} MiB, Buffers of the worker ${(memory.arrayBuffers / MIB).toFixed(2)} MiB`);
    let bytes = 0;
    socket.on('message', (data: Buffer) => { bytes += data.byteLength; });
    socket.resume();
    await closed(socket);
    t.equal(bytes, size, 'and when the client reads, all of it comes');
  });

  test('a plugin that does not read stops the client, and nobody fills', async (t) => {
    const size = 64 * MIB;
    const piece = Buffer.alloc(64 * 1024);
    const socket = await open(kernel, `${at}/sink`);
    const before = held();
    let sent = 0;
    const sending = (async () => {
      for (; sent < size; sent += piece.byteLength) await new Promise((resolve) => socket.send(piece, resolve));
    })();
    let last = -1;
    await eventually('the client has stopped', 10_000, async () => {
      await delay(150);
      const stopped = sent > 0 && sent === last;
      last = sent;
      return stopped ? true : undefined;
    });
    t.ok(sent < size / 4, `it stopped after ${(sent / MIB).toFixed(1)} of 64 MiB`);
    const grown = held() - before;
    t.ok(grown < 8 * MIB, `the kernel's memory grew by ${(grown / MIB).toFixed(1)} MiB`);
    const { memory } = (await kernel.status('switchboard')).workers[0]!;
    t.ok(memory.arrayBuffers < 32 * MIB, `the worker has ${(memory.arrayBuffers / MIB).toFixed(1)} MiB of Buffers`);
    t.comment(`stopped after ${(sent / MIB).toFixed(2)} MiB, kernel grew by ${(grown / MIB).toFixed(2)} MiB, Buffers of the worker ${(memory.arrayBuffers / MIB).toFixed(2)} MiB`);
    t.ok((await kernel.get(`${at}/plain`)).json.plain, 'others are served meanwhile');
    await kernel.request('POST', `${at}/resume`);
    await sending;
    await eventually('all has come', 10_000, async () => ((await kernel.get(`${at}/counts`)).json.consumed === size ? true : undefined));
    socket.close();
    await closed(socket);
  });

  test('a client that goes away is gone for the plugin within 50 ms', async (t) => {
    const watcher = await open(kernel, `${at}/watch`);
    const times: number[] = [];
    for (let i = 0; i < 5; i += 1) {
      const socket = await open(kernel, `${at}/echo`);
      const news = heard(watcher);
      const began = performance.now();
      socket.terminate();
      await news;
      times.push(performance.now() - began);
    }
    t.comment(`after ${times.map((ms) => ms.toFixed(1)).join(', ')} ms`);
    t.ok(Math.min(...times) < 50, 'at best, for the machine may be busy');
    watcher.close();
    await closed(watcher);
  });

  test('the answers to earlier requests on the connection leave first', async (t) => {
    const slow = `GET ${at}/slow HTTP/1.1\r\nhost: test\r\n\r\n`;
    const socket = wire(t, kernel.url, slow + slow + handshake(`${at}/closes?code=4001`));
    socket.socket.once('data', () => setTimeout(() => socket.socket.end(), 300));
    await socket.ended;
    t.match(socket.text(), /^HTTP\/1\.1 200 [^]*\{"slow":true\}HTTP\/1\.1 200 [^]*\{"slow":true\}HTTP\/1\.1 101 /, 'before a tunnel');
    const refused = wire(t, kernel.url, slow + handshake(`${at}/guarded`));
    await refused.ended;
    t.match(refused.text(), /^HTTP\/1\.1 200 [^]*\{"slow":true\}HTTP\/1\.1 4/, 'before a refusal');
    const ordinary = wire(t, kernel.url, slow + handshake('/health/live', { connection: 'upgrade, close' }));
    await ordinary.ended;
    t.match(ordinary.text(), /^HTTP\/1\.1 200 [^]*\{"slow":true\}HTTP\/1\.1 200 [^]*\{"status":"ok"\}$/, 'and before one that is no tunnel after all');
  });

  t.test('what no plugin takes is answered as if it had not been asked for', async (t) => {
    const wish = 'host: test\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n';
    /** One after the other on one connection, and one more that is ordinary. */
    const answers = async (...texts: readonly string[]): Promise<readonly string[]> => {
      const all = wire(t, kernel.url, '');
      const split = (): string[] => all.text().split(/(?=HTTP\/1\.1 )/);
      for (const [i, text] of [...texts, 'GET /health/live HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n'].entries()) {
        all.socket.write(text);
        await eventually('it is answered', 5_000, async () => {
          const [head, body] = split()[i]?.split('\r\n\r\n') ?? [];
          return body !== undefined && body.length >= Number(/content-length: (\d+)/i.exec(head!)?.[1]) ? true : undefined;
        });
      }
      await all.ended;
      t.match(all.text(), /\{"status":"ok"\}$/, 'the connection is good for the next request');
      return split();
    };
    for (const [path, answer] of [
      ['/health/live', /^HTTP\/1\.1 200 OK[^]*\{"status":"ok"\}$/], ['/', /^HTTP\/1\.1 200 OK/], ['/nowhere/at/all', /^HTTP\/1\.1 404 [^]*"ROUTE_UNKNOWN"/],
      ['/plugins/nobody/', /^HTTP\/1\.1 404 [^]*"PLUGIN_UNKNOWN"/], ['/plugins/echo/seen/x?a=1', /^HTTP\/1\.1 200 OK[^]*"url":"\/seen\/x\?a=1"[^]*"upgrade":"h2c"/],
    ] as const) {
      const [first, ...others] = await answers(`GET ${path} HTTP/1.1\r\n${wish}\r\n`);
      t.match(first, answer, path);
      t.equal(others.length, 1);
    }
    const body = JSON.stringify({ text: 'x'.repeat(100_000) });
    for (const path of ['/plugins/echo/seen/x', '/deep/echo/seen/x']) {
      const [first] = await answers(`POST ${path} HTTP/1.1\r\n${wish}content-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
      t.match(first, /^HTTP\/1\.1 200 OK[^]*"body":\{"text":"x{100000}"\}/, 'with its body');
      const [chunked] = await answers(`POST ${path} HTTP/1.1\r\n${wish}content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`);
      t.match(chunked, /^HTTP\/1\.1 200 OK[^]*"body":\{"text":"x{100000}"\}/, 'also in chunks');
    }
    const warnings: Error[] = [];
    const note = (warning: Error): void => void warnings.push(warning);
    process.on('warning', note);
    const many = await answers(...Array.from({ length: 12 }, () => `GET /plugins/echo/text HTTP/1.1\r\n${wish}\r\n`));
    t.equal(many.length, 13, 'again and again on one connection');
    process.off('warning', note);
    t.strictSame(warnings, [], 'and nothing of it adds up');
    const { admitted, answered } = (await kernel.status('echo')).requests;
    t.equal(admitted, answered, 'and each is counted once');
    const lines = Array.from({ length: 1_200 }, (_, i) => `a${i}:\r\n`).join('');
    const { head } = await refusal(wire(t, kernel.url, `GET /health/live HTTP/1.1\r\n${wish.replace('upgrade,', 'upgrade, close,')}${lines}\r\n`));
    t.match(head, /^HTTP\/1\.1 (431|200) /, 'more headers than Node remembers are no way round');
  });

  t.test('the README\'s example ticks', async (t) => {
    const [source] = /(?<=^```js\n).*?(?=^```)/ms.exec(await readFile(join(ROOT, 'README.md'), 'utf8'))!;
    await startPlugin(kernel, 'clock', source);
    const socket = await open(kernel, '/plugins/clock/');
    t.match(await heard(socket), /^\d{4}-\d\d-\d\dT/);
    socket.close();
    await closed(socket);
  });

  t.test('any protocol through a tunnel', (t) => anyProtocol(t, kernel));

  t.test('a plugin that takes no requests says so over HTTP', async (t) => {
    await kernel.verb('stop', 'switchboard');
    const behind = wire(t, kernel.url, `GET /health HTTP/1.1\r\nhost: test\r\n\r\n${handshake(`${at}/echo`)}`);
    await behind.ended;
    t.match(behind.text(), /^HTTP\/1\.1 200 [^]*\}HTTP\/1\.1 503 /, 'also when it is not the first request');
    const { status, json, head } = await refusal(wire(t, kernel.url, handshake(`${at}/echo`)));
    t.match({ status, json }, { status: 503, json: { statusCode: 503, code: 'PLUGIN_NOT_RUNNING', requestId: /\S/ } });
    t.match(head, /^connection: close$/im);
    await kernel.verb('start', 'switchboard');
    const socket = await open(kernel, `${at}/echo`);
    t.ok(await echoes(socket));
    socket.terminate();
    await nothingOpen(kernel);
  });
});

t.test('a plugin that ends', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'switchboard' });
  const at = '/plugins/switchboard';
  await startTwin(kernel, 'twin');

  t.test('by a crash takes its own sockets with it at once, and nobody else\'s', async (t) => {
    const [own, other] = await Promise.all([open(kernel, `${at}/echo`), open(kernel, '/plugins/twin/echo')]);
    const stalled = refusal(wire(t, kernel.url, handshake(`${at}/stalled`)));
    await eventually('both are in flight', 5_000, async () => ((await kernel.status('switchboard')).requests.inFlight === 2 ? true : undefined));
    const end = closed(own);
    const began = performance.now();
    const answer = await kernel.request('POST', `${at}/exit`);
    t.equal((await end).code, 1_006);
    t.ok(performance.now() - began < 1_000, `after ${(performance.now() - began).toFixed(0)} ms`);
    t.match(answer, { status: 502, json: { code: 'PLUGIN_CRASHED' } });
    const { status, json, head } = await stalled;
    t.match({ status, json }, { status: 502, json: { code: 'PLUGIN_CRASHED', requestId: /\S/ } }, 'one that was not answered yet hears so over HTTP');
    t.match(head, /^connection: close$/im);
    t.ok(await echoes(other), 'the other plugin\'s is open');
    await kernel.until('switchboard', 'running');
    t.ok(await echoes(await open(kernel, `${at}/echo`).then((socket) => (t.teardown(() => socket.terminate()), socket))), 'and a client may come again');
    other.terminate();
  });

  t.test('before it has begun with a handshake leaves that to the next generation', async (t) => {
    const { replayed } = (await kernel.status('switchboard')).requests;
    const loop = kernel.request('POST', `${at}/loop`);
    await eventually('the loop is in flight', 5_000, async () => ((await kernel.status('switchboard')).requests.inFlight >= 1 ? true : undefined));
    const sockets = await Promise.all(Array.from({ length: 3 }, () => open(kernel, `${at}/echo`)));
    t.equal((await loop).status, 504);
    t.equal((await kernel.status('switchboard')).requests.replayed, replayed + 3);
    t.ok((await Promise.all(sockets.map(echoes))).every(Boolean));
    for (const socket of sockets) socket.terminate();
  });

  t.test('by what a handler of messages throws is restarted, and its socket is closed', async (t) => {
    const { restarts } = await kernel.status('switchboard');
    const socket = await open(kernel, `${at}/throws-later`);
    socket.send('now');
    t.equal((await closed(socket)).code, 1_006);
    await eventually('it is back', 5_000, async () => {
      const details = await kernel.status('switchboard');
      return details.status === 'running' && details.restarts === restarts + 1 ? true : undefined;
    });
    t.match((await kernel.status('switchboard')).deaths.at(-1), { cause: /nobody catches this/, request: null }, 'no request is blamed for it');
  });

  t.test('because it is stopped has drainTimeoutMs for its sockets, which are then closed', async (t) => {
    await kernel.until('switchboard', 'running');
    const sockets = await Promise.all(Array.from({ length: 3 }, () => open(kernel, `${at}/echo`)));
    const ends = sockets.map(closed);
    const began = performance.now();
    const stopping = kernel.verb('stop', 'switchboard');
    await eventually('it drains', 1_000, async () => ((await kernel.status('switchboard')).status === 'stopping' ? true : undefined));
    t.ok((await Promise.all(sockets.map(echoes))).every(Boolean), 'they work while it drains');
    t.match(await refusal(wire(t, kernel.url, handshake(`${at}/echo`))), { status: 503, json: { code: 'PLUGIN_NOT_RUNNING' } }, 'and no other is let in');
    t.equal((await stopping).json.status, 'stopped');
    const ms = performance.now() - began;
    t.ok(ms >= 990 && ms < 4_000, `after ${ms.toFixed(0)} ms`);
    for (const { code } of await Promise.all(ends)) t.ok(code === 1_005 || code === 1_006, 'its preClose hook said goodbye, or was cut');
    await kernel.verb('start', 'switchboard');
  });

  t.test('without sockets does not wait for those of others', async (t) => {
    const socket = await open(kernel, '/plugins/twin/echo');
    const began = performance.now();
    for (const verb of ['stop', 'start', 'restart', 'unload', 'load', 'start'] as const) {
      t.equal((await kernel.verb(verb, 'switchboard')).status, 200);
      t.ok(await echoes(socket), verb);
    }
    t.ok(performance.now() - began < 10_000);
    socket.terminate();
  });

  t.test('with a request that ends it while sockets are open refuses that request the third time', async (t) => {
    await kernel.verb('start', 'switchboard'); // its deaths are forgiven
    for (const status of [502, 500]) {
      const socket = await open(kernel, `${at}/echo`);
      t.equal((await kernel.request('POST', `${at}/exit`)).status, status);
      await closed(socket);
      await kernel.until('switchboard', 'running');
    }
    const socket = await open(kernel, `${at}/echo`);
    t.match(await kernel.request('POST', `${at}/exit`), { status: 500, json: { code: 'REQUEST_REFUSED' } });
    t.ok(await echoes(socket), 'and ends nobody any more');
    socket.terminate();
  });

  t.test('with a handshake refuses that the third time', async (t) => {
    await kernel.verb('start', 'switchboard');
    for (const [status, code] of [[502, 'PLUGIN_CRASHED'], [500, 'REQUEST_REFUSED'], [500, 'REQUEST_REFUSED']] as const) {
      t.match(await refusal(wire(t, kernel.url, handshake(`${at}/exits`))), { status, json: { code } });
      await kernel.until('switchboard', 'running');
    }
    t.match((await kernel.status('switchboard')).deaths.at(-1), { request: `GET ${at}/exits`, cause: /process\.exit/ });
  });

  t.test('with its kernel closes its sockets in time', async (t) => {
    const sockets = await Promise.all(['switchboard', 'twin'].map((name) => open(kernel, `/plugins/${name}/echo`)));
    const ends = sockets.map(closed);
    const began = performance.now();
    await kernel.stop();
    const ms = performance.now() - began;
    t.ok(ms < SHUTDOWN_TIMEOUT_MS - 2_000, `after ${ms.toFixed(0)} ms`);
    await Promise.all(ends);
    t.equal(kernel.kernel.supervisor.census().requests, 0);
  });
});

/** With a plugin that speaks what it likes. */
async function anyProtocol(t: Test, kernel: TestKernel): Promise<void> {
  await startPlugin(kernel, 'narrow', `
    import { MessagePort } from 'node:worker_threads';
    const HEAD = 'HTTP/1.1 101 Switching Protocols\\r\\nconnection: upgrade\\r\\nupgrade: bulk\\r\\n\\r\\n';
    let silent = 0;
    const { postMessage } = MessagePort.prototype;
    let port; // to the kernel, past all that Bulkhead has put in front of it
    MessagePort.prototype.postMessage = function (message, ...more) { if (Array.isArray(message)) port = this; return postMessage.call(this, message, ...more); };
    const say = (frame) => postMessage.call(port, [frame]);
    export default { name: 'narrow', version: '1.0.0', limits: { concurrency: 2, queue: 0, timeoutMs: 1_000 }, routes(app) {
      app.get('/', async () => ({ silent }));
      app.server.on('upgrade', (request, socket, head) => {
        const ways = {
          '/mirror': () => { socket.write(HEAD); socket.write(head); socket.pipe(socket); },
          '/listens': () => socket.on('data', (data) => app.log.info('overheard ' + data)).write('HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nno', () => setTimeout(() => socket.end(), 100)),
          '/babbles': () => socket.write('hello\\r\\n\\r\\n'),
          '/half': () => { socket.write(HEAD); let text = head.toString(); socket.on('data', (data) => { text += data; }).on('end', () => socket.end('heard ' + text)); },
          '/first': () => { socket.write(HEAD); socket.end('all I have'); let text = ''; socket.on('data', (data) => { text += data; }).on('end', () => app.log.info('heard ' + text)); },
          '/never': () => {},
          '/destroys': () => socket.destroy(),
          '/ends': () => socket.end(),
          '/idle': () => { socket.write(HEAD); socket.resume(); socket.setTimeout(100, () => { silent += 1; socket.end('too long'); }); },
          '/shape': () => { socket.setNoDelay(true).setKeepAlive(true, 1000).ref().unref(); socket.cork(); socket.write(HEAD); socket.end(JSON.stringify({ same: request.socket === socket, upgrade: request.upgrade, port: typeof socket.remotePort, family: socket.remoteFamily, head: head.toString(), body: request.readableLength })); socket.uncork(); },
          '/credits': () => { socket.write(HEAD); say({ kind: 'credit', id: request.id, bytes: NaN }); },
          '/cheats': () => { socket.write(HEAD); setTimeout(() => { for (let i = 0; i < 300; i += 1) say({ kind: 'chunk', id: request.id, data: new Uint8Array(65536) }); }, 50); },
          '/answers': () => { socket.write(HEAD); say({ kind: 'response', id: request.id, statusCode: 200, statusMessage: '', headers: [], body: null, streams: false }); },
          '/accepts': () => { socket.write(HEAD); say({ kind: 'upgraded', id: request.id, accepted: true }); },
          '/overflows': () => { socket.write(HEAD); socket.write(Buffer.alloc(4 * 1024 * 1024, 'x')); socket.destroySoon(); },
        };
        ways[request.url]();
      });
    } };`);
  const at = '/plugins/narrow';
  const tunnel = (t: Test, path: string, more = ''): Wire => wire(t, kernel.url, bulk(at + path, more));
  const body = ({ text }: Wire): string => text().split('\r\n\r\n').slice(1).join('\r\n\r\n');
  const says = (wire: Wire, expected: string): Promise<true> => eventually(`it says "${expected}"`, 5_000, async () => (body(wire).endsWith(expected) ? true : undefined));

  const test = (name: string, run: (t: Test) => Promise<void>): void => {
    t.test(name, async (t) => {
      await run(t);
      await nothingOpen(kernel);
    });
  };

  test('bytes that come with the head arrive first', async (t) => {
    const mirror = tunnel(t, '/mirror', 'early ');
    await says(mirror, 'early ');
    t.match(mirror.text(), /^HTTP\/1\.1 101 Switching Protocols\r\n/, 'the plugin\'s own head');
    mirror.socket.write('and late');
    await says(mirror, 'early and late');
    mirror.socket.end();
    await mirror.ended;
  });

  test('what the client says to a plugin that has not switched is not for its ears', async (t) => {
    const refused = tunnel(t, '/listens');
    refused.socket.write('before the answer');
    await eventually('it refuses', 2_000, async () => (refused.text() === '' ? undefined : true));
    refused.socket.write('GET /plugins/other/ HTTP/1.1\r\nhost: test\r\n\r\n');
    await refused.ended;
    t.equal(refused.text(), 'HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 2\r\n\r\nno');
    t.notOk(kernel.logLines.some(({ msg }) => msg?.startsWith('overheard')));
  });

  test('either side may end first, and still hear the other', async (t) => {
    const half = tunnel(t, '/half', 'one ');
    half.socket.end('two');
    await half.ended;
    t.equal(body(half), 'heard one two');
    const first = tunnel(t, '/first');
    await first.ended;
    t.equal(body(first), 'all I have');
    t.equal((await kernel.status('narrow')).requests.inFlight, 1, 'it is open as long as the client likes');
    first.socket.end('thank you');
    await eventually('the plugin has heard', 2_000, async () => (kernel.logLines.some(({ msg }) => msg === 'heard thank you') ? true : undefined));
  });

  test('what was written leaves before the connection is destroyed', async (t) => {
    const all = tunnel(t, '/overflows');
    await all.ended;
    t.equal(body(all).length, 4 * MIB);
    all.socket.end();
  });

  test('a socket in the worker has the shape of a real one', async (t) => {
    const shape = tunnel(t, '/shape', 'head');
    await shape.ended;
    t.match(JSON.parse(body(shape)), { same: true, upgrade: true, port: 'number', family: /^IPv[46]$/, head: 'head', body: 0 });
    shape.socket.end();
    const idle = tunnel(t, '/idle');
    await idle.ended;
    t.equal(body(idle), 'too long', 'also a timeout');
    idle.socket.end();
    await nothingOpen(kernel);
    t.equal((await kernel.get(`${at}/`)).json.silent, 1);
  });

  test('no answer is answered by the kernel', async (t) => {
    for (const path of ['/destroys', '/ends', '/babbles']) t.match(await refusal(tunnel(t, path)), { status: 502, json: { code: 'PLUGIN_BAD_ANSWER', requestId: /\S/ } }, path);
    const began = performance.now();
    t.match(await refusal(tunnel(t, '/never')), { status: 504, json: { code: 'PLUGIN_TIMEOUT' } });
    t.ok(performance.now() - began >= 990, 'after timeoutMs');
  });

  test('an open one is not ended by timeoutMs, and takes a place among the concurrent', async (t) => {
    const two = [tunnel(t, '/mirror', 'a'), tunnel(t, '/mirror', 'b')] as const;
    await Promise.all([says(two[0], 'a'), says(two[1], 'b')]);
    const third = await refusal(tunnel(t, '/mirror'));
    t.match(third, { status: 503, json: { code: 'PLUGIN_OVERLOADED', requestId: /\S/ }, head: /retry-after: [1-9]/i });
    t.equal((await kernel.get(`${at}/`)).status, 503, 'as for any request');
    await delay(1_500);
    two[0].socket.write('still');
    await says(two[0], 'astill');
    two[1].socket.end();
    await two[1].ended;
    const fourth = await eventually('there is a place again', 2_000, async () => {
      const next = tunnel(t, '/mirror', 'c');
      await Promise.race([says(next, 'c'), next.ended]);
      return next.text().startsWith('HTTP/1.1 101') ? next : undefined;
    });
    two[0].socket.destroy();
    fourth.socket.destroy();
    const { requests } = await kernel.status('narrow');
    t.ok(requests.shed >= 2, 'those who were refused are counted');
  });

  test('frames that are no tunnel\'s end the generation that sends them, and nothing else', async (t) => {
    for (const [path, cause] of [
      ['/credits', /a credit frame that cannot be handled: it gave credit for bytes that it never got/],
      ['/cheats', /a chunk frame that cannot be handled: it sent more bytes than it had credit for/],
      ['/answers', /a response frame that cannot be handled: the answer of a tunnel is among its bytes/],
      ['/accepts', /a upgraded frame that cannot be handled: it has been accepted already/],
    ] as const) {
      const { generation } = await kernel.until('narrow', 'running');
      const { socket, ended } = tunnel(t, path);
      socket.once('data', () => socket.pause());
      await eventually('the generation has ended', 5_000, async () => ((await kernel.status('narrow')).generation > generation ? true : undefined));
      t.match((await kernel.status('narrow')).deaths.at(-1), { generation, kind: 'crashed', cause }, path);
      socket.resume();
      await ended;
    }
    t.equal((await kernel.until('narrow', 'running')).restarts, 4);
  });
}

t.test('a handshake waits for a kernel that boots, the first one and the next', async (t) => {
  const ship = await startShip(t, { PLUGINS_ENABLED: 'switchboard' });
  const socket = await eventually('the guardian listens', 10_000, () => open(ship, '/plugins/switchboard/echo').catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ECONNREFUSED') throw error;
    return undefined;
  }));
  t.ok(await echoes(socket), 'no other answer has come before');
  const end = closed(socket);
  process.kill(ship.kernelPid(), 'SIGKILL');
  t.equal((await end).code, 1_006);
  const next = await open(ship, '/plugins/switchboard/echo');
  t.ok(await echoes(next));
  next.close(4_000, 'enough');
  t.equal((await closed(next)).code, 4_000);
});
