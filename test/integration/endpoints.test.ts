// The kernel's own endpoints: health with and without a database, the operator's routes with every kind of name, method and stranger.
import { mkdtemp, readFile, rm, symlink, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type * as EmbeddedModule from '../../kernel/database/embedded.js';
import { DEATHS_BEFORE_QUARANTINE, PLUGIN_NAME_MAX_CHARACTERS } from '../../protocol/limits.js';
import { eventually, rawRequest, ROOT, startTestKernel, type Answer, type TestKernel } from '../helpers/kernel.js';

const VERBS = ['load', 'start', 'stop', 'unload', 'restart'] as const;
const OK = '{"status":"ok","database":"ok"}';
const DOWN = '{"status":"error","database":"error"}';

/** A database that can be stopped and started under one URL. */
interface Switchable {
  readonly url: string;
  start(): Promise<void>;
  stop(): Promise<void>;
}

async function switchableDatabase(t: Test): Promise<Switchable> {
  const { startEmbeddedDatabase } = await import(join(ROOT, 'dist/kernel/database/embedded.js')) as typeof EmbeddedModule;
  const dataDir = await mkdtemp(join(tmpdir(), 'endpoints-test-'));
  // Each start has a socket folder of its own; the link gives them one name.
  const link = join(dataDir, 'socket');
  let running: EmbeddedModule.EmbeddedDatabase | null = null;
  const stop = async (): Promise<void> => {
    await running?.stop();
    running = null;
    await unlink(link).catch(() => {});
  };
  t.teardown(async () => {
    await stop();
    await rm(dataDir, { recursive: true, force: true });
  });
  return {
    url: `postgresql://bulkhead@localhost:5432/ship?host=${encodeURIComponent(link)}&sslmode=disable`,
    stop,
    async start() {
      running = await startEmbeddedDatabase({ dataDir, user: 'bulkhead', database: 'ship', log: { info() {}, warn() {} } });
      await symlink(new URL(running.url).searchParams.get('host')!, link);
    },
  };
}

function refuses(t: Test, answer: Answer, status: number, code: string, message: RegExp, what: string): void {
  t.equal(answer.status, status, `${what}: ${status}`);
  t.strictSame(Object.keys(answer.json ?? {}).sort(), ['code', 'error', 'message', 'requestId', 'statusCode'], `${what}: the shape of an error`);
  t.match(answer.json, { statusCode: status, code, error: /^[A-Z]/, message, requestId: /\S/ }, `${what}: says why`);
  t.notMatch(answer.text, /node_modules|\bat [^ ]+ \(/, `${what}: without a stack`);
}

/** State and generation, which no refused request may change. */
async function stateOf(kernel: TestKernel, name: string): Promise<object> {
  const { status, generation, transitions } = await kernel.status(name);
  return { status, generation, transitions };
}

t.test('endpoints', async (t) => {
  const database = await switchableDatabase(t);
  await database.start();
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'hello,analytics,items', DATABASE_URL: database.url, APP_NAME: 'Test Ship' });
  await kernel.writePlugin('spare', `export default { name: 'spare', version: '3.2.1', description: 'Waits', routes(app) { app.get('/', async () => 'spare'); } };`);
  await kernel.writePlugin('broken', 'export default { name: "broken", version: "1.0.0", init() { throw new Error("no keel"); } };');

  t.test('the root says where to go', async (t) => {
    const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as { version: string };
    const { status, json } = await kernel.get('/');
    t.equal(status, 200);
    t.strictSame(json, { name: 'Test Ship', version, docs: '/docs', health: '/health', plugins: '/plugins' });
    for (const path of [json.docs, json.health, json.plugins] as string[]) t.equal((await kernel.get(path)).status, 200, `${path} is there`);
  });

  t.test('health tells of the database, liveness of the kernel alone', async (t) => {
    for (const [path, text] of [['/health', OK], ['/health/ready', OK], ['/health/live', '{"status":"ok"}']] as const) {
      const answer = await kernel.get(path);
      t.equal(answer.status, 200, path);
      t.equal(answer.text, text, path);
      t.match(answer.headers.get('content-type'), /^application\/json/, path);
      t.equal((await kernel.request('HEAD', path)).status, 200, `HEAD ${path}`);
    }
  });

  t.test('without its database the ship sails on, and all is well when it is back', async (t) => {
    t.equal((await kernel.request('POST', '/items', { name: 'before' })).status, 201);
    const generations = await Promise.all(['hello', 'analytics', 'items'].map(async (name) => (await kernel.status(name)).generation));
    for (const round of ['first outage', 'second outage']) {
      await database.stop();
      const health = await kernel.get('/health');
      t.equal(health.status, 503, round);
      t.equal(health.text, DOWN);
      const ready = await kernel.get('/health/ready');
      t.equal(ready.status, 503);
      t.equal(ready.text, '{"status":"ok","database":"error"}');
      t.equal((await kernel.get('/health/live')).text, '{"status":"ok"}');
      t.match(await kernel.get('/plugins/hello/'), { status: 200, json: { message: 'Hello from plugin' } });
      t.match(await kernel.get('/plugins'), { status: 200 });
      for (const [method, path, body] of [['GET', '/items'], ['GET', '/items/1'], ['POST', '/items', { name: 'lost' }], ['PUT', '/items/1', { name: 'lost' }], ['DELETE', '/items/1'], ['GET', '/plugins/analytics/count']] as [string, string, object?][]) {
        const answer = await kernel.request(method, path, body);
        refuses(t, answer, 503, 'DATABASE_UNAVAILABLE', /database cannot be reached/, `${round}: ${method} ${path}`);
        t.notMatch(answer.text, /postgresql:|bulkhead@/, 'without the URL');
      }
      t.equal((await kernel.get('/items/0')).status, 400, 'what needs no database is answered');

      await database.start();
      await eventually('health is good again', 5_000, async () => ((await kernel.get('/health')).status === 200 ? true : undefined));
      t.equal((await kernel.get('/health')).text, OK);
      t.equal((await kernel.get('/health/ready')).text, OK);
      const items = await eventually('items answers again', 5_000, async () => {
        const answer = await kernel.get('/items');
        return answer.status === 200 ? answer : undefined;
      });
      t.strictSame(items.json, [{ id: 1, name: 'before', description: null }], 'nothing was lost and nothing slipped in');
    }
    t.strictSame(await Promise.all(['hello', 'analytics', 'items'].map(async (name) => (await kernel.status(name)).generation)), generations, 'no plugin was restarted for it');
  });

  t.test('a kernel that starts without its database answers, and its plugins come when the database does', async (t) => {
    const late = await switchableDatabase(t);
    const waiting = await startTestKernel(t, { PLUGINS_ENABLED: 'hello,items', DATABASE_URL: late.url });
    t.equal((await waiting.get('/health')).text, DOWN);
    t.equal((await waiting.get('/plugins/hello/')).status, 200);
    // More tries than a plugin that fails by its own fault would get before quarantine.
    const tried = await eventually('items has been tried often', 10_000, async () => {
      const details = await waiting.status('items');
      return details.restarts >= DEATHS_BEFORE_QUARANTINE && details.status === 'restarting' ? details : undefined;
    });
    t.match(tried, { error: /database cannot be reached/, restartAt: Number });
    for (const path of ['/items', '/plugins/items']) {
      const refused = await waiting.get(path);
      t.match([refused.status, refused.json.code, refused.headers.get('retry-after')], [503, 'PLUGIN_NOT_RUNNING', /^[1-9]/], path);
    }
    await late.start();
    t.match(await waiting.until('items', 'running', 15_000), { error: null });
    t.strictSame((await waiting.get('/items')).json, []);
    t.equal((await waiting.get('/health')).text, OK);
    await waiting.stop();
  });

  t.test('the list has every plugin of the catalog, also those that are not loaded or do not work', async (t) => {
    t.equal((await kernel.verb('load', 'broken')).status, 422);
    const { status, json } = await kernel.get('/plugins');
    t.equal(status, 200);
    const rows = json as Record<string, unknown>[];
    for (const row of rows) {
      t.strictSame(Object.keys(row).sort(), ['description', 'error', 'generation', 'mounts', 'name', 'restarts', 'status', 'version'], `fields of ${String(row['name'])}`);
    }
    const names = rows.map(({ name }) => name as string);
    t.strictSame(names, [...new Set(names)].sort(), 'each once, by name');
    const row = (name: string): unknown => rows.find((candidate) => candidate['name'] === name);
    t.strictSame(row('hello'), { name: 'hello', version: '1.0.0', description: 'Says hello', status: 'running', error: null, generation: 1, restarts: 0, mounts: ['/plugins/hello'] });
    t.match(row('items'), { status: 'running', error: null, mounts: ['/plugins/items', '/items'] });
    t.match(row('analytics'), { status: 'running', error: null });
    t.strictSame(row('spare'), { name: 'spare', version: null, description: null, status: 'registered', error: null, generation: 0, restarts: 0, mounts: [] });
    t.match(row('broken'), { status: 'failed', error: /no keel/, version: '1.0.0' });
    await kernel.writePlugin('arrival', 'export default { name: "arrival", version: "1.0.0" };');
    t.ok(((await kernel.get('/plugins')).json as { name: string }[]).some(({ name }) => name === 'arrival'), 'a folder that arrives is seen at once');
  });

  t.test('the status of one plugin has all that an operator asks for', async (t) => {
    const before = await kernel.status('hello');
    for (let n = 0; n < 3; n += 1) await kernel.get('/plugins/hello/');
    const { json } = await kernel.get('/plugins/status/hello');
    t.match(json, {
      name: 'hello', version: '1.0.0', description: 'Says hello', status: 'running', error: null, generation: 1, restarts: 0, mounts: ['/plugins/hello'],
      threads: 1, workers: [{ generation: 1, threadId: Number, memory: { heapUsed: Number, external: Number, arrayBuffers: Number }, heapLimitMb: 64, loopLagMs: Number, unresponsive: false, load: Number, connections: 0 }],
      requests: { admitted: before.requests.admitted + 3, answered: before.requests.answered + 3, shed: 0, timedOut: 0, lost: 0, dropped: 0, inFlight: 0, queued: 0 },
      limits: { heapMb: 64, concurrency: Number, timeoutMs: Number }, restartAt: null,
    });
    t.strictSame([json.mounts, json.routes, json.services, json.deaths], [['/plugins/hello'], [{ method: 'GET', url: '/' }], [], []]);
    t.ok(json.workers[0].threadId > 0 && json.workers[0].memory.heapUsed > 1_000_000, 'the memory is that of a real worker');
    t.strictSame(json.transitions.map(({ from, to }: { from: string; to: string }) => `${from} ${to}`),
      ['registered initialized', 'initialized mounted', 'mounted started', 'started running'], 'how it came to this state');
    t.match(json.transitions[0], { plugin: 'hello', generation: 1, cause: String, at: Number, ms: Number });

    t.match(await kernel.status('spare'), { name: 'spare', version: null, status: 'registered', generation: 0, workers: [], requests: { admitted: 0 } });
    const { routes, transitions, deaths, mounts } = await kernel.status('spare');
    t.strictSame([routes, transitions, deaths, mounts], [[], [], [], []], 'nothing is known of what was never loaded');
    t.match(await kernel.status('broken'), { status: 'failed', error: /no keel/, workers: [], version: '1.0.0' });
    t.strictSame((await kernel.status('broken')).mounts, ['/plugins/broken'], 'what failed to load answers there with why');
    const items = await kernel.status('items');
    t.strictSame(items.routes.map(({ method, url }) => `${method} ${url}`).sort(), ['DELETE /:id', 'GET /', 'GET /:id', 'POST /', 'PUT /:id']);
    t.strictSame(items.services, ['items.service', 'items.count']);
  });

  t.test('a plugin answers with and without the slash after its name', async (t) => {
    for (const path of ['/plugins/hello', '/plugins/hello/', '/plugins/hello?x=1', '/plugins/hello/?x=1']) {
      const answer = await rawRequest(kernel.url, 'GET', path);
      t.equal(answer.status, 200, path);
      t.equal(answer.text, '{"message":"Hello from plugin"}', path);
    }
  });

  t.test('a name that is none is refused everywhere with a sentence', async (t) => {
    const listed = (await kernel.get('/plugins')).text;
    const names: [raw: string, shown: string][] = [
      ['%2e%2e', '..'], ['%2e%2e%2fx', '../x'], ['..%2f..%2fetc', '../../etc'], ['%2E', '.'], ['__proto__', '__proto__'], ['constructor', 'constructor'], ['prototype', 'prototype'],
      ['toString', 'toString'], ['load', 'load'], ['unload', 'unload'], ['status', 'status'], ['kernel', 'kernel'], ['UPPER', 'UPPER'], ['Hello', 'Hello'], ['a'.repeat(PLUGIN_NAME_MAX_CHARACTERS + 1), 'a'.repeat(PLUGIN_NAME_MAX_CHARACTERS + 1)],
      ['a'.repeat(900), 'a'.repeat(900)], ['-a', '-a'], ['_a', '_a'], ['1a', '1a'], ['a.b', 'a.b'], ['hello%00', 'hello\u0000'], ['hello%20', 'hello '], ['hello%0a', 'hello\n'], ['h%C3%A9llo', 'héllo'],
      ['%F0%9F%9A%A2', '🚢'], ['a%5cb', 'a\\b'], ['%3Cscript%3E', '<script>'],
    ];
    for (const [raw, shown] of names) {
      const everywhere: [string, string][] = [...VERBS.map((verb): [string, string] => ['POST', `/plugins/${verb}/${raw}`]), ['GET', `/plugins/status/${raw}`], ['GET', `/plugins/${raw}`]];
      for (const [method, path] of everywhere) {
        const answer = await rawRequest(kernel.url, method, path);
        refuses(t, answer, 400, 'PLUGIN_NAME_INVALID', /cannot be the name of a plugin/, `${method} ${path.slice(0, 80)}`);
        t.ok((answer.json?.message as string | undefined)?.startsWith(`"${shown}" cannot`), `${path.slice(0, 80)}: the message shows the name`);
      }
    }
    const paths: [method: string, path: string, status: number, code: string][] = [
      ['GET', '/plugins/../x', 400, 'PLUGIN_NAME_INVALID'], ['GET', '/plugins/./hello', 400, 'PLUGIN_NAME_INVALID'], ['GET', '/plugins/%2e%2e/x', 400, 'PLUGIN_NAME_INVALID'],
      ['POST', '/plugins/load/../x', 400, 'PLUGIN_NAME_INVALID'], ['POST', '/plugins/load/hello/', 400, 'PLUGIN_NAME_INVALID'], ['GET', '/plugins/status/../x', 400, 'PLUGIN_NAME_INVALID'],
      ...VERBS.map((verb): [string, string, number, string] => ['POST', `/plugins/${verb}/`, 400, 'PLUGIN_NAME_INVALID']), ['GET', '/plugins/status/', 400, 'PLUGIN_NAME_INVALID'],
      ...VERBS.map((verb): [string, string, number, string] => ['POST', `/plugins/${verb}`, 400, 'PLUGIN_NAME_INVALID']), ['GET', '/plugins/status', 400, 'PLUGIN_NAME_INVALID'],
      ['GET', '/plugins/', 404, 'ROUTE_UNKNOWN'], ['GET', '/plugins//', 404, 'ROUTE_UNKNOWN'], ['GET', '//plugins', 404, 'ROUTE_UNKNOWN'],
      ['GET', '/plugins/%', 400, 'FST_ERR_BAD_URL'], ['POST', '/plugins/load/%', 400, 'FST_ERR_BAD_URL'], ['GET', '/plugins/status/%zz', 400, 'FST_ERR_BAD_URL'],
      ['POST', `/plugins/load/${'a'.repeat(2_000)}`, 400, 'PLUGIN_NAME_INVALID'], ['GET', `/plugins/${'a'.repeat(2_000)}`, 400, 'PLUGIN_NAME_INVALID'],
    ];
    for (const [method, path, status, code] of paths) refuses(t, await rawRequest(kernel.url, method, path), status, code, /\S/, `${method} ${path.slice(0, 80)}`);
    t.equal((await kernel.get('/plugins')).text, listed, 'nothing came of any of it');
  });

  t.test('a plugin that is not there is refused with the names there are', async (t) => {
    const known = ((await kernel.get('/plugins')).json as { name: string }[]).map(({ name }) => name);
    t.ok(known.includes('spare') && known.includes('items'));
    for (const name of ['nope', 'hell', 'helloo', 'a'.repeat(PLUGIN_NAME_MAX_CHARACTERS), 'x-y_z9']) {
      const everywhere: [string, string][] = [...VERBS.map((verb): [string, string] => ['POST', `/plugins/${verb}/${name}`]), ['GET', `/plugins/status/${name}`], ['GET', `/plugins/${name}`], ['GET', `/plugins/${name}/`], ['DELETE', `/plugins/${name}/x?y`]];
      for (const [method, path] of everywhere) {
        const answer = await rawRequest(kernel.url, method, path);
        refuses(t, answer, 404, 'PLUGIN_UNKNOWN', new RegExp(`"${name}"`), `${method} ${path}`);
        t.ok((answer.json?.message as string | undefined)?.includes(`Known plugins: ${known.join(', ')}.`), `${path}: lists what is known`);
      }
    }
    for (const path of ['/plugins/spare', '/plugins/spare/', '/plugins/spare/x']) refuses(t, await kernel.get(path), 404, 'PLUGIN_NOT_LOADED', /POST \/plugins\/load\/spare/, path);
  });

  t.test('a wrong method is told the right one, and does nothing', async (t) => {
    const before = await stateOf(kernel, 'hello');
    for (const [route, allowed, wrong] of [
      ...VERBS.map((verb) => [verb, 'POST', ['GET', 'HEAD', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']] as const), ['status', 'GET', ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']] as const,
    ]) {
      for (const method of wrong) {
        const path = `/plugins/${route}/hello`;
        const answer = await rawRequest(kernel.url, method, path);
        t.equal(answer.headers.get('allow'), allowed, `${method} ${path}`);
        if (method === 'HEAD') t.strictSame([answer.status, answer.text], [405, '']);
        else refuses(t, answer, 405, 'METHOD_NOT_ALLOWED', new RegExp(`does not take ${method}; use ${allowed}`), `${method} ${path}`);
      }
    }
    t.strictSame(await stateOf(kernel, 'hello'), before);
    const head = await kernel.request('HEAD', '/plugins/status/hello');
    t.strictSame([head.status, head.text], [200, '']);
    for (const [method, path] of [['POST', '/plugins'], ['DELETE', '/plugins'], ['POST', '/health'], ['PUT', '/'], ['POST', '/docs/json']] as const) refuses(t, await rawRequest(kernel.url, method, path), 404, 'ROUTE_UNKNOWN', new RegExp(`${method} ${path}`), `${method} ${path}`);
  });

  t.test('no body and no content type stands in the way of a verb', async (t) => {
    const bodies: [type: string | null, body: string][] = [
      [null, ''], ['application/json', ''], ['application/json; charset=utf-8', ''], ['application/json', '{}'], ['application/json', '{"broken'], ['text/plain', 'now'],
      ['application/x-www-form-urlencoded', 'a=b'], ['application/octet-stream', 'x'.repeat(2_000_000)],
    ];
    for (const [type, body] of bodies) {
      const what = `${type} with ${body.length} bytes`;
      const answer = await rawRequest(kernel.url, 'POST', '/plugins/start/hello', { body, headers: type === null ? {} : { 'content-type': type } });
      t.match(answer, { status: 200, json: { name: 'hello', status: 'running', generation: 1 } }, what);
    }
    refuses(t, await rawRequest(kernel.url, 'POST', '/plugins/stop/hello', { body: 'x', headers: { 'content-type': 'nonsense' } }), 415, 'FST_ERR_CTP_INVALID_MEDIA_TYPE', /media type/i, 'what is no media type at all');
    t.match(await kernel.verb('load', 'spare'), { status: 200, json: { name: 'spare', version: '3.2.1', description: 'Waits', status: 'mounted', routes: [{ method: 'GET', url: '/' }] } });
    t.match(await rawRequest(kernel.url, 'POST', '/plugins/unload/spare', { headers: { 'content-type': 'application/json' } }), { status: 200, json: { status: 'registered', workers: [] } });
  });

  t.test('a page of another site cannot press the buttons', async (t) => {
    const before = await stateOf(kernel, 'hello');
    const own = kernel.url;
    const { host, port } = new URL(own);
    const foreign: Record<string, string>[] = [
      { origin: 'https://evil.example' }, { origin: 'null' }, { origin: `http://evil.example:${port}` }, { origin: `http://${host}.evil.example` }, { origin: `http://x${host}` }, { origin: 'http://127.0.0.1:1' },
      { 'sec-fetch-site': 'cross-site' }, { 'sec-fetch-site': 'same-site' }, { 'sec-fetch-site': 'cross-site', origin: own },
    ];
    for (const headers of foreign) {
      for (const verb of VERBS) refuses(t, await rawRequest(own, 'POST', `/plugins/${verb}/hello`, { headers }), 403, 'OPERATOR_FORBIDDEN', /another site/, `${verb} with ${JSON.stringify(headers)}`);
    }
    t.strictSame(await stateOf(kernel, 'hello'), before, 'nothing happened');
    const friendly: Record<string, string>[] = [{}, { origin: own }, { 'sec-fetch-site': 'same-origin' }, { 'sec-fetch-site': 'same-origin', origin: own }, { 'sec-fetch-site': 'none' }];
    for (const headers of friendly) t.equal((await rawRequest(own, 'POST', '/plugins/start/hello', { headers })).status, 200, `with ${JSON.stringify(headers)}`);
  });

  t.test('what nobody answers is 404 with the whole body', async (t) => {
    for (const [method, path, body] of [['GET', '/nope'], ['POST', '/nope', 'x'], ['DELETE', '/a/b/c'], ['GET', '/health/'], ['GET', '/healthy'], ['GET', '/docs/nope.js'], ['PATCH', '/nope?a=/plugins/hello'], ['OPTIONS', '/nope'], ['GET', '/favicon.ico']] as [string, string, string?][]) {
      const answer = await rawRequest(kernel.url, method, path, body === undefined ? {} : { body });
      t.match(answer.headers.get('content-type'), /^application\/json/);
      t.strictSame(answer.json, { statusCode: 404, code: 'ROUTE_UNKNOWN', error: 'Not Found', message: `There is nothing at ${method} ${path.split('?')[0]}. See /docs for what there is.`, requestId: answer.json?.requestId }, `${method} ${path}`);
      t.match(answer.json.requestId, /^\S+$/);
    }
    const ids = await Promise.all(Array.from({ length: 20 }, async () => (await kernel.get('/nope')).json.requestId as string));
    t.equal(new Set(ids).size, 20, 'each request has its own id');
  });

  t.test('a deep path below a plugin is the plugin\'s, however long', async (t) => {
    for (const path of [`/plugins/hello/${'x'.repeat(2_000)}`, '/plugins/hello/../items', '/plugins/hello/%2e%2e/items', '/plugins/hello//']) {
      const answer = await rawRequest(kernel.url, 'GET', path);
      refuses(t, answer, 404, 'ROUTE_UNKNOWN', /There is nothing at GET \/plugins\/hello\//, path.slice(0, 60));
    }
  });
});

t.test('with an operator token only its bearer moves plugins', async (t) => {
  const token = 'correct-horse-battery';
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'hello', OPERATOR_TOKEN: token });
  const before = await stateOf(kernel, 'hello');
  const wrong: (string | null)[] = [
    null, '', 'Bearer', 'Bearer ', `Bearer ${token}x`, `Bearer ${token.slice(0, -1)}`, `Bearer ${token.toUpperCase()}`, `Basic ${Buffer.from(`operator:${token}`).toString('base64')}`,
    token, `Token ${token}`, `Bearer ${token} ${token}`, 'Bearer undefined', 'Bearer null',
  ];
  for (const authorization of wrong) {
    for (const verb of VERBS) {
      const answer = await rawRequest(kernel.url, 'POST', `/plugins/${verb}/hello`, { headers: authorization === null ? {} : { authorization } });
      refuses(t, answer, 401, 'OPERATOR_UNAUTHORIZED', /Authorization: Bearer/, `${verb} with ${authorization}`);
      t.match(answer.headers.get('www-authenticate'), /^Bearer/, 'says which scheme');
      t.notMatch(answer.text, token);
    }
  }
  refuses(t, await kernel.verb('load', 'nope'), 401, 'OPERATOR_UNAUTHORIZED', /token/, 'a stranger does not learn which plugins there are');
  t.strictSame(await stateOf(kernel, 'hello'), before, 'nothing happened');
  for (const path of ['/plugins', '/plugins/status/hello', '/plugins/hello/', '/health', '/docs/json']) t.equal((await kernel.get(path)).status, 200, `${path} is open`);

  const document = (await kernel.get('/openapi.json')).json;
  t.match(document.components.securitySchemes, { operator: { type: 'http', scheme: 'bearer' } }, 'the documentation knows the token');
  for (const verb of VERBS) t.strictSame(document.paths[`/plugins/${verb}/{name}`].post.security, [{ operator: [] }], verb);
  t.equal(document.paths['/plugins/status/{name}'].get.security, undefined);

  const withToken = (verb: string, headers: Record<string, string> = {}): Promise<Answer> =>
    rawRequest(kernel.url, 'POST', `/plugins/${verb}/hello`, { headers: { authorization: `Bearer ${token}`, ...headers } });
  refuses(t, await withToken('stop', { 'sec-fetch-site': 'cross-site' }), 403, 'OPERATOR_FORBIDDEN', /another site/, 'the token does not open the door to other sites');
  for (const [verb, status] of [['stop', 'stopped'], ['start', 'running'], ['restart', 'running'], ['unload', 'registered'], ['load', 'mounted']] as const) {
    t.match(await withToken(verb), { status: 200, json: { status } }, `${verb} with the token`);
  }
  t.match(await withToken('start', { authorization: `bearer ${token}` }), { status: 200, json: { status: 'running' } }, 'the scheme has no case');
  t.notMatch(JSON.stringify(kernel.logLines), token, 'the log does not have it');
});
