// What a plugin can answer, and what happens on the way there: a worker and a plain Fastify give a client the same bytes.
import { setTimeout as delay } from 'node:timers/promises';
import { brotliDecompressSync, gunzipSync, gzipSync } from 'node:zlib';
import t from 'tap';
import { EARLY_HINTS_MAX, SLOTS_MAX } from '../../protocol/limits.js';
import { ask, MOUNT, startPair } from '../helpers/conformance.js';
import { eventually } from '../helpers/kernel.js';
import { message, RawConnection } from '../helpers/raw-http.js';

const MIB = 1024 * 1024;
const JSON_TYPE = 'Content-Type: application/json';

/** Routes below `/reply` whose status is not 200. */
const STATUS: Readonly<Record<string, number>> = {
  'response': 201, 'response-empty': 204, 'fails-first': 500, 'web-fails-first': 500, 'destroyed-first': 500, 'created': 201, 'no-content': 204, 'no-content-with-body': 204,
  'no-content-with-stream': 204, 'not-modified': 304, 'not-modified-with-body': 304, 'reset': 205, 'redirect': 302, 'redirect-permanent': 308, 'odd-status': 299, 'last-status': 599,
  'bad-header': 500, 'raw-end-204': 204, 'raw-head': 202, 'raw-head-text': 202, 'raw-head-string-status': 201, 'raw-head-204': 204, 'raw-head-304': 304,
};
/** And their status to HEAD, where that is another: Fastify never reads the source of a stream then, and cannot take a Response. */
const HEAD_STATUS: Readonly<Record<string, number>> = { ...STATUS, 'response': 500, 'response-empty': 500, 'response-stream': 500, 'fails-first': 200, 'web-fails-first': 200, 'destroyed-first': 200 };
/** Right by design: the kernel's server says `100 Continue` itself, when a client waits for it, and 102 says nothing. */
const WITHOUT_INTERIM: ReadonlySet<string> = new Set(['raw-write-continue']);
/** Right by design: Node has set the text for the status that failed, and leaves it beside the 500. */
const WITHOUT_REASON: ReadonlySet<string> = new Set(['bad-header']);

t.test('answers through a worker are what they are in a plain Fastify', async (t) => {
  const { plainUrl, kernel, same } = await startPair(t);
  const urls = [plainUrl, kernel.url];
  const get = (path: string, headers: readonly string[] = []): Buffer => message('GET', `${MOUNT}${path}`, { headers });
  /** What a route of the fixture has noted about the request with this name, on both sides, once it holds `last`. */
  const notesOf = (name: string, last: string): Promise<string[][]> => Promise.all(urls.map((url) => eventually(`the notes of ${name} hold "${last}"`, 5_000, async () => {
    const notes = JSON.parse((await ask(url, get(`/hooks/notes/${name}`))).body.toString()) as string[];
    return notes.includes(last) ? notes : undefined;
  })));

  const kinds: Readonly<Record<string, readonly string[]>> = {
    'objects, strings and buffers': ['object', 'string', 'empty-string', 'html', 'json-string', 'vendor-json', 'charset', 'no-type', 'buffer', 'typed-array', 'empty-buffer'],
    'nothing, and what is neither': ['null', 'async-null', 'undefined', 'number', 'boolean', 'serializer', 'date', 'async-reply'],
    'large ones': ['large-string', 'large-object', 'large-buffer', 'exactly-inline', 'one-more', 'own-length', 'wrong-length'],
    'streams': ['stream', 'stream-empty', 'stream-length', 'stream-large', 'stream-slow', 'stream-latin1-header', 'web-stream', 'web-stream-large', 'response', 'response-empty', 'response-stream'],
    'streams that fail': ['fails-first', 'fails-later', 'web-fails-first', 'web-fails-later', 'destroyed-first'],
    'statuses without a body': ['created', 'no-content', 'no-content-with-body', 'no-content-with-stream', 'not-modified', 'not-modified-with-body', 'reset', 'redirect', 'redirect-permanent'],
    'statuses and headers of all kinds': ['odd-status', 'last-status', 'status-text', 'headers', 'cookies', 'many', 'removed', 'hop', 'own-date', 'bad-header', 'hints'],
    'trailers': ['trailer', 'trailer-of-stream', 'trailer-of-nothing', 'trailer-failed', 'raw-trailers'],
    'the raw response, whole': ['raw-end', 'raw-end-nothing', 'raw-end-buffer', 'raw-end-large', 'raw-end-encoding', 'raw-end-callback', 'raw-end-204', 'raw-end-twice', 'raw-observed', 'raw-write-continue'],
    'the raw response, in pieces': ['raw-write', 'raw-write-length', 'raw-flush', 'raw-continue', 'raw-corked', 'raw-drain', 'raw-pipe', 'raw-states'],
    'the raw head': ['raw-head', 'raw-head-nothing', 'raw-head-text', 'raw-head-flat', 'raw-head-pairs', 'raw-head-over', 'raw-head-object-over', 'raw-head-string-status', 'raw-head-204', 'raw-head-304', 'raw-head-refused', 'raw-headers', 'raw-no-date', 'raw-last', 'raw-head-then-send'],
  };
  for (const [sentence, names] of Object.entries(kinds)) {
    await t.test(sentence, async (t) => {
      for (const name of names) {
        const status = STATUS[name] ?? 200;
        const headStatus = HEAD_STATUS[name] ?? 200;
        // Right by design: what a plain Fastify says of the length of a 204, to HEAD, is what RFC 9110 forbids (8.6).
        const unsized = headStatus === 204 ? ['content-length'] : [];
        const except = [...(WITHOUT_REASON.has(name) ? ['reason'] : []), ...(WITHOUT_INTERIM.has(name) ? ['interim'] : [])];
        // Right by design: chunks and trailers to a client that cannot read them are what a plain Fastify sends, and what HTTP forbids.
        const unchunked = sentence === 'trailers' ? [...except, 'trailers', 'trailer', 'transfer-encoding'] : except;
        await same(t, `${name} to GET`, get(`/reply/${name}`), { status, error: status === 500, cut: name.endsWith('fails-later'), except });
        if (name === 'raw-trailers') continue; // which a plain Fastify answers to nobody else
        await same(t, `${name} to HEAD`, message('HEAD', `${MOUNT}/reply/${name}`), { status: headStatus, error: headStatus === 500, except: [...unchunked, ...unsized] });
        await same(t, `${name} to HTTP/1.0`, message('GET', `${MOUNT}/reply/${name}`, { version: '1.0' }), { status, error: status === 500, except: name === 'hints' ? ['interim'] : unchunked }); // which knows none (15.2)
      }
    });
  }

  t.test('an answer tells its handler what has become of it', async (t) => {
    await Promise.all(urls.map((url) => ask(url, get('/reply/raw-observed'))));
    const [plain, ours] = await Promise.all(urls.map((url) => eventually('it is closed', 2_000, async () => {
      const observed = JSON.parse((await ask(url, get('/observed'))).body.toString()) as string[];
      return observed.some((note) => note.startsWith('close')) ? observed.sort() : undefined; // Nodes differ in whether a callback comes before or after 'finish'
    })));
    t.strictSame(ours, plain);
  });

  t.test('a few early hints go to the client, not any number', async (t) => {
    const [plain, ours] = await Promise.all(urls.map((url) => ask(url, get('/reply/many-hints'))));
    t.strictSame([plain!.interim.length, ours!.interim.length], [12, EARLY_HINTS_MAX], 'each is kept for a client that does not read');
    t.equal(ours!.body.toString(), 'after many hints');
  });

  t.test('hints that could hold up the kernel or end a head are dropped', async (t) => {
    const began = performance.now();
    const { interim, body } = await ask(kernel.url, get('/reply/bad-hints'));
    t.strictSame([interim, body.toString()], [[], 'after bad hints']);
    t.ok(performance.now() - began < 2_000, 'Node\'s own check would take longer than there is time');
  });

  t.test('an answer for trailers goes to everybody, the trailers only where they can', async (t) => {
    for (const request of [message('HEAD', `${MOUNT}/reply/raw-trailers`), message('GET', `${MOUNT}/reply/raw-trailers`, { version: '1.0' })]) t.equal((await ask(kernel.url, request)).status, 200);
  });

  t.test('server-sent events', async (t) => {
    await same(t, 'are the same bytes', get('/events'), { status: 200 });
    const connection = await RawConnection.open(kernel.url);
    t.teardown(() => connection.destroy());
    const arrivals: string[] = [];
    connection.socket.on('data', (chunk: Buffer) => arrivals.push(...chunk.toString().match(/data: \d/g) ?? []));
    connection.write(get('/events'));
    await eventually('the first has come', 2_000, async () => (arrivals.length > 0 ? true : undefined));
    t.ok(arrivals.length < 4, 'and come one by one');
    t.match((await connection.answer()).body.toString(), /^id: 0\n[^]*data: 3\n\n$/);
  });

  t.test('compression', async (t) => {
    const text = 'to be compressed, '.repeat(200);
    const encodings: readonly (readonly [accepted: string, coding: string | undefined, unpack: (bytes: Buffer) => Buffer])[] = [
      ['gzip', 'gzip', gunzipSync], ['br', 'br', brotliDecompressSync], ['gzip;q=0.5, br;q=1', 'br', brotliDecompressSync], ['identity', undefined, (bytes) => bytes],
    ];
    for (const [accepted, coding, unpack] of encodings) {
      for (const [path, wanted] of [['json', JSON.stringify({ text })], ['stream', text + text], ['by-hand', text], ['large', Buffer.alloc(MIB, text).toString()]] as const) {
        await same(t, `${path} with ${accepted}`, get(`/upload/compressed/${path}`, [`Accept-Encoding: ${accepted}`]), {
          status: 200,
          then: ({ headers, body }, t) => {
            t.equal(headers.find(([name]) => name.toLowerCase() === 'content-encoding')?.[1], coding);
            t.equal(unpack(body).toString(), wanted);
          },
        });
      }
    }
    for (const path of ['short', 'binary', 'never', 'empty']) {
      await same(t, `${path} stays as it is`, get(`/upload/compressed/${path}`, ['Accept-Encoding: gzip']), {
        status: path === 'empty' ? 204 : 200, then: ({ headers }, t) => t.notOk(headers.some(([name]) => name.toLowerCase() === 'content-encoding')),
      });
    }
    await same(t, 'json to HEAD', message('HEAD', `${MOUNT}/upload/compressed/json`, { headers: ['Accept-Encoding: gzip'] }), { status: 200 });
    await same(t, 'nothing is asked for', get('/upload/compressed/json'), { status: 200 });
    await same(t, 'a coding that nobody has', get('/upload/compressed/json', ['Accept-Encoding: x-none']), { status: 200 });
    await same(t, 'a packed body is unpacked', message('POST', `${MOUNT}/upload/compressed/inflated`, { headers: [JSON_TYPE, 'Content-Encoding: gzip'], body: gzipSync('{"a":1}') }), { status: 200, then: ({ body }, t) => t.equal(body.toString(), '{"a":1}') });
  });

  t.test('errors', async (t) => {
    const own: Readonly<Record<string, number>> = {
      'thrown': 500, 'rejected': 500, 'sent': 500, 'sent-with-status': 404, 'declared': 409, 'declared-headers': 429, 'unavailable': 503, 'not-found': 404, 'unserialisable': 500,
      'schema-of-answer': 500, 'late': 400, 'status-kept': 400,
    };
    for (const [path, status] of Object.entries(own)) await same(t, `${path} is a ${status}`, get(`/errors/${path}`), { status, error: true });
    // The first is text in a plain Fastify, and an error like all others here; the second shows what was thrown, and the third the route with the mount before it.
    await same(t, 'words instead of an error are a 500', get('/errors/no-error'), { status: 500, error: 'status' });
    await same(t, 'a status that was set before something unexpected is kept', get('/errors/thrown-after-status'), { status: 503, error: 'status' });
    await same(t, 'a handler that takes too long is a 503', get('/errors/timeout'), { status: 503, error: 'status' });
    for (const path of ['sent-twice', 'sent-then-thrown', 'sent-and-returned']) await same(t, `${path}: the first answer counts`, get(`/errors/${path}`), { status: 200 });
    const handled: Readonly<Record<string, number>> = { 'thrown': 418, 'not-found': 410, 'absent': 410, 'nested/mild': 422, 'nested/hard': 418, 'returned/': 200 };
    for (const [path, status] of Object.entries(handled)) await same(t, `${path} has a handler of its own`, get(`/errors/handled/${path}`), { status });
    // What fails again when the handler's own answer is serialised ends as Fastify's answer.
    for (const hook of ['onRequest', 'preParsing', 'preValidation', 'preHandler', 'preSerialization', 'onSend']) await same(t, `an error in ${hook} has one too`, get(`/errors/handled/in/${hook}`), { status: 418, error: hook === 'preSerialization' });
    await same(t, 'a body that is not valid has one too', message('POST', `${MOUNT}/errors/handled/invalid`, { headers: [JSON_TYPE], body: '{}' }), { status: 418 });
    await same(t, 'decorations are seen inside', get('/errors/inside'), { status: 200 });
    await same(t, 'and not outside', get('/errors/outside'), { status: 200 });
    await same(t, 'a plugin can ask itself', get('/errors/to-itself'), { status: 200, then: ({ body }, t) => t.match(body.toString(), /"statusCode":200/) });
  });

  t.test('hooks', async (t) => {
    let named = 0;
    const run = (sentence: string, last: string, request: (notes: string) => Buffer, status: number, error = false): Promise<unknown> => t.test(sentence, async (t) => {
      const name = `hooks-${(named += 1)}`;
      await same(t, 'the answer', request(`X-Notes: ${name}`), { status, error });
      const [plain, ours] = await notesOf(name, last);
      t.strictSame(ours, plain, plain!.join(', '));
    });
    await run('run in order for a GET', 'onResponse 200 true true', (notes) => get('/hooks/plain', [notes]), 200);
    await run('run in order for a POST', 'onResponse 200 true true', (notes) => message('POST', `${MOUNT}/hooks/plain`, { headers: [JSON_TYPE, notes], body: '{}' }), 200);
    await run('run for a HEAD', 'onResponse 200 true true', (notes) => message('HEAD', `${MOUNT}/hooks/plain`, { headers: [notes] }), 200);
    await run('do not serialise text', 'onResponse 200 true true', (notes) => get('/hooks/text', [notes]), 200);
    await run('run for streams', 'onResponse 200 true true', (notes) => get('/hooks/stream', [notes]), 200);
    await run('end with a hijacked answer', 'onResponse 200 true true', (notes) => get('/hooks/hijacked', [notes]), 200);
    await run('hear of an error', 'onResponse 500 true true', (notes) => get('/hooks/thrown', [notes]), 500, true);
    await run('hear of a body that is not valid', 'onResponse 400 true true', (notes) => message('POST', `${MOUNT}/hooks/invalid`, { headers: [JSON_TYPE, notes], body: '{}' }), 400, true);
    for (const hook of ['onRequest', 'preValidation', 'preHandler']) await run(`may answer in ${hook}`, 'onResponse 203 true true', (notes) => get(`/hooks/answered-in/${hook}`, [notes]), 203);
    for (const path of ['changed', 'emptied', 'wrapped']) await same(t, `may have an answer ${path}`, get(`/hooks/${path}`), { status: 200 });

    await t.test('hear of a timeout that a handler has set', async (t) => {
      const connections = await Promise.all(urls.map((url) => RawConnection.open(url)));
      for (const connection of connections) connection.write(get('/hooks/silent', ['X-Notes: silent']));
      await connections[0]!.ended();
      t.equal(connections[0]!.rest.byteLength, 0, 'a plain Fastify cuts the connection');
      t.equal((await connections[1]!.answer()).status, 502, 'and by design every request has an answer in a kernel');
      for (const notes of await notesOf('silent', 'onTimeout')) t.ok(notes.includes('onTimeout'));
      for (const connection of connections) connection.destroy();
    });
    await run('do not, when the handler takes care of its timeout', 'onResponse 408 true true', (notes) => get('/hooks/heard', [notes]), 408);
  });

  t.test('the kernel\'s deadline is a timeout to a plugin', async (t) => {
    await kernel.writePlugin('patient', `export default {
      name: 'patient', version: '1.0.0', limits: { timeoutMs: 200 },
      routes(app) {
        for (const hook of ['onTimeout', 'onRequestAbort']) app.addHook(hook, async (request) => request.log.info('hook: ' + hook));
        app.get('/', () => new Promise(() => {}));
      },
    };`, 'plugin.js');
    for (const verb of ['load', 'start'] as const) t.equal((await kernel.verb(verb, 'patient')).status, 200);
    t.equal((await kernel.get('/plugins/patient/')).status, 504);
    for (const hook of ['onTimeout', 'onRequestAbort']) {
      await eventually(`${hook} has run`, 2_000, async () => kernel.logLines.some(({ msg, plugin }) => plugin === 'patient' && msg === `hook: ${hook}`) || undefined);
    }
  });

  t.test('a client that leaves', async (t) => {
    const leave = async (url: string, name: string, request: Buffer): Promise<number> => {
      const connection = await RawConnection.open(url);
      connection.write(request);
      await eventually('the handler has it', 5_000, async () => (JSON.parse((await ask(url, get(`/hooks/notes/${name}`))).body.toString()) as string[]).includes('handler') || undefined);
      const left = Date.now();
      connection.destroy();
      return left;
    };
    await t.test('is noticed within 50 ms, by all who listen', async (t) => {
      const times: number[] = [];
      for (let i = 0; i < 8; i += 1) {
        const name = `left-${i}`;
        // A plain Fastify's handler hears of it only before its body has been read, because Node closes a request then: by design it does here.
        const request = i % 2 === 0 ? get('/hooks/wait', [`X-Notes: ${name}`]) : message('POST', `${MOUNT}/hooks/wait`, { headers: [JSON_TYPE, `X-Notes: ${name}`], body: '{}' });
        const left = await leave(kernel.url, name, request);
        const notes = await eventually('all have heard of it', 5_000, async () => {
          const list = JSON.parse((await ask(kernel.url, get(`/hooks/notes/${name}`))).body.toString()) as string[];
          return ['signal', 'raw aborted', 'raw close, aborted: true', 'socket close', 'onRequestAbort', 'the handler stopped'].every((word) => list.includes(word)) ? list : undefined;
        });
        t.equal(notes.filter((word) => word === 'signal').length, 1, 'once');
        times.push(Number(notes.find((word) => word.startsWith('at '))!.slice(3)) - left);
      }
      times.sort((a, b) => a - b);
      t.ok(times[3]! < 50, `half of the handlers heard within ${times[4]} ms, all within ${times.at(-1)} ms`);
    });
    await t.test('tells a handler of GET what it tells one of a plain Fastify', async (t) => {
      for (const url of urls) await leave(url, 'both', get('/hooks/wait', ['X-Notes: both']));
      const [plain, ours] = (await notesOf('both', 'raw aborted')).map((notes) => notes.filter((note) => !note.startsWith('at ')).sort());
      t.strictSame(ours, plain);
    });
    await t.test('in the middle of its body ends the handler that reads it', async (t) => {
      for (const url of urls) {
        await leave(url, 'half', Buffer.from(`POST ${MOUNT}/hooks/upload HTTP/1.1\r\nHost: x\r\nX-Notes: half\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n`));
      }
      const [plain, ours] = await notesOf('half', 'onError: aborted');
      t.strictSame(ours, plain);
    });
  });

  t.test('a client that reads slowly holds up the handler, and nobody\'s memory grows', async (t) => {
    const size = 48 * MIB;
    const connection = await RawConnection.open(kernel.url);
    t.teardown(() => connection.destroy());
    connection.socket.pause();
    globalThis.gc?.();
    const before = process.memoryUsage();
    connection.write(get(`/endless?bytes=${size}`));
    const produced = async (): Promise<{ produced: number; memory: number }> => JSON.parse((await ask(kernel.url, get('/produced'))).body.toString());
    let last = -1;
    const stopped = await eventually('the handler has stopped', 10_000, async () => {
      await delay(150);
      const now = await produced();
      const still = now.produced > 0 && now.produced === last;
      last = now.produced;
      return still ? now : undefined;
    });
    globalThis.gc?.();
    const after = process.memoryUsage();
    const grown = after.heapUsed + after.external - before.heapUsed - before.external;
    t.ok(stopped.produced < size / 4, `it stopped after ${(stopped.produced / MIB).toFixed(1)} of ${size / MIB} MiB`);
    t.ok(grown < 16 * MIB, `the kernel grew by ${(grown / MIB).toFixed(1)} MiB`);
    t.ok(stopped.memory < 32 * MIB, `the worker holds ${(stopped.memory / MIB).toFixed(1)} MiB of buffers`);
    connection.socket.resume();
    const { status, complete, body } = await connection.answer();
    t.strictSame([status, complete, body.byteLength], [200, true, size], 'and when the client reads, all of it comes');
  });

  t.test('what waits for an answer before it leaves with its connection', async (t) => {
    const open = async (): Promise<number> => (await kernel.status('conform')).requests.inFlight;
    for (let round = 0; round < 3; round += 1) {
      const connection = await RawConnection.open(kernel.url);
      connection.socket.pause();
      connection.write(Buffer.concat([get(`/endless?bytes=${64 * MIB}`), get('/filled?fill=1&bytes=700000')]));
      await eventually('both are under way', 5_000, async () => ((await open()) === 2 ? true : undefined));
      connection.destroy();
      await eventually('neither is', 5_000, async () => ((await open()) === 0 ? true : undefined));
    }
    t.equal(await open(), 0);
  });

  t.test('answers of many clients at once do not mix, whoever leaves', async (t) => {
    const size = 700_000;
    const open = async (fill: number): Promise<RawConnection> => {
      const connection = await RawConnection.open(kernel.url);
      connection.write(get(`/filled?fill=${fill}&bytes=${size}`));
      return connection;
    };
    for (let round = 0; round < 3; round += 1) {
      // More than there are slots, and every third leaves when it has got a part.
      const connections = await Promise.all(Array.from({ length: 2 * SLOTS_MAX }, (_, fill) => open(fill)));
      const wrong = await Promise.all(connections.map(async (connection, fill) => {
        if (fill % 3 === 0) {
          connection.socket.once('data', () => connection.destroy());
          return false;
        }
        const { complete, body } = await connection.answer();
        connection.destroy();
        return !complete || body.byteLength !== size || !body.every((byte) => byte === fill);
      }));
      t.strictSame(wrong.flatMap((isWrong, fill) => (isWrong ? [fill] : [])), [], `round ${round + 1}`);
    }
  });
});
