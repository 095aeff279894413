// HTTP through a worker: a handler sees what the client sent, and the client gets what the handler answered.
import { createHash, randomBytes } from 'node:crypto';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { eventually, rawRequest, startTestKernel } from '../helpers/kernel.js';

const MIB = 1024 * 1024;
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Sends a request whose body goes out in pieces, chunked, and collects the answer. Rejects when the connection is cut. */
function sendPieces(url: string, path: string, pieces: Iterable<Uint8Array>, headers: Record<string, string> = {}): Promise<{ status: number; json: any; bytes: Buffer; headers: IncomingMessage['headers'] }> {
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest(url + path, { method: 'POST', agent: false, headers: { 'content-type': 'application/octet-stream', ...headers }, signal: AbortSignal.timeout(20_000) }, (incoming) => {
      void incoming.toArray().then((chunks: Buffer[]) => {
        const bytes = Buffer.concat(chunks);
        let json: unknown;
        try { json = JSON.parse(bytes.toString()); } catch { /* it is none */ }
        resolve({ status: incoming.statusCode!, json, bytes, headers: incoming.headers });
      }, reject);
    });
    // An answer may come, and the connection end, before all has been sent.
    outgoing.on('error', reject);
    Readable.from(pieces).pipe(outgoing);
  });
}

const pieces = (bytes: Uint8Array, size = 64 * 1024): Uint8Array[] => Array.from({ length: Math.ceil(bytes.byteLength / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size));

t.test('HTTP through a worker', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'echo' });
  const at = `${kernel.url}/plugins/echo`;

  t.test('every method arrives', async (t) => {
    for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']) {
      const body = ['POST', 'PUT', 'PATCH'].includes(method) ? { method } : undefined;
      const { status, json } = await kernel.request(method, '/plugins/echo/seen/x', body);
      t.equal(status, 200);
      t.match(json, { method, body: body ?? null });
    }
  });

  t.test('paths, queries and mounts arrive as they were sent', async (t) => {
    const { json } = await rawRequest(kernel.url, 'GET', '/plugins/echo/seen/a%20b%2Fc/%C3%A4;v=1?q=1&q=2&r=%26%20+x&empty=');
    t.match(json, {
      url: '/seen/a%20b%2Fc/%C3%A4;v=1?q=1&q=2&r=%26%20+x&empty=',
      originalUrl: '/plugins/echo/seen/a%20b%2Fc/%C3%A4;v=1?q=1&q=2&r=%26%20+x&empty=',
      mount: '/plugins/echo', params: { '*': 'a b/c/ä;v=1' }, query: { q: ['1', '2'], r: '&  x', empty: '' },
    });
    t.match((await kernel.get('/deep/echo/seen/x')).json, { url: '/seen/x', originalUrl: '/deep/echo/seen/x', mount: '/deep/echo' });
    for (const [path, url] of [['', '/'], ['/', '/'], ['?a=1', '/?a=1'], ['/?a=1', '/?a=1']] as const) {
      t.match((await rawRequest(kernel.url, 'GET', `/plugins/echo${path}`)).json, { url, originalUrl: `/plugins/echo${path}`, query: url === '/' ? {} : { a: '1' } }, `"${path}" is the root of the mount`);
    }
    const dots = await rawRequest(kernel.url, 'GET', '/plugins/echo/../hello/');
    t.equal(dots.status, 404, 'the kernel does not walk up');
    const absent = await kernel.get('/plugins/echo/absent?x=1');
    t.match([absent.status, absent.json], [404, { code: 'ROUTE_UNKNOWN', message: /GET \/plugins\/echo\/absent/ }], 'an unknown path is a 404 that shows the whole path');
  });

  t.test('headers arrive in order, repeated ones too', async (t) => {
    const socket = connect(Number(new URL(kernel.url).port), new URL(kernel.url).hostname);
    socket.write('GET /plugins/echo/seen/x HTTP/1.1\r\nHost: Some.Host:99\r\nX-Two: a\r\nx-two: b\r\nCookie: c=1\r\nCookie: d=2\r\nUser-Agent: first\r\nUser-Agent: second\r\nConnection: close\r\n\r\n');
    const text = Buffer.concat(await socket.toArray() as Buffer[]).toString();
    const json = JSON.parse(text.slice(text.indexOf('\r\n\r\n') + 4)) as any;
    t.match(json.headers, { host: 'Some.Host:99', 'x-two': 'a, b', cookie: 'c=1; d=2', 'user-agent': 'first' }, 'joined as Node joins them');
    t.strictSame(json.rawHeaders.slice(0, 6), ['Host', 'Some.Host:99', 'X-Two', 'a', 'x-two', 'b']);
    t.match(json, { hostname: 'Some.Host', protocol: 'http', ip: /^(::ffff:)?127\.0\.0\.1$|^::1$/, httpVersion: '1.1' });
    t.ok(json.port > 0, 'the port is the client\'s');
  });

  t.test('set-cookie stays a list, other repeated headers too', async (t) => {
    const { headers } = await kernel.get('/plugins/echo/cookies');
    t.strictSame(headers.getSetCookie(), ['a=1', 'b=2; Path=/', 'c=3']);
    t.equal(headers.get('x-many'), 'one, two');
  });

  t.test('bodies come back as they went: JSON, binary, of any size', async (t) => {
    const json = { text: 'ä\u0000\u2028😀', numbers: [1, -0.5, 1e300], nested: { empty: {}, none: null } };
    t.strictSame((await kernel.request('POST', '/plugins/echo/seen/x', json)).json.body, json);
    for (const size of [0, 1, 8_191, 65_536, 65_537, 300_001]) {
      const bytes = randomBytes(size);
      const answer = await fetch(`${at}/binary`, { method: 'POST', body: bytes, headers: { 'content-type': 'application/octet-stream' } });
      t.equal(sha256(new Uint8Array(await answer.arrayBuffer())), sha256(bytes), `${size} bytes with a length`);
      t.ok((await sendPieces(at, '/binary', pieces(bytes, 1_000 + size / 3))).bytes.equals(bytes), `${size} bytes in chunks`);
    }
    const wrong = await kernel.request('POST', '/plugins/echo/seen/x', '{"half":', { 'content-type': 'application/json' });
    t.equal(wrong.status, 400, 'a body that is no JSON is a 400');
    t.equal((await kernel.request('POST', '/plugins/echo/seen/x', 'x', { 'content-type': 'application/x-unheard-of' })).status, 415);
  });

  t.test('10 MB go up, come down and go both ways at once intact', async (t) => {
    const bytes = randomBytes(10 * MIB);
    const up = await fetch(`${at}/hash`, { method: 'POST', body: bytes, headers: { 'content-type': 'application/octet-stream' } });
    t.strictSame(await up.json(), { bytes: bytes.byteLength, hash: sha256(bytes) }, 'up, with a length');
    t.strictSame((await sendPieces(at, '/hash', pieces(bytes))).json, { bytes: bytes.byteLength, hash: sha256(bytes) }, 'up, in chunks');
    const down = new Uint8Array(await (await fetch(`${at}/download?bytes=${10 * MIB + 7}`)).arrayBuffer());
    t.equal(down.byteLength, 10 * MIB + 7);
    t.equal(sha256(down), sha256(Buffer.alloc(10 * MIB + 7, 'bulkhead')), 'down');
    t.ok((await sendPieces(at, '/mirror', pieces(bytes))).bytes.equals(bytes), 'both ways at once');
  });

  t.test('a client that does not read stops the handler, and the kernel does not fill', async (t) => {
    const size = 64 * MIB;
    globalThis.gc?.();
    const before = process.memoryUsage();
    const incoming = await new Promise<IncomingMessage>((resolve, reject) => httpRequest(`${at}/download?bytes=${size}`, { agent: false }, resolve).once('error', reject).end());
    incoming.pause();
    let last = -1;
    await eventually('the handler has stopped', 10_000, async () => {
      const { produced } = (await kernel.get('/plugins/echo/produced')).json;
      await delay(200);
      const stopped = produced > 0 && produced === last;
      last = produced;
      return stopped ? true : undefined;
    });
    t.ok(last < size / 4, `it stopped after ${(last / MIB).toFixed(1)} of 64 MiB`);
    globalThis.gc?.();
    const after = process.memoryUsage();
    const grown = after.heapUsed + after.external - before.heapUsed - before.external;
    t.ok(grown < 16 * MIB, `the kernel's memory grew by ${(grown / MIB).toFixed(1)} MiB`);
    let bytes = 0;
    for await (const chunk of incoming) bytes += (chunk as Buffer).byteLength;
    t.equal(bytes, size, 'and when the client reads, all of it comes');
  });

  t.test('a body over the limit is a 413, whether its length is told or not', async (t) => {
    const told = await rawRequest(kernel.url, 'POST', '/plugins/echo/hash', { headers: { 'content-type': 'application/octet-stream', 'content-length': String(17 * MIB) } }).catch((error: Error) => error);
    t.match(told, { status: 413, json: { code: 'PAYLOAD_TOO_LARGE', message: /16777216 bytes that plugin "echo" accepts/ } });
    const much = pieces(Buffer.alloc(20 * MIB));
    for (let i = 0; i < 3; i += 1) {
      const answer = await sendPieces(at, '/hash', much);
      t.match(answer, { status: 413, json: { code: 'PAYLOAD_TOO_LARGE' } }, 'in chunks');
    }
    const generation = (await kernel.status('echo')).generation;
    await t.rejects(sendPieces(at, '/mirror', much), 'an answer that has begun is cut');
    t.equal((await kernel.get('/health/live')).status, 200, 'the kernel is well');
    t.equal((await kernel.status('echo')).generation, generation, 'and so is the plugin');
  });

  t.test('a handler that answers before it has read the body leaves the connection usable', async (t) => {
    const { hostname, port } = new URL(kernel.url);
    const socket = connect(Number(port), hostname);
    let text = '';
    socket.setEncoding('utf8').on('data', (chunk: string) => { text += chunk; });
    const body = Buffer.alloc(2 * MIB);
    socket.write(`POST /plugins/echo/early HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\nContent-Length: ${body.byteLength}\r\n\r\n`);
    socket.write(body);
    socket.write('GET /plugins/echo/text HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    await eventually('both answers have come', 5_000, async () => (text.includes('some text') ? true : undefined));
    t.match(text, /\{"early":true\}[^]*some text$/);
  });

  t.test('server-sent events arrive one by one', async (t) => {
    const began = performance.now();
    const answer = await fetch(`${at}/events`);
    t.equal(answer.headers.get('content-type'), 'text/event-stream');
    const arrivals: [text: string, ms: number][] = [];
    const decoder = new TextDecoder();
    for await (const chunk of answer.body!) arrivals.push([decoder.decode(chunk as Uint8Array), performance.now() - began]);
    t.strictSame(arrivals.map(([text]) => text), [0, 1, 2, 3].map((n) => `data: ${n}\n\n`), 'each in a piece of its own');
    t.ok(arrivals[3]![1] - arrivals[0]![1] > 200, 'and at its own time');
  });

  t.test('a client that goes away aborts the handler', async (t) => {
    for (const [sentence, send] of [
      ['while it waits for an answer', (signal: AbortSignal) => fetch(`${at}/wait`, { signal })],
      ['after it sent a body', (signal: AbortSignal) => fetch(`${at}/wait`, { method: 'POST', body: '{}', headers: { 'content-type': 'application/json' }, signal })],
    ] as const) {
      const { aborts } = (await kernel.get('/plugins/echo/aborts')).json;
      const leaving = new AbortController();
      const answer = send(leaving.signal);
      await eventually('the handler has it', 5_000, async () => ((await kernel.status('echo')).requests.inFlight === 1 ? true : undefined));
      const began = performance.now();
      leaving.abort();
      await t.rejects(answer);
      await eventually('the handler heard of it', 5_000, async () => ((await kernel.get('/plugins/echo/aborts')).json.aborts === aborts + 1 ? true : undefined));
      const ms = performance.now() - began;
      t.ok(ms < 500, `${sentence}: within ${ms.toFixed(0)} ms`);
      t.equal((await kernel.status('echo')).requests.inFlight, 0, 'and nothing is left in flight');
    }
  });

  t.test('reply.raw writes what it is told', async (t) => {
    const answer = await fetch(`${at}/raw`);
    t.strictSame([answer.status, answer.statusText, answer.headers.get('x-raw'), answer.headers.get('content-type'), await answer.text()], [202, 'Very Well', 'yes', 'text/plain', 'one two three']);
  });

  t.test('an answer that breaks in the middle is cut, not ended', async (t) => {
    const answer = await fetch(`${at}/broken-stream`);
    t.equal(answer.status, 200);
    await t.rejects(answer.text(), 'the client can tell half of it from the whole');
    const destroyed = await kernel.get('/plugins/echo/destroyed');
    t.match([destroyed.status, destroyed.json], [502, { code: 'PLUGIN_BAD_ANSWER' }], 'one that breaks before it began is a 502');
    const nonsense = await kernel.get('/plugins/echo/bad-status');
    t.match([nonsense.status, nonsense.json], [502, { code: 'PLUGIN_BAD_ANSWER' }], 'and so is one that cannot be sent');
    t.equal((await kernel.get('/plugins/echo/text')).status, 200);
  });

  t.test('answers without a body have none', async (t) => {
    const head = await rawRequest(kernel.url, 'HEAD', '/plugins/echo/text');
    t.strictSame([head.status, head.headers.get('content-length'), head.text], [200, '9', ''], 'HEAD has the length of GET');
    const big = await rawRequest(kernel.url, 'HEAD', '/plugins/echo/download?bytes=1000000');
    t.strictSame([big.status, big.text], [200, ''], 'HEAD of a stream');
    const nothing = await rawRequest(kernel.url, 'GET', '/plugins/echo/nothing');
    t.strictSame([nothing.status, nothing.headers.get('content-length'), nothing.text], [204, null, '']);
    const unchanged = await rawRequest(kernel.url, 'GET', '/plugins/echo/unchanged');
    t.strictSame([unchanged.status, unchanged.headers.get('etag'), unchanged.text], [304, '"x"', '']);
    const moved = await kernel.get('/plugins/echo/moved');
    t.strictSame([moved.status, moved.headers.get('location')], [303, '/plugins/echo/text'], 'a redirect below the mount');
    t.equal((await kernel.get('/deep/echo/moved')).headers.get('location'), '/deep/echo/text');
  });

  t.test('hooks run in Fastify\'s order', async (t) => {
    const { headers } = await kernel.request('POST', '/plugins/echo/hooks', {});
    t.equal(headers.get('x-trail'), 'onRequest preParsing preValidation preHandler preSerialization onSend');
    await eventually('onResponse has run', 2_000, async () => (kernel.logLines.some(({ msg, plugin }) => plugin === 'echo' && msg === 'hook: onResponse') ? true : undefined));
  });

  t.test('Fastify plugins, encapsulation and error handlers work as anywhere', async (t) => {
    t.strictSame((await kernel.get('/plugins/echo/inner/scoped')).json, { secret: 'only here', shared: 'shared by all' });
    t.strictSame((await kernel.get('/plugins/echo/outer')).json, { secret: null, shared: 'shared by all' });
    const teapot = await kernel.get('/plugins/echo/inner/teapot');
    t.strictSame([teapot.status, teapot.json], [418, { custom: 'short and stout' }], 'a handler of its own');
    const declared = await kernel.get('/plugins/echo/declared');
    t.match([declared.status, declared.json], [409, { statusCode: 409, code: 'NO_TEA', error: 'Conflict', message: 'no tea left', requestId: /\S/ }], 'an error with a status is an answer');
  });
});

t.test('deadlines and admission', async (t) => {
  const kernel = await startTestKernel(t);
  await kernel.writePlugin('narrow', `
    let open = []; let aborted = 0;
    export default { name: 'narrow', version: '1.0.0', limits: { timeoutMs: 600, concurrency: 2, queue: 1 }, routes(app) {
      app.get('/hold', (request, reply) => { open.push(reply); request.signal.addEventListener('abort', () => { aborted += 1; }); });
      app.get('/drip', (request, reply) => { reply.hijack(); reply.raw.write('begun '); setTimeout(() => reply.raw.end('and ended'), 1200); });
      app.get('/', async () => ({ aborted }));
    } };`);
  for (const verb of ['load', 'start'] as const) t.equal((await kernel.verb(verb, 'narrow')).status, 200);

  t.test('one too many is refused at once, and those that wait run into their deadline', async (t) => {
    const began = performance.now();
    const held = Array.from({ length: 3 }, () => kernel.get('/plugins/narrow/hold'));
    await eventually('two are in flight and one waits', 500, async () => {
      const { inFlight, queued } = (await kernel.status('narrow')).requests;
      return inFlight === 2 && queued === 1 ? true : undefined;
    });
    const refused = await kernel.get('/plugins/narrow/');
    t.match([refused.status, refused.json, refused.headers.get('retry-after')], [503, { code: 'PLUGIN_OVERLOADED', message: /"narrow" is busy with 2 requests and 1 more/ }, /^[1-9]\d*$/]);
    for (const { status, json } of await Promise.all(held)) t.match([status, json], [504, { code: 'PLUGIN_TIMEOUT', message: /"narrow" did not answer within 600 ms/ }]);
    const ms = performance.now() - began;
    t.ok(ms >= 590 && ms < 2_000, `after ${ms.toFixed(0)} ms`);
    t.match((await kernel.status('narrow')).requests, { timedOut: 3, shed: 1, inFlight: 0, queued: 0 }, 'they are counted and over');
    await eventually('the handlers heard of it', 2_000, async () => ((await kernel.get('/plugins/narrow/')).json.aborted >= 2 ? true : undefined));
  });

  t.test('an answer that has begun may take longer than the deadline', async (t) => {
    t.equal((await kernel.get('/plugins/narrow/drip')).text, 'begun and ended');
  });

  t.test('a client that leaves the queue makes room', async (t) => {
    const held = Array.from({ length: 2 }, () => kernel.get('/plugins/narrow/hold'));
    await eventually('two are in flight', 500, async () => ((await kernel.status('narrow')).requests.inFlight === 2 ? true : undefined));
    const leaving = new AbortController();
    const waiting = fetch(`${kernel.url}/plugins/narrow/`, { signal: leaving.signal });
    await eventually('one waits', 500, async () => ((await kernel.status('narrow')).requests.queued === 1 ? true : undefined));
    leaving.abort();
    await t.rejects(waiting);
    await eventually('none waits', 500, async () => ((await kernel.status('narrow')).requests.queued === 0 ? true : undefined));
    for (const { status } of await Promise.all(held)) t.equal(status, 504);
  });
});

t.test('many events for many clients all arrive, and are no flood of frames', async (t) => {
  const EVENTS = 1_000;
  const kernel = await startTestKernel(t);
  await kernel.writePlugin('herald', `
    import { Readable } from 'node:stream';
    function* events() { for (let id = 1; id <= ${EVENTS}; id += 1) yield \`data: \${id}\\n\\n\`; }
    export default {
      name: 'herald', version: '1.0.0',
      async routes(app) { app.get('/', (_request, reply) => reply.type('text/event-stream').send(Readable.from(events()))); },
    };`);
  for (const verb of ['load', 'start'] as const) t.equal((await kernel.verb(verb, 'herald')).status, 200);
  const whole = Array.from({ length: EVENTS }, (_, i) => `data: ${i + 1}\n\n`).join('');
  for (let round = 1; round <= 4; round += 1) {
    const heard = await Promise.all(Array.from({ length: 50 }, () => kernel.get('/plugins/herald/')));
    t.equal(heard.filter(({ text }) => text === whole).length, 50, `round ${round}: every client has heard all of them in order`);
  }
  t.match(await kernel.status('herald'), { status: 'running', generation: 1, deaths: [] });
});
