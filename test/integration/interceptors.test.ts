// Interceptors: a plugin has a say in the requests and answers of other plugins, and whatever becomes of it, nobody slips past and nobody waits.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { WebSocket } from 'ws';
import { eventually, rawRequest, ROOT, startTestKernel, type Answer, type TestKernel } from '../helpers/kernel.js';
import { message, RawConnection } from '../helpers/raw-http.js';
import { startPostgres } from '../helpers/postgres.js';
import { startShip } from '../helpers/ship.js';
import { SteadyLoad } from '../helpers/steady-load.js';

const MIB = 1024 * 1024;
const DATABASE_URL = (await startPostgres(t)).url;

async function startPlugin(kernel: TestKernel, name: string, source: string): Promise<void> {
  await kernel.writePlugin(name, source, 'plugin.js');
  for (const verb of ['load', 'start'] as const) {
    const { status, text } = await kernel.verb(verb, name);
    if (status !== 200) throw new Error(text);
  }
}

const VAULT = `export default {
  name: 'vault', version: '1.0.0', mounts: ['/vault', '/deep/vault'],
  routes(app) {
    app.all('/admin', async () => ({ opened: 'admin' }));
    app.all('/*', async ({ url }) => ({ opened: url }));
  },
};`;

const guard = (name: string, fields: string): string => `export default { name: '${name}', version: '1.0.0', interceptors: [{ ${fields} }] };`;

t.test('several interceptors change headers both ways, in their order', async (t) => {
  const kernel = await startTestKernel(t, { DATABASE_URL, PLUGINS_ENABLED: 'echo' });
  const link = (name: string, order: number): string => guard(name, `
    paths: ['/deep/echo/**'], order: ${order}, failMode: 'closed',
    onRequest: ({ headers, method, url, requestId, remoteAddress, plugin }) => ({ headers: {
      'X-Way': [headers['x-way'], '${name}'].filter(Boolean).join(' '), 'x-about-${name}': [method, url, requestId, remoteAddress, plugin].join(' '), 'x-secret': null, 'X-Double': ['1', '2'] } }),
    onResponse: (request, { statusCode, headers }) => ({ headers: { 'x-back': [headers['x-back'], '${name}', statusCode].filter(Boolean).join(' '), 'X-Powered': null } }),`);
  await startPlugin(kernel, 'zulu', link('zulu', -5));
  await startPlugin(kernel, 'bravo', link('bravo', 7));
  await startPlugin(kernel, 'alpha', link('alpha', 7));

  const answer = await kernel.request('POST', '/deep/echo/seen/x?y=1', { a: 1 }, { 'x-way': 'client', 'X-SECRET': 's', 'x-request-id': 'my-request-1' });
  t.equal(answer.status, 200);
  const { headers, body } = answer.json as { headers: Record<string, string>; body: unknown };
  t.equal(headers['x-way'], 'client zulu alpha bravo', 'in order, then by name, each seeing what those before did');
  t.equal(headers['x-about-alpha'], 'POST /deep/echo/seen/x?y=1 my-request-1 127.0.0.1 echo');
  t.equal(headers['x-secret'], undefined, 'taken away, however it was written');
  t.equal(headers['x-double'], '1, 2');
  t.strictSame(body, { a: 1 }, 'the body followed, unread until then');
  t.equal(answer.headers.get('x-back'), 'zulu 200 alpha 200 bravo 200');
  t.equal(answer.headers.get('x-request-id'), 'my-request-1');

  const large = await rawRequest(kernel.url, 'POST', '/deep/echo/hash', { body: Buffer.alloc(3 * MIB, 'x'), headers: { 'content-type': 'application/octet-stream' } });
  t.match(large, { status: 200, json: { bytes: 3 * MIB } }, 'a large body as well');
  t.match((await kernel.get('/plugins/echo/seen/x')).json.headers['x-way'], 'zulu alpha bravo', 'under its other mount it is the same plugin');
  t.equal((await kernel.get('/health')).headers.get('x-back'), null, 'not of the kernel');
  t.match((await kernel.status('bravo')).interceptors, [{ order: 7, failMode: 'closed', asked: 6, answered: 6, failed: 0, onRequest: true, onResponse: 'ask' }]);
});

t.test('an interceptor answers itself, and every failure has one outcome', async (t) => {
  const kernel = await startTestKernel(t, { DATABASE_URL, PLUGINS_ENABLED: 'echo,switchboard,warden' });
  const ask = (headers: Record<string, string>, method = 'GET', path = '/deep/echo/seen/x'): Promise<Answer> => rawRequest(kernel.url, method, path, { headers, ...(method === 'POST' && { body: 'a body that nobody reads' }) });
  const isRefused = (t: Test, answer: Answer, what: string): void => {
    t.match(answer, { status: 503, json: { statusCode: 503, code: 'INTERCEPTOR_FAILED', message: /warden/ } }, what);
    t.equal(answer.json.requestId, answer.headers.get('x-request-id'), what);
  };
  const admitted = async (): Promise<number> => (await kernel.status('echo')).requests.admitted;

  await t.test('an answer of its own', async (t) => {
    const before = await admitted();
    for (const method of ['GET', 'POST', 'HEAD']) {
      const answer = await ask({ 'x-closed': 'answer', 'x-request-id': 'own-answer' }, method);
      t.equal(answer.status, 418);
      t.equal(answer.text, method === 'HEAD' ? '' : '{"teapot":true}');
      t.equal(answer.headers.get('x-teapot'), 'yes');
      t.equal(answer.headers.get('content-length'), '15');
      t.match(answer.headers.get('content-type'), 'application/json');
      t.equal(answer.headers.get('x-request-id'), 'own-answer');
    }
    t.match(await ask({ 'x-open': 'empty' }), { status: 204, text: '' });
    t.equal(await admitted(), before, 'the plugin heard of none of them');
    const connection = await RawConnection.open(kernel.url);
    connection.write(Buffer.concat([message('POST', '/deep/echo/hash', { headers: ['x-closed: answer'], body: 'x'.repeat(500_000) }), message('GET', '/plugins/warden/')]));
    t.equal((await connection.answer()).status, 418);
    t.match((await connection.answer()).body.toString(), /own/, 'and its connection serves the next request');
    connection.destroy();
  });

  await t.test('a mistake follows failMode', async (t) => {
    for (const deed of ['throw', 'reject', 'never', 'slow', 'nonsense', 'framing', 'crlf', 'status', 'large', 'uncloneable']) {
      const begin = performance.now();
      const [closed, open] = await Promise.all([ask({ 'x-closed': deed }, 'POST'), ask({ 'x-open': deed })]);
      isRefused(t, closed, `closed: ${deed}`);
      t.match(open, { status: 200, json: { url: '/seen/x' } }, `open: ${deed}`);
      t.ok(performance.now() - begin < 2_000, 'in time');
      if (['status', 'large', 'uncloneable', 'slow'].includes(deed)) continue; // of answers
      isRefused(t, await ask({ 'x-closed-response': deed }), `closed, of the answer: ${deed}`);
      t.match(await ask({ 'x-open-response': deed }), { status: 200, json: { url: '/seen/x' } }, `open, of the answer: ${deed}`);
    }
    isRefused(t, await ask({ 'x-closed-response': 'answer' }), 'an answer to an answer');
    t.match((await kernel.status('warden')).deaths, [], 'and none of it ended it');
    t.ok(kernel.logLines.some(({ plugin, err }) => plugin === 'warden' && err?.message === 'an interceptor that throws'), 'the log says why');
  });

  await t.test('a death follows failMode at once', async (t) => {
    let deaths = 0;
    const deeds: Record<string, string[]> = { exit: ['closed', 'open-response'], die: ['closed-response', 'open'], hang: ['closed', 'open'], garbage: ['closed', 'open-response'], 'garbage-shared': ['closed'] };
    for (const [deed, modes] of Object.entries(deeds)) {
      for (const mode of modes) {
        const begin = performance.now();
        const answer = await ask({ [`x-${mode}`]: deed }, 'GET', mode.startsWith('open') ? '/deep/echo/seen/open' : undefined);
        if (mode.startsWith('closed')) isRefused(t, answer, `${mode}: ${deed}`);
        else t.equal(answer.status, 200, `${mode}: ${deed}`);
        t.ok(performance.now() - begin < 2_000, 'at once');
        deaths += 1;
        await eventually('it has died and is back', 10_000, async () => {
          const { status, restarts } = await kernel.status('warden');
          return status === 'running' && restarts >= deaths ? true : undefined;
        });
        await kernel.verb('start', 'warden'); // forgets
        t.equal((await ask({})).status, 200, 'all is well again');
      }
    }
    t.match((await kernel.status('echo')).deaths, [], 'nobody else died');
  });

  await t.test('a tunnel is inspected like any request', async (t) => {
    const open = (headers: Record<string, string>): Promise<number | 'open'> => new Promise((resolve) => {
      const socket = new WebSocket(`${kernel.url.replace('http', 'ws')}/plugins/switchboard/echo`, { headers });
      socket.once('unexpected-response', (_request, response) => { resolve(response.statusCode!); response.destroy(); }).once('error', () => {});
      socket.once('open', () => { resolve('open'); socket.terminate(); });
    });
    t.equal(await open({}), 'open');
    t.equal(await open({ 'x-closed': 'answer' }), 418);
    t.equal(await open({ 'x-closed': 'throw' }), 503);
    t.equal(await open({ 'x-closed': 'never' }), 503);
    t.equal(await open({ 'x-open': 'throw' }), 'open');
  });

  await t.test('a client that leaves meanwhile ends the question', async (t) => {
    const before = await admitted();
    for (const wish of ['x-closed: delay', 'x-closed-response: delay']) {
      const connection = await RawConnection.open(kernel.url);
      connection.write(message('GET', '/deep/echo/seen/x', { headers: [wish] }));
      await delay(40);
      connection.destroy();
    }
    await delay(200);
    t.equal(await admitted(), before + 1, 'the first never came to the plugin');
    t.equal((await kernel.status('echo')).requests.inFlight, 0);
    t.equal((await ask({})).status, 200);
  });

  await t.test('a streamed answer waits for its head, bounded, and is whole', async (t) => {
    const begin = performance.now();
    const bytes = 8 * MIB;
    const download = fetch(`${kernel.url}/deep/echo/download?bytes=${bytes}`, { headers: { 'x-closed-response': 'delay', 'x-open-response': 'delay' } });
    await delay(150);
    t.ok((await kernel.get('/plugins/echo/produced')).json.produced < 4 * MIB, 'it does not run ahead');
    const answer = await download;
    t.equal((await answer.arrayBuffer()).byteLength, bytes);
    t.ok(performance.now() - begin >= 190, 'both were waited for');
    for (let i = 0; i < 20; i += 1) {
      const { status } = await fetch(`${kernel.url}/deep/echo/download?bytes=${MIB}`, { headers: { 'x-closed-response': i % 2 ? 'throw' : 'reject' } });
      t.equal(status, 503, 'the original is given up');
    }
    t.equal((await kernel.status('echo')).requests.inFlight, 0);
    const events = await fetch(`${kernel.url}/deep/echo/events`, { headers: { 'x-closed-response': 'delay' } });
    t.match(await events.text(), /data: 0\n\ndata: 1\n\ndata: 2/, 'events follow in order');
  });

  t.match((await kernel.get('/plugins/warden/')).json, { own: true }, 'its own requests are not its business');
});

t.test('a closed guard that is down refuses, until it is unloaded; an open one is passed by', async (t) => {
  const kernel = await startTestKernel(t, { DATABASE_URL });
  await startPlugin(kernel, 'vault', VAULT);
  await startPlugin(kernel, 'strict', guard('strict', `failMode: 'closed', paths: ['/vault/**'], onRequest() {}`));
  await startPlugin(kernel, 'lenient', guard('lenient', `failMode: 'open', onRequest() {}, onResponse: { headers: { 'x-lenient': 'here' } }`).replace('interceptors', 'routes(app) { app.get(\'/end\', () => process.exit(1)); }, interceptors'));
  const ask = (): Promise<Answer> => kernel.get('/vault/a');
  t.match(await ask(), { status: 200 });
  t.equal((await ask()).headers.get('x-lenient'), 'here');

  await kernel.verb('stop', 'lenient');
  t.equal((await ask()).status, 200, 'an open one that is stopped is not missed');
  t.equal((await ask()).headers.get('x-lenient'), null, 'nor are its marks there');

  await kernel.verb('stop', 'strict');
  const refused = await ask();
  t.match(refused, { status: 503, json: { code: 'INTERCEPTOR_FAILED', message: /"strict".*stopped.*POST \/plugins\/start\/strict/ } });
  await kernel.verb('load', 'strict');
  t.equal((await ask()).status, 503, 'loaded only');
  await kernel.verb('start', 'strict');
  t.equal((await ask()).status, 200);
  await kernel.verb('stop', 'strict');
  await kernel.writePlugin('strict', 'export default 5;', 'plugin.js');
  t.equal((await kernel.verb('start', 'strict')).status, 422);
  t.equal((await ask()).status, 503, 'code that cannot be loaded does not open the door');
  await kernel.verb('unload', 'strict');
  t.equal((await ask()).status, 200, 'unloaded');
});

t.test('a request is not inspected for longer than its plugin may take', async (t) => {
  const kernel = await startTestKernel(t, { DATABASE_URL });
  await startPlugin(kernel, 'hasty', `export default { name: 'hasty', version: '1.0.0', limits: { timeoutMs: 100 }, routes(app) { app.get('/', async () => ({})); } };`);
  await startPlugin(kernel, 'brooder', guard('brooder', `failMode: 'open', timeoutMs: 9000, onRequest: () => new Promise(() => {})`));
  const begin = performance.now();
  t.match(await kernel.get('/plugins/hasty/'), { status: 504, json: { code: 'PLUGIN_TIMEOUT' } });
  t.ok(performance.now() - begin < 2_000);

  const README = await readFile(join(ROOT, 'README.md'), 'utf8');
  await kernel.writePlugin('doorman', /```ts\n(\/\/ plugins\/doorman\/plugin.ts\n.*?)^```/ms.exec(README)![1]!);
  for (const verb of ['load', 'start'] as const) t.equal((await kernel.verb(verb, 'doorman')).status, 200, `${verb} of the example in the README`);
  await kernel.verb('unload', 'brooder');
  for (const verb of ['load', 'start'] as const) await kernel.verb(verb, 'items');
  const write = (headers: Record<string, string>): Promise<Answer> => kernel.request('POST', '/items', { name: 'x' }, headers);
  t.match(await write({}), { status: 403, json: { message: 'No pass' } });
  const made = await write({ 'x-pass': 'sesame' });
  t.equal(made.status, 201);
  t.equal(made.headers.get('x-served-by'), 'us');
});

t.test('a kernel that takes the place of a dead one knows the guards of the last', async (t) => {
  const ship = await startShip(t, { PLUGINS_ENABLED: 'echo,warden', PLUGIN_WARDEN_IMPORT_MS: '500', DATABASE_URL });
  await ship.ready();
  const statuses: (number | string)[] = [];
  const ask = (): Promise<unknown> => rawRequest(ship.url, 'GET', '/deep/echo/seen/x', { headers: { 'x-closed': 'answer' } })
    .then(({ status }) => statuses.push(status), (error: NodeJS.ErrnoException) => statuses.push(error.code ?? ''));
  await ask();
  t.strictSame(statuses, [418]);
  process.kill(ship.kernelPid(), 'SIGKILL');
  // Whether they wait until the guard is there or are refused is a question of moments.
  await Promise.all(Array.from({ length: 20 }, (_, i) => delay(i * 60).then(ask)));
  await eventually('the guard is back', 10_000, async () => { await ask(); return statuses.at(-1) === 418 || undefined; });
  t.notOk(statuses.includes(200), `and nothing passed: ${[...new Set(statuses)].join()}`);
});

t.test('nobody slips past a guard by writing the path in another way', async (t) => {
  const kernel = await startTestKernel(t, { DATABASE_URL });
  await startPlugin(kernel, 'vault', VAULT);
  await startPlugin(kernel, 'porter', guard('porter', `failMode: 'closed', paths: ['/vault/admin'], methods: ['GET', 'PUT'], onRequest: () => ({ answer: { statusCode: 401 } })`));
  const ways = ['/vault/admin', '/vault/admin/', '/vault//admin', '//vault/admin', '/vault/%61dmin', '/%76ault/admin', '/vault/ADMIN', '/VAULT/admin', '/vault/admin?x=/vault/b', '/vault/admin;x=1', '/vault/./admin', '/vault/a/../admin', '/vault/admin#x',
    '/vault/%2e/admin', '/vault/a/%2e%2e/admin', '/vault\\admin', '/vault%2fadmin', '/vault/%2fadmin', '/vault/admin%2f', '/vault/admin%3fx', '/deep/vault/admin', '/plugins/vault/admin', '/plugins/vault//%61DMIN/', `${kernel.url}/vault/admin`, 'http://elsewhere/vault/%61dmin?x', 'HTTP://elsewhere/vault/admin'];
  for (const method of ['GET', 'HEAD', 'PUT']) {
    const connection = await RawConnection.open(kernel.url);
    for (const path of ways) {
      connection.write(message(method, path));
      const { status, body } = await connection.answer(method);
      t.notMatch(body.toString(), /opened/, `${method} ${path}`);
      t.ok([400, 401, 404].includes(status), `${method} ${path}: ${status}`);
      if (status === 404) t.match(path, /^(\/\/|\/%76|\/VAULT|\/vault%2f|\/vault\\|HTTP)/, `${path} is nobody's path`);
    }
    connection.destroy();
  }
  t.match((await kernel.get('/vault/admins')).json, { opened: '/admins' }, 'others are free');
  t.match((await kernel.request('POST', '/vault/admin', {})).json, { opened: 'admin' }, 'and other methods');
});

t.test('while a guard is restarted and dies under load, nothing unauthorised comes through', async (t) => {
  const kernel = await startTestKernel(t, { DATABASE_URL });
  await startPlugin(kernel, 'vault', `let writes = 0; ${VAULT.replace("app.all('/admin'", "app.get('/writes', async () => ({ writes })); app.post('/written', async () => ({ writes: ++writes })); app.all('/admin'")}`);
  await startPlugin(kernel, 'sentinel', guard('sentinel', `failMode: 'closed', paths: ['/vault/written'], onRequest({ headers }) { if (Math.random() < 0.005) setTimeout(() => { throw new Error('dies') }); if (!headers['x-key']) return { answer: { statusCode: 401 } }; }`));
  const load = new SteadyLoad(kernel.url, 250, () => ({ method: 'POST', path: '/vault/written', body: {} }));
  for (let i = 0; i < 4; i += 1) {
    await delay(150);
    await kernel.verb(i % 2 ? 'restart' : 'start', 'sentinel');
  }
  await load.stop();
  const results = new Set(load.hits.map(({ result }) => result));
  t.ok(load.hits.length > 100, `${load.hits.length} requests`);
  t.ok(results.has(401));
  for (const result of results) t.ok(result === 401 || result === 503, `answered ${result}`);
  t.equal((await kernel.get('/vault/writes')).json.writes, 0, 'and nothing was written');
});

t.test('at the boot requests wait for a guard that loads slowly', async (t) => {
  let early: Promise<Answer[]> | null = null;
  const kernel = await startTestKernel(t, { DATABASE_URL, PLUGINS_ENABLED: 'echo,warden', PLUGIN_WARDEN_IMPORT_MS: '700' }, (url) => {
    early = (async () => {
      const answers: Answer[] = [];
      const begin = performance.now();
      while (performance.now() - begin < 1_500) answers.push(await rawRequest(url, 'GET', '/deep/echo/seen/x', { headers: { 'x-closed': 'answer' } }));
      return answers;
    })();
  });
  const statuses = (await early!).map(({ status }) => status);
  t.ok(statuses.includes(418), 'the guard answered');
  t.strictSame([...new Set(statuses)].filter((status) => status !== 418 && status !== 503), [], 'and nothing passed before');
  t.equal((await kernel.status('echo')).requests.admitted, 0);

  const prior = JSON.parse(JSON.stringify(kernel.kernel.supervisor.priorOf('warden'))) as { manifest: { interceptors: object[] } };
  t.equal(prior.manifest.interceptors.length, 2, 'the next kernel knows of it before it has loaded it');
});

t.test('items marks the answers of every plugin while it runs', async (t) => {
  const kernel = await startTestKernel(t, { DATABASE_URL, PLUGINS_ENABLED: 'items,hello,echo' });
  const mark = async (path: string, headers: Record<string, string> = {}): Promise<string | null> => (await kernel.request('GET', path, undefined, headers)).headers.get('x-items-plugin');
  for (const path of ['/items', '/plugins/hello/', '/plugins/hello/nothing', '/plugins/echo/download?bytes=300000', '/plugins/echo/cookies']) t.equal(await mark(path), 'enabled', path);
  const tooLarge = await rawRequest(kernel.url, 'POST', '/plugins/hello/', { headers: { 'content-length': '9000000' } }).catch(() => null);
  if (tooLarge !== null) t.match([tooLarge.status, tooLarge.headers.get('x-items-plugin')], [413, 'enabled'], 'also those that the kernel makes');
  const { asked } = (await kernel.status('items')).interceptors[0]!;
  t.equal(asked, 0, 'without a question');
  await kernel.verb('stop', 'hello');
  t.equal(await mark('/plugins/hello/'), 'enabled', 'of a plugin that is stopped');
  await kernel.verb('stop', 'items');
  t.equal(await mark('/plugins/echo/'), null);
  await kernel.verb('start', 'items');
  t.equal(await mark('/plugins/echo/'), 'enabled');
});

t.test('the example: auth guards the writing of items by a key', async (t) => {
  const kernel = await startTestKernel(t, { DATABASE_URL, PLUGINS_ENABLED: 'items,auth', PLUGIN_AUTH_KEYS: 'first-key, second-key' });
  const key = { 'x-api-key': 'second-key' };
  for (const mount of ['/items', '/plugins/items']) {
    t.equal((await kernel.get(mount)).status, 200, 'all may read');
    const refused = await kernel.request('POST', mount, { name: 'x' });
    t.match(refused, { status: 401, json: { statusCode: 401, code: 'API_KEY_MISSING', message: /X-API-Key/ } });
    t.match(refused.headers.get('www-authenticate'), 'ApiKey');
    t.equal(refused.headers.get('x-items-plugin'), null, 'its answer is not of another plugin than items');
    for (const wrong of ['', 'second-ke', 'second-key ,', 'first-key,second-key', 'SECOND-KEY']) t.equal((await kernel.request('POST', mount, { name: 'x' }, { 'x-api-key': wrong })).status, 401, wrong);
    const made = await kernel.request('POST', mount, { name: 'x' }, key);
    t.equal(made.status, 201);
    const path = `${mount}/${made.json.id}`;
    for (const [method, body] of [['PUT', { name: 'y' }], ['PATCH', {}], ['DELETE']] as [string, object?][]) t.equal((await kernel.request(method, path, body)).status, 401, method);
    t.equal((await kernel.request('PUT', path, { name: 'y' }, key)).json.name, 'y');
    t.equal((await kernel.request('DELETE', path, undefined, key)).status, 204);
  }
  await kernel.verb('stop', 'auth');
  t.equal((await kernel.request('POST', '/items', { name: 'x' }, key)).json.code, 'INTERCEPTOR_FAILED', 'without its guard nobody writes');
  t.equal((await kernel.get('/items')).status, 200);

  const keyless = await startTestKernel(t, { DATABASE_URL, PLUGINS_ENABLED: 'items' });
  await keyless.verb('load', 'auth');
  t.match(await keyless.verb('load', 'auth'), { status: 422, json: { message: /PLUGIN_AUTH_KEYS/ } }, 'without keys it does not start');
  t.equal((await keyless.request('POST', '/items', { name: 'x' })).status, 503, 'and guards all the same');
});
