// What a client can send: the same bytes to a plugin in a worker and to the same plugin in a plain Fastify, and the same answers.
import { randomBytes } from 'node:crypto';
import { METHODS } from 'node:http';
import { gzipSync } from 'node:zlib';
import fastify from 'fastify';
import t from 'tap';
import { KEEP_ALIVE_TIMEOUT_MS, REQUEST_TIMEOUT_MS } from '../../protocol/limits.js';
import { ask, comparable, MOUNT, startPair, startServer } from '../helpers/conformance.js';
import { eventually } from '../helpers/kernel.js';
import { message, RawConnection } from '../helpers/raw-http.js';

const MIB = 1024 * 1024;
const JSON_TYPE = 'Content-Type: application/json';
const FORM_TYPE = 'Content-Type: application/x-www-form-urlencoded';
const seen = (body: Buffer): any => JSON.parse(body.toString());

t.test('requests through a worker are what they are in a plain Fastify', async (t) => {
  const pair = await startPair(t);
  const { plainUrl, kernel, same } = pair;
  const both = [['plain Fastify', plainUrl], ['kernel', kernel.url]] as const;

  t.test('methods', async (t) => {
    for (const method of METHODS.filter((method) => method !== 'CONNECT')) {
      // The one method that Fastify refuses without a body.
      await same(t, `${method} arrives`, message(method, `${MOUNT}/seen`, method === 'QUERY' ? { headers: [JSON_TYPE], body: '{}' } : {}), { status: 200 });
    }
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND', 'REPORT', 'GET', 'HEAD', 'TRACE']) {
      await same(t, `${method} arrives with a body, or what Fastify makes of one`, message(method, `${MOUNT}/seen`, { headers: [JSON_TYPE], body: '{"a":1}' }), { status: 200 });
    }
    await same(t, 'HEAD of a GET route is answered by that route', message('HEAD', `${MOUNT}/reply/object`), { status: 200 });
    await same(t, 'HEAD has a route of its own', message('HEAD', `${MOUNT}/own-head`), { status: 200 });
    await same(t, 'HEAD of a route without it is a 404', message('HEAD', `${MOUNT}/no-head`), { status: 404, error: true });
    await same(t, 'a method that a path does not have is a 404', message('DELETE', `${MOUNT}/own-head`), { status: 404, error: true });
    await same(t, 'OPTIONS * is nobody\'s', message('OPTIONS', '*'), { status: 404, error: true });
    await same(t, 'a method in small letters is refused', message('get', `${MOUNT}/seen`), { status: 400 });
  });

  t.test('paths and queries', async (t) => {
    const paths: Record<string, readonly [path: string, status: number]> = {
      'the root of a mount without a slash': ['', 200],
      'the root of a mount with a slash': ['/', 200],
      'the root with a query and no slash': ['?a=1', 200],
      'two slashes at the root': ['//', 404],
      'two slashes below a route': ['//seen', 404],
      'two slashes in a wildcard': ['/seen//a//b/', 200],
      'a trailing slash where there is none': ['/own-head/', 404],
      'a missing trailing slash': ['/slashed', 404],
      'a trailing slash': ['/slashed/', 200],
      'dots are kept': ['/seen/../x/./y', 200],
      'an encoded slash': ['/item/a%2Fb', 200],
      'an encoded space and a plus': ['/item/a%20b+c', 200],
      'UTF-8': ['/item/%C3%A4%F0%9F%98%80', 200],
      'an encoded percent sign': ['/item/100%25', 200],
      'an encoded letter of a route': ['/s%65en/x', 200],
      'an invalid percent sign': ['/item/%zz', 400],
      'half a percent sign': ['/item/%', 400],
      'invalid UTF-8': ['/item/%ff', 400],
      'several parameters': ['/pair/here-there', 200],
      'an empty parameter': ['/item/', 200],
      'a parameter that fits its pattern': ['/number/42', 200],
      'a parameter that does not': ['/number/x', 404],
      'an optional parameter that is there': ['/optional/x', 200],
      'an optional parameter that is not': ['/optional', 200],
      'a parameter that is too long': [`/item/${'x'.repeat(101)}`, 414],
      'a matrix parameter': ['/item/a;b=c', 200],
      'case matters': ['/SEEN', 404],
      'repeated, empty and encoded parts of a query': ['/seen?a=1&a=2&b&c=&=d&%C3%A4=%26%20+x&e=f=g&a%5B%5D=3', 200],
      'a query with an invalid percent sign': ['/seen?a=%zz&b=%', 200],
      'a second question mark': ['/seen?a=1?b=2', 200],
      'a query with names that every object has': ['/seen?__proto__=1&constructor=2&toString=3', 200],
      'a very long URL': [`/seen/${'long/'.repeat(1_500)}?q=${'y'.repeat(6_000)}`, 200],
    };
    for (const [sentence, [path, status]] of Object.entries(paths)) {
      await same(t, sentence, message('GET', `${MOUNT}${path}`), { status, error: status === 404 || (status >= 400 && 'status') }); // the router's own errors name the path as it sees it
    }
    await same(t, 'a whole URL instead of a path, as to a proxy', message('GET', `http://conform.test${MOUNT}/seen/x?a=1`), { status: 200 });
    await same(t, 'latin1 in a path', message('GET', `${MOUNT}/seen/\xe4`), { status: 400 });
    await same(t, 'a URL that is longer than a head may be', message('GET', `${MOUNT}/seen/${'x'.repeat(20_000)}`), { status: 431 });
    await same(t, 'a route for a version', message('GET', `${MOUNT}/versioned`, { headers: ['Accept-Version: 2.x'] }), { status: 200 });
    await same(t, 'a route for another version', message('GET', `${MOUNT}/versioned`, { headers: ['Accept-Version: 1.x'] }), { status: 404, error: true });
    await same(t, 'a route for a host', message('GET', `${MOUNT}/hosted`, { headers: ['Host: other.test'] }), { status: 200 });
    await same(t, 'a route for another host', message('GET', `${MOUNT}/hosted`), { status: 404, error: true });
  });

  t.test('headers', async (t) => {
    const headers: Record<string, readonly string[]> = {
      'repeated headers are joined, and those that cannot be keep the first': [
        'X-Two: a', 'x-two: b', 'Cookie: c=1', 'Cookie: d=2', 'User-Agent: first', 'User-Agent: second', 'Content-Type: text/plain', 'Content-Type: text/html', 'Accept: a/b', 'Accept: c/d',
        'Set-Cookie: a=1', 'set-cookie: b=2', 'Referer: 1', 'Referer: 2', 'Authorization: x', 'Authorization: y', 'If-Match: "a"', 'If-Match: "b"', 'Expires: 1', 'Expires: 2', 'Server: 1', 'Server: 2',
      ],
      'names that every object has': ['Constructor: a', 'constructor: b', '__proto__: c', 'hasOwnProperty: d', 'toString: e'],
      'empty values': ['X-Empty:', 'X-Blank:    ', 'X-After: x', 'X-Empty:', 'Cookie:'],
      'space around values': ['X-Space:  \t both sides \t '],
      'latin1 values': ['X-Latin1: caf\xe9 \xfc\xff'],
      'UTF-8 values come as latin1': [`X-Utf8: ${Buffer.from('ä€😀').toString('latin1')}`],
      'odd characters': ['X-Odd: "quoted", (comment); a=b, <x>; \\', 'x_underscore!#$%&\'*+-.^`|~: fine', 'X-Colon: a:b:c'],
      'case of names': ['X-MiXeD: a'],
      'numbers as names': ['42: first', '7: second'],
      'many headers': Array.from({ length: 400 }, (_, i) => `X-Header-${i}: ${i}`),
      'one long header': [`X-Long: ${'l'.repeat(12_000)}`],
      'traces arrive unchanged': ['traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', 'tracestate: rojo=00f067aa0ba902b7,congo=t61rcWkgMzE'],
      'conditions, ranges and preferences': ['If-None-Match: W/"x"', 'If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT', 'Range: bytes=0-1', 'Accept-Language: de;q=0.5', 'Accept-Encoding: gzip'],
      'headers of one hop': ['TE: trailers', 'Keep-Alive: timeout=5', 'Upgrade-Insecure-Requests: 1', 'Proxy-Authorization: Basic x', 'Via: 1.1 proxy', 'Connection: keep-alive, X-Mine'],
      'an upgrade that nobody offers': ['Connection: Upgrade', 'Upgrade: something'],
      'forwarded headers are not believed': ['X-Forwarded-For: 1.2.3.4', 'X-Forwarded-Host: evil.test', 'X-Forwarded-Proto: https'],
    };
    for (const [sentence, lines] of Object.entries(headers)) {
      await same(t, sentence, message('GET', `${MOUNT}/seen`, { headers: lines }), { status: 200 });
    }
    for (const host of ['conform.test:8080', '[::1]:99', '[::1]', '127.0.0.1', 'UPPER.test', '']) {
      await same(t, `the host "${host}"`, message('GET', `${MOUNT}/seen`, { headers: [`Host: ${host}`] }), { status: 200 });
    }
    await same(t, 'no host in HTTP/1.1', Buffer.from(`GET ${MOUNT}/seen HTTP/1.1\r\n\r\n`), { status: 400 });
    await same(t, 'a header without a colon', message('GET', `${MOUNT}/seen`, { headers: ['nonsense'] }), { status: 400 });
    await same(t, 'a head that is too large', message('GET', `${MOUNT}/seen`, { headers: [`X-Large: ${'x'.repeat(20_000)}`] }), { status: 431 });
    await same(t, 'no HTTP at all', Buffer.from('what is this?\r\n\r\n'), { status: 400 });
    await same(t, 'HTTP/1.0', message('GET', `${MOUNT}/seen`, { version: '1.0' }), { status: 200 });
    await same(t, 'HTTP/1.0 without a host', Buffer.from(`GET ${MOUNT}/seen HTTP/1.0\r\n\r\n`), { status: 200 });
    await same(t, 'HTTP/1.0 that keeps its connection', message('GET', `${MOUNT}/reply/string`, { version: '1.0', headers: ['Connection: keep-alive'] }), { status: 200 });
  });

  t.test('bodies', async (t) => {
    const post = (type: string | null, body: string | Uint8Array, path = '/seen'): Buffer => message('POST', `${MOUNT}${path}`, { headers: type === null ? [] : [`Content-Type: ${type}`], body });
    const inChunks = (type: string, chunks: readonly (string | Uint8Array)[], path = '/seen', trailers: readonly string[] = []): Buffer =>
      message('POST', `${MOUNT}${path}`, { headers: [`Content-Type: ${type}`], chunks, trailers });
    const json = JSON.stringify({ text: 'ä\u0000\u2028😀', numbers: [1, -0.5, 1e300], nested: { empty: {}, none: null } });
    const long = JSON.stringify({ long: 'x'.repeat(300_000) });

    await same(t, 'JSON', post('application/json', json), { status: 200 });
    await same(t, 'JSON with parameters', post('application/json; charset=utf-8', json), { status: 200 });
    await same(t, 'JSON of a vendor is nobody\'s', post('application/vnd.api+json', json), { status: 415, error: true });
    await same(t, 'JSON in chunks', inChunks('application/json', [json.slice(0, 9), json.slice(9)]), { status: 200 });
    await same(t, 'JSON in a thousand tiny chunks', inChunks('application/json', [...long.slice(0, 900), long.slice(900, -5), ...long.slice(-5)]), { status: 200 });
    await same(t, 'JSON that is longer than a frame', post('application/json', long), { status: 200 });
    await same(t, 'a number, a string, null', post('application/json', 'null'), { status: 200 });
    await same(t, 'no JSON', post('application/json', '{"half":'), { status: 400, error: true });
    await same(t, 'empty JSON', post('application/json', ''), { status: 400, error: true });
    await same(t, 'empty JSON in chunks', inChunks('application/json', []), { status: 400, error: true });
    await same(t, 'JSON without any length', message('POST', `${MOUNT}/seen`, { headers: [JSON_TYPE] }), { status: 400, error: true });
    await same(t, 'JSON that poisons prototypes', post('application/json', '{"__proto__":{"admin":true}}'), { status: 400, error: true });
    await same(t, 'JSON that poisons constructors', post('application/json', '{"constructor":{"prototype":{"admin":true}}}'), { status: 400, error: true });
    await same(t, 'JSON with a byte order mark', post('application/json', '\ufeff{}'), { status: 200 });
    await same(t, 'text', post('text/plain', 'ä€😀\u0000'), { status: 200 });
    await same(t, 'text that is no UTF-8', post('text/plain', Buffer.from([0xff, 0xfe, 0x41])), { status: 200 });
    await same(t, 'empty text', post('text/plain', ''), { status: 200 });
    await same(t, 'no type', post(null, 'something'), { status: 415, error: true });
    await same(t, 'no type and no body', post(null, ''), { status: 200 });
    await same(t, 'an unknown type', post('application/x-unheard-of', 'x'), { status: 415, error: true });
    await same(t, 'a type that is none', post('nonsense', 'x'), { status: 415, error: true });
    await same(t, 'a parser for strings', post('application/x-string', 'ä'), { status: 200 });
    await same(t, 'a parser for buffers', post('application/x-buffer', randomBytes(100)), { status: 200 });
    await same(t, 'a parser for a family of types', post('image/png', randomBytes(70_000)), { status: 200 });
    await same(t, 'a parser that reads the stream', inChunks('application/x-async', [randomBytes(100), randomBytes(200_000)]), { status: 200 });
    await same(t, 'a parser that fails', post('application/x-broken', 'x'), { status: 422, error: true });
    await same(t, 'a parser with a limit', post('application/x-limited', 'more than ten'), { status: 413, error: true });
    await same(t, 'a parser for all that is left', post('application/anything', randomBytes(100), '/anything'), { status: 200 });
    await same(t, 'binary in chunks of all sizes', inChunks('image/png', [randomBytes(1), randomBytes(65_535), randomBytes(65_536), randomBytes(65_537), randomBytes(300_000)]), { status: 200 });
    for (const size of [1, 65_536, 65_537, 1_000_000]) await same(t, `${size} bytes`, post('image/png', randomBytes(size)), { status: 200 });
    await same(t, 'trailers after chunks', inChunks('application/json', ['{}'], '/seen', ['X-Sum: 1', 'x-sum: 2', 'X-Other: ä']), { status: 200, then: (answer, t) => t.match(seen(answer.body).raw.trailers, { 'x-sum': '1, 2' }) });
    await same(t, 'trailers after chunks that nobody reads', inChunks('application/json', ['{}'], '/early', ['X-Sum: 1']), { status: 200 });
    await same(t, 'a body for a handler that does not read it', post('application/json', long, '/early'), { status: 200 });
    for (const [sentence, request] of [['a small body', post('application/json', '{}', '/context')], ['a large body', post('application/json', long, '/context')], ['chunks', inChunks('application/json', [long.slice(0, 90_000), long.slice(90_000)], '/context')]] as const) {
      await same(t, `the asynchronous context of a request lasts over ${sentence}`, request, { status: 200, then: (answer, t) => t.strictSame(seen(answer.body), { context: `${MOUNT}/context` }) });
    }
    await same(t, 'a body for a path that is not there', post('application/json', json, '/absent'), { status: 404, error: true });
    for (const path of ['/stops-reading', '/fails-reading']) {
      for (const size of [10, 300_000]) {
        await same(t, `${size} bytes for a handler that ${path.slice(1).replace('-', ' ')}`, post('image/png', randomBytes(size), path), { status: 200 });
        await same(t, `${size} bytes in chunks for a handler that ${path.slice(1).replace('-', ' ')}`, inChunks('image/png', [randomBytes(size / 2), randomBytes(size / 2)], path), { status: 200 });
      }
    }
    await same(t, 'a body that a hook unpacks', message('POST', `${MOUNT}/inflate`, { headers: [JSON_TYPE, 'Content-Encoding: gzip'], body: gzipSync(json) }), { status: 200 });
    await same(t, 'a body that is not packed at all', post('application/json', json, '/inflate'), { status: 400, error: true });
    await same(t, 'Expect: 100-continue', message('POST', `${MOUNT}/seen`, { headers: [JSON_TYPE, 'Expect: 100-continue'], body: json }), { status: 200, then: (answer, t) => t.strictSame(answer.interim, [100]) });
    await same(t, 'an expectation that nobody fulfils', message('POST', `${MOUNT}/seen`, { headers: [JSON_TYPE, 'Expect: miracles'], body: json }), { status: 417 });
    await same(t, 'a body over the limit of its route', post('text/plain', 'x'.repeat(1_001), '/small'), { status: 413, error: true });
    await same(t, 'chunks over the limit of a route', inChunks('text/plain', ['x'.repeat(600), 'x'.repeat(600)], '/small'), { status: 413, error: true });
    await same(t, 'a declared length over the limit of the plugin', Buffer.from(`POST ${MOUNT}/seen HTTP/1.1\r\nHost: x\r\n${JSON_TYPE}\r\nContent-Length: ${5 * MIB}\r\n\r\n`), { status: 413, error: true });
    await same(t, 'chunks over the limit of the plugin', inChunks('application/json', [Buffer.alloc(4 * MIB, 0x20), Buffer.alloc(10_000, 0x20)]), { status: 413, error: true });
    await same(t, 'two lengths', message('POST', `${MOUNT}/seen`, { headers: [JSON_TYPE, 'Content-Length: 2', 'Content-Length: 3'] }), { status: 400 });
    await same(t, 'a length and chunks', message('POST', `${MOUNT}/seen`, { headers: [JSON_TYPE, 'Content-Length: 2'], chunks: ['{}'] }), { status: 400 });
    await same(t, 'a length that is no number', message('POST', `${MOUNT}/seen`, { headers: [JSON_TYPE, 'Content-Length: two'] }), { status: 400 });
    await same(t, 'a chunk that is none', Buffer.from(`POST ${MOUNT}/seen HTTP/1.1\r\nHost: x\r\n${JSON_TYPE}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n`), { status: 400 });
    await same(t, 'an encoding of the transfer that nobody knows', Buffer.from(`POST ${MOUNT}/seen HTTP/1.1\r\nHost: x\r\n${JSON_TYPE}\r\nTransfer-Encoding: gzip\r\n\r\n`), { status: 400 });

    const { admitted } = (await kernel.status('conform')).requests;
    await ask(kernel.url, Buffer.from(`POST ${MOUNT}/seen HTTP/1.1\r\nHost: x\r\nContent-Length: ${5 * MIB}\r\n\r\n`));
    t.equal((await kernel.status('conform')).requests.admitted, admitted, 'a body that is declared too large does not reach the worker');
  });

  t.test('validation', async (t) => {
    const post = (path: string, body: string, headers: readonly string[] = []): Buffer => message('POST', `${MOUNT}${path}`, { headers: [JSON_TYPE, ...headers], body });
    await same(t, 'types are coerced, defaults filled in, unknown properties removed', post('/validated?list=1&list=2&flag=true', '{"n":"5","more":1}', ['X-Count: 3']), { status: 200, then: (answer, t) => t.strictSame(seen(answer.body), { body: { n: 5, word: 'none' }, query: { list: [1, 2], flag: true }, count: 3 }) });
    await same(t, 'a wrong body', post('/validated', '{"n":0}'), { status: 400, error: true });
    await same(t, 'a missing property', post('/validated', '{}'), { status: 400, error: true });
    await same(t, 'a wrong query', post('/validated?flag=maybe', '{"n":1}'), { status: 400, error: true });
    await same(t, 'a wrong header', post('/validated', '{"n":1}', ['X-Count: many']), { status: 400, error: true });
    await same(t, 'no body where one is needed', message('POST', `${MOUNT}/validated`), { status: 400, error: true });
    await same(t, 'what is wrong can be left to the handler', post('/attached', '{}'), { status: 200 });
  });

  t.test('forms and uploads', async (t) => {
    const boundary = 'conform-boundary';
    const field = (name: string, value: string, type = ''): string => `--${boundary}\r\nContent-Disposition: form-data; name="${name}"\r\n${type === '' ? '' : `Content-Type: ${type}\r\n`}\r\n${value}\r\n`;
    const file = (name: string, filename: string, bytes: Uint8Array, type = 'application/octet-stream'): Buffer =>
      Buffer.concat([Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; name="${name}"; filename="${filename}"\r\nContent-Type: ${type}\r\n\r\n`), bytes, Buffer.from('\r\n')]);
    const form = (...parts: readonly (string | Buffer)[]): Buffer => Buffer.concat([...parts.map((part) => Buffer.from(part as string)), Buffer.from(`--${boundary}--\r\n`)]);
    const type = `Content-Type: multipart/form-data; boundary=${boundary}`;
    const upload = (path: string, body: Buffer): Buffer => message('POST', `${MOUNT}/upload${path}`, { headers: [type], body });
    const pieces = (bytes: Buffer, size: number): Buffer[] => Array.from({ length: Math.ceil(bytes.byteLength / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size));

    await same(t, 'a form', message('POST', `${MOUNT}/upload/form`, { headers: [FORM_TYPE], body: 'a=1&a=2&b=%C3%A4+x&c=&d' }), { status: 200 });
    await same(t, 'an empty form', message('POST', `${MOUNT}/upload/form`, { headers: [FORM_TYPE], body: '' }), { status: 200 });
    await same(t, 'a form in chunks', message('POST', `${MOUNT}/upload/form`, { headers: [FORM_TYPE], chunks: ['a=', '1&b', '=2'] }), { status: 200 });
    await same(t, 'fields and several files', upload('/parts', form(field('word', 'ä'), file('first', 'a.bin', randomBytes(10)), field('json', '{"n":1}', 'application/json'), file('second', 'b ä.txt', Buffer.from('text'), 'text/plain'), file('second', 'c.bin', Buffer.alloc(0)))), { status: 200 });
    const large = form(field('before', 'x'), file('large', 'large.bin', randomBytes(3 * MIB)), field('after', 'y'));
    await same(t, 'a file of 3 MB', upload('/parts', large), { status: 200, then: (answer, t) => t.match(seen(answer.body)[1], { bytes: 3 * MIB, truncated: false }) });
    await same(t, 'a file of 3 MB in chunks', message('POST', `${MOUNT}/upload/parts`, { headers: [type], chunks: pieces(large, 50_000) }), { status: 200 });
    await same(t, 'one file as a whole', upload('/file', form(file('it', 'it.bin', randomBytes(100_000)))), { status: 200 });
    await same(t, 'no file', upload('/file', form()), { status: 200 });
    await same(t, 'a file that is too large', upload('/small-file', form(file('it', 'it.bin', randomBytes(5_000)))), { status: 413, error: true });
    await same(t, 'a file that is much too large', upload('/small-file', form(file('it', 'it.bin', randomBytes(500_000)))), { status: 413, error: true });
    await same(t, 'no boundary', message('POST', `${MOUNT}/upload/parts`, { headers: ['Content-Type: multipart/form-data'], body: 'x' }), { status: 500, error: true });
    await same(t, 'half an upload', upload('/parts', large.subarray(0, 500)), { status: 500, error: true });
    await same(t, 'no upload where one is needed', message('POST', `${MOUNT}/upload/parts`, { headers: [FORM_TYPE], body: 'a=1' }), { status: 406, error: true });
  });

  t.test('connections', async (t) => {
    const get = (path: string, headers: readonly string[] = []): Buffer => message('GET', `${MOUNT}${path}`, { headers });
    /** The same dialogue with both; what each says at its end is compared. */
    const dialogue = (sentence: string, talk: (connection: RawConnection) => Promise<unknown>): Promise<unknown> => t.test(sentence, async (t) => {
      const [plain, ours] = await Promise.all(both.map(async ([, url]) => {
        const connection = await RawConnection.open(url);
        try {
          return await talk(connection);
        } finally {
          connection.destroy();
        }
      }));
      t.strictSame(ours, plain);
    });
    const answers = async (connection: RawConnection, methods: readonly string[]): Promise<object[]> => {
      const all: object[] = [];
      for (const method of methods) all.push(comparable(await connection.answer(method)));
      return all;
    };

    await dialogue('several requests on one connection', async (connection) => {
      const all: object[] = [];
      for (const path of ['/reply/object', '/reply/stream', '/reply/no-content', '/reply/large-buffer', '/reply/raw-write', '/reply/string']) {
        connection.write(get(path));
        all.push(comparable(await connection.answer()));
      }
      return all;
    });
    await dialogue('requests that do not wait for each other are answered in order', async (connection) => {
      connection.write(Buffer.concat([get('/reply/stream-slow'), message('POST', `${MOUNT}/early`, { headers: [JSON_TYPE], body: '{}' }), get('/reply/string'), message('HEAD', `${MOUNT}/reply/string`), message('POST', `${MOUNT}/seen`, { headers: [JSON_TYPE], chunks: ['{}'] }), get('/reply/object')]));
      return answers(connection, ['GET', 'POST', 'GET', 'HEAD', 'POST', 'GET']);
    });
    await dialogue('a request byte by byte', async (connection) => {
      for (const byte of message('POST', `${MOUNT}/seen`, { headers: [JSON_TYPE], body: '{"a":1}' })) {
        connection.write(Uint8Array.of(byte));
        await new Promise((resolve) => setImmediate(resolve));
      }
      return answers(connection, ['POST']);
    });
    await dialogue('Connection: close ends the connection after the answer', async (connection) => {
      connection.write(get('/reply/string', ['Connection: close']));
      const all = await answers(connection, ['GET']);
      await connection.ended();
      return { all, rest: connection.rest.byteLength };
    });
    for (const path of ['/reply/string', '/reply/stream', '/reply/raw-write', '/reply/hop', '/reply/raw-last']) {
      await dialogue(`HTTP/1.0 and ${path}: the connection ends after the answer`, async (connection) => {
        connection.write(message('GET', `${MOUNT}${path}`, { version: '1.0' }));
        const all = await answers(connection, ['GET']);
        await connection.ended();
        return all;
      });
    }
    await dialogue('a client that has ended its side has gone, as Node sees it', async (connection) => {
      connection.write(get('/reply/stream-slow'));
      connection.socket.end();
      await connection.ended();
      return connection.rest.toString();
    });
    await dialogue('a body that is never finished gets no answer but the end', async (connection) => {
      connection.write(`POST ${MOUNT}/seen HTTP/1.1\r\nHost: x\r\n${JSON_TYPE}\r\nContent-Length: 100\r\n\r\n{"a":`);
      connection.socket.end();
      const [answer] = await answers(connection, ['POST']);
      await connection.ended();
      return answer;
    });
    await dialogue('more than the declared length is the next request, and as such refused', async (connection) => {
      connection.write(message('POST', `${MOUNT}/early`, { headers: [JSON_TYPE, 'Content-Length: 2'] }));
      connection.write('{}surplus\r\n\r\n');
      const all = await answers(connection, ['POST']);
      await connection.ended();
      return all;
    });
    await dialogue('after a refused body the connection ends', async (connection) => {
      connection.write(`POST ${MOUNT}/seen HTTP/1.1\r\nHost: x\r\n${JSON_TYPE}\r\nContent-Length: ${5 * MIB}\r\n\r\n`);
      const { status, headers } = await connection.answer();
      await connection.ended();
      return { status, connection: headers.find(([name]) => name.toLowerCase() === 'connection')?.[1] };
    });
    await dialogue('early disconnects in the middle of a body hurt nobody', async (connection) => {
      connection.write(`POST ${MOUNT}/seen HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n`);
      connection.destroy();
      return 'gone';
    });
    await eventually('nothing of them is in flight', 5_000, async () => ((await kernel.status('conform')).requests.inFlight === 0 ? true : undefined));
  });

  t.test('ids of requests', async (t) => {
    const idOf = async (headers: readonly string[]): Promise<{ header: string | undefined; id: string }> => {
      const answer = await ask(kernel.url, message('GET', `${MOUNT}/log`, { headers }));
      return { header: answer.headers.find(([name]) => name.toLowerCase() === 'x-request-id')?.[1], id: seen(answer.body).id };
    };
    for (const wish of ['5e3a1b9c-41f7-4b0e-9d3a-000000000001', 'a', 'a.b:c+d/e=f@g_h-i', 'x'.repeat(128)]) {
      t.strictSame(await idOf([`X-Request-Id: ${wish}`]), { header: wish, id: wish }, `"${wish.slice(0, 40)}" is taken from the client`);
    }
    const made = new Set<string>();
    for (const wish of ['', 'with space', 'caf\xe9', '"quoted"', 'x'.repeat(129), 'line%0abreak', '<script>']) {
      const { header, id } = await idOf(wish === '' ? [] : [`X-Request-Id: ${wish}`]);
      t.equal(header, id, 'the answer has the id that the handler sees');
      t.not(id, wish, `${JSON.stringify(wish.slice(0, 40))} is replaced`);
      made.add(id);
    }
    t.equal(made.size, 7, 'each by another');
    const { id } = await idOf(['X-Request-Id: to-be-found']);
    const line = await eventually('the line is in the log', 2_000, async () => kernel.logLines.find(({ msg, requestId }) => requestId === id && msg === 'a line about this request'));
    t.equal(line['plugin'], 'conform', 'a line of the plugin\'s log has it');
    await ask(kernel.url, message('GET', `${MOUNT}/busy`, { headers: ['X-Request-Id: busy-1'] }));
    t.match(kernel.logLines.find(({ silentMs, requestId }) => silentMs !== undefined && requestId === 'busy-1'), { request: `GET ${MOUNT}/busy` }, 'a line of the kernel\'s own about a request has it too');
    const refused = await ask(kernel.url, Buffer.from(`POST ${MOUNT}/seen HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\nContent-Length: ${5 * MIB}\r\n\r\n`));
    t.match([refused.headers.find(([name]) => name.toLowerCase() === 'x-request-id')?.[1], seen(refused.body).requestId], ['mine', 'mine'], 'an answer of the kernel\'s own has it too');
  });

  t.test('a head that is never finished is cut after the same time', async (t) => {
    // The real ones: a kernel's server, made as the kernel makes it, and that of a plain Fastify with the limits that Bulkhead names.
    const { server } = await startServer(t, kernel);
    const plain = fastify({ keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS, requestTimeout: REQUEST_TIMEOUT_MS }).server;
    t.equal(server.headersTimeout, 60_000, 'after a minute, which is Node\'s default');
    for (const limit of ['headersTimeout', 'requestTimeout', 'keepAliveTimeout', 'timeout', 'maxHeadersCount', 'maxRequestsPerSocket'] as const) t.equal(server[limit], plain[limit], limit);
  });

  t.test('what differs by design', async (t) => {
    const destroyed = message('POST', `${MOUNT}/destroyed`, { body: 'x', headers: ['Content-Type: image/png'] });
    await t.rejects(ask(plainUrl, destroyed), 'a handler that destroys its request cuts the connection of a plain Fastify');
    t.equal((await ask(kernel.url, destroyed)).status, 502, 'and every request of a kernel has an answer');
    const [plain, ours] = await Promise.all(both.map(([, url]) => ask(url, message('GET', `${MOUNT.replace('conform', 'c%6fnform')}/seen`))));
    t.strictSame([plain!.status, ours!.status], [200, 404], 'the name of a plugin may not be encoded: there is one spelling of a mount');
    const [full, below] = await Promise.all(both.map(async ([, url]) => seen((await ask(url, message('GET', `${MOUNT}/log`))).body).url));
    t.strictSame([full, below], [`${MOUNT}/log`, '/log'], 'a plugin sees its paths below the mount; \'originalUrl\' is the same');
    const large = message('POST', `${MOUNT}/anything`, { headers: ['Content-Type: x/y'], body: Buffer.alloc(4 * MIB + 1) });
    const [unbounded, bounded] = await Promise.all(both.map(async ([, url]) => (await ask(url, large)).status));
    t.strictSame([unbounded, bounded], [200, 413], 'the limit for bodies holds for those that a handler streams as well');
  });

  t.test('whose word is taken for where a request comes from', async (t) => {
    const forwarded: readonly (readonly string[])[] = [
      [],
      ['X-Forwarded-For: 203.0.113.7'],
      ['X-Forwarded-For: 203.0.113.7, 198.51.100.2, 10.0.0.9', 'X-Forwarded-Host: public.test:8443', 'X-Forwarded-Proto: https'],
      ['X-Forwarded-For: 203.0.113.7', 'X-Forwarded-For: 10.0.0.9', 'X-Forwarded-Host: a.test, b.test', 'X-Forwarded-Proto: http, https'],
      ['X-Forwarded-For: nonsense', 'X-Forwarded-Host: [::1]:1', 'X-Forwarded-Proto: '],
    ];
    for (const [text, trustProxy] of [['true', true], ['loopback,10.0.0.0/8', ['loopback', '10.0.0.0/8']], ['192.0.2.1', ['192.0.2.1']]] as const) {
      await t.test(`TRUST_PROXY=${text}`, async (t) => {
        const { same } = await startPair(t, { trustProxy: trustProxy === true ? true : [...trustProxy], environment: { TRUST_PROXY: text, DATABASE_URL: kernel.databaseUrl } });
        for (const lines of forwarded) {
          await same(t, `${lines.length === 0 ? 'nothing' : lines.join(', ')} is read as in a plain Fastify`, message('GET', `${MOUNT}/seen`, { headers: lines }), { status: 200 });
        }
      });
    }
  });
});
