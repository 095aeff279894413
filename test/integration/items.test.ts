// The items API over HTTP: every endpoint with good and bad input, its plugin's absence, and what outlives a restart.
import t, { type Test } from 'tap';
import { PLUGIN_LIMITS } from '../../protocol/limits.js';
import { rawRequest, startTestKernel, type Answer, type TestKernel } from '../helpers/kernel.js';
import { onEachServer } from '../helpers/postgres.js';

interface Item { id: number; name: string; description: string | null }

/** Greater than any id that this file makes, and a possible one. */
const ABSENT = 2_000_000_000;
const JSON_TYPE = { 'content-type': 'application/json' };

/** An error answer has its status, the whole body shape, and a message that names what is wrong. */
function refuses(t: Test, answer: Answer, status: number, message: RegExp, what: string): void {
  t.equal(answer.status, status, `${what}: ${status}`);
  t.match(answer.headers.get('content-type'), /^application\/json/, `${what}: as JSON`);
  t.strictSame(Object.keys(answer.json ?? {}).sort(), ['code', 'error', 'message', 'requestId', 'statusCode'], `${what}: the shape of an error`);
  t.match(answer.json, { statusCode: status, code: /^[A-Z][A-Z0-9_]+$/, error: /^[A-Z]/, message, requestId: /\S/ }, `${what}: says why`);
  t.notMatch(answer.text, /node_modules|\bat [^ ]+ \(|SELECT|INSERT/, `${what}: shows nothing of the inside`);
}

const isMarked = (answer: Answer): boolean => answer.headers.get('x-items-plugin') === 'enabled';

async function create(kernel: TestKernel, body: object): Promise<Item> {
  const answer = await kernel.request('POST', '/items', body);
  if (answer.status !== 201) throw new Error(`an item could not be made: ${answer.status} ${answer.text}`);
  return answer.json as Item;
}

onEachServer(t, 'items', async (t, url) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'items,analytics,hello', DATABASE_URL: url });
  const count = async (): Promise<number> => ((await kernel.get('/plugins/analytics/count')).json as { items_count: number }).items_count;

  t.test('at first there are none', async (t) => {
    const list = await kernel.get('/items');
    t.equal(list.status, 200);
    t.strictSame(list.json, []);
    t.strictSame((await kernel.get('/plugins/analytics/count')).json, { items_count: 0 });
  });

  t.test('a created item is answered with its place, under the mount that was used', async (t) => {
    const created = await kernel.request('POST', '/items', { name: 'anchor', description: 'heavy' });
    t.equal(created.status, 201);
    t.equal(created.text, '{"id":1,"name":"anchor","description":"heavy"}');
    t.equal(created.headers.get('location'), '/items/1');
    const other = await kernel.request('POST', '/plugins/items', { name: 'buoy' });
    t.equal(other.status, 201);
    t.strictSame(other.json, { id: 2, name: 'buoy', description: null });
    t.equal(other.headers.get('location'), '/plugins/items/2');
    for (const place of ['/items/1', '/plugins/items/1']) t.strictSame((await kernel.get(place)).json, created.json, `found at ${place}`);
    t.strictSame((await kernel.get(other.headers.get('location')!)).json, other.json, 'the other one too');
  });

  t.test('a description may be left out or null; what a client may not set is ignored', async (t) => {
    for (const body of [{ name: 'x' }, { name: 'x', description: null }, { name: 'x', id: 77, price: 5, description: null }]) {
      const { status, json } = await kernel.request('POST', '/items', body);
      t.equal(status, 201);
      t.match(json.id, Number);
      t.not(json.id, 77);
      t.strictSame(json, { id: json.id, name: 'x', description: null }, JSON.stringify(body));
      t.strictSame((await kernel.get(`/items/${json.id}`)).json, json);
    }
    t.strictSame((await create(kernel, { name: 'x', description: '' })).description, '', 'empty is not null');
  });

  t.test('any text comes back as it went in', async (t) => {
    const texts = [
      'Zażółć gęślą jaźń', '船の隔壁 🚢', '👩‍👩‍👧‍👦', 'e\u0301 is not \u00e9', `it's "quoted" \\ and \`so\``, `'; DROP TABLE items; --`, '$1 %s ${x} {{y}}',
      'line\nbreak\ttab\r\n', ' blanks around ', '<script>alert(1)</script>', '\u200f\u202e', '\u0001\u001f\u007f', 'null', '0', 'a'.repeat(200), '🚢'.repeat(100),
    ];
    for (const text of texts) {
      const created = await create(kernel, { name: text, description: text });
      t.equal(created.name, text);
      const { json } = await kernel.get(`/items/${created.id}`);
      t.strictSame(json, { id: created.id, name: text, description: text });
      t.strictSame((await kernel.request('PUT', `/items/${created.id}`, { name: text.toUpperCase().slice(0, 200) })).json.name, text.toUpperCase().slice(0, 200));
    }
    const long = 'd'.repeat(10_000);
    t.equal((await create(kernel, { name: 'long', description: long })).description, long, 'the longest description');
  });

  t.test('the list is by id, a hundred at a time, and can be paged', async (t) => {
    const missing = 103 - (await count());
    await Promise.all(Array.from({ length: missing }, (_, n) => create(kernel, { name: `filler ${n}` })));
    await kernel.request('PUT', '/items/1', { description: 'touched, so that its row has moved' });
    const all = (await kernel.get('/items?limit=1000')).json as Item[];
    t.equal(all.length, 103);
    t.strictSame(all.map(({ id }) => id), all.map(({ id }) => id).sort((a, b) => a - b), 'by id');
    const cases: [query: string, from: number, to: number][] = [
      ['', 0, 100], ['?', 0, 100], ['?skip=0', 0, 100], ['?limit=1', 0, 1], ['?limit=1000', 0, 103], ['?skip=0&limit=100', 0, 100], ['?skip=100', 100, 103],
      ['?skip=2&limit=3', 2, 5], ['?limit=3&skip=102', 102, 103], ['?skip=103', 103, 103], ['?skip=2147483647', 103, 103], ['?limit=2&unknown=1', 0, 2],
    ];
    for (const mount of ['/items', '/items/', '/plugins/items']) {
      for (const [query, from, to] of cases) t.strictSame((await kernel.get(mount + query)).json, all.slice(from, to), mount + query);
    }
  });

  t.test('a page that cannot be is refused with the parameter\'s name', async (t) => {
    for (const name of ['skip', 'limit']) {
      const values = ['-1', 'abc', '', '1.5', '1e1', 'true', '0x10', '%20', '%00', '2147483648', '99999999999999999999', 'null', '1,2', `1&${name}=2`, ...(name === 'limit' ? ['0', '1001'] : [])];
      for (const value of values) {
        const answer = await kernel.get(`/items?${name}=${value}`);
        refuses(t, answer, 400, new RegExp(`\\b${name}\\b`), `${name}=${value}`);
        t.ok(isMarked(answer));
      }
    }
  });

  t.test('a change touches only what its body mentions', async (t) => {
    const { id } = await create(kernel, { name: 'sail', description: 'white' });
    const steps: [body: object, then: Omit<Item, 'id'>][] = [
      [{ name: 'jib' }, { name: 'jib', description: 'white' }],
      [{ description: 'red' }, { name: 'jib', description: 'red' }],
      [{}, { name: 'jib', description: 'red' }],
      [{ id: 5, colour: 'blue' }, { name: 'jib', description: 'red' }],
      [{ description: null }, { name: 'jib', description: null }],
      [{ name: 'spinnaker', description: 'striped' }, { name: 'spinnaker', description: 'striped' }],
      [{ description: '' }, { name: 'spinnaker', description: '' }],
    ];
    for (const [body, then] of steps) {
      const { status, json } = await kernel.request('PUT', `/items/${id}`, body);
      t.equal(status, 200);
      t.strictSame(json, { id, ...then }, JSON.stringify(body));
      t.strictSame((await kernel.get(`/plugins/items/${id}`)).json, { id, ...then }, 'and stays so');
    }
    t.equal((await kernel.request('PUT', `/plugins/items/${id}`, { name: 'by the other mount' })).json.name, 'by the other mount');
  });

  t.test('a deleted item is gone, and its neighbours are not', async (t) => {
    const [doomed, neighbour] = [await create(kernel, { name: 'doomed' }), await create(kernel, { name: 'neighbour' })];
    const before = await count();
    const gone = await kernel.request('DELETE', `/items/${doomed.id}`);
    t.equal(gone.status, 204);
    t.equal(gone.text, '');
    t.equal(gone.headers.get('content-type'), null, 'nothing has no type');
    t.ok(isMarked(gone));
    t.equal(await count(), before - 1);
    for (const [method, body] of [['GET'], ['PUT', { name: 'x' }], ['DELETE']] as [string, object?][]) {
      refuses(t, await kernel.request(method, `/items/${doomed.id}`, body), 404, new RegExp(`\\b${doomed.id}\\b`), `${method} after the end`);
    }
    t.strictSame((await kernel.get(`/items/${neighbour.id}`)).json, neighbour);
    t.not((await create(kernel, { name: 'next' })).id, doomed.id, 'its id is not given again');
  });

  t.test('an absent item is 404 with a sentence, whatever is wanted of it', async (t) => {
    for (const [method, body] of [['GET'], ['PUT', { name: 'x' }], ['PUT', {}], ['DELETE']] as [string, object?][]) {
      for (const mount of ['/items', '/plugins/items']) {
        const answer = await kernel.request(method, `${mount}/${ABSENT}`, body);
        refuses(t, answer, 404, new RegExp(`There is no item ${ABSENT}`), `${method} ${mount}`);
        t.equal(answer.json.code, 'ITEM_NOT_FOUND');
      }
    }
    t.equal((await kernel.get('/items/2147483647')).status, 404, 'the largest id is an id');
  });

  t.test('a bad id is refused and named', async (t) => {
    const ids = ['0', '-1', 'abc', '1.5', '1.0', '2147483648', '99999999999999999999', '1e3', '0x1', 'true', 'null', 'NaN', '1%20', '%201', '+1', '%00', '1%00', '%F0%9F%9A%A2', "1'%20OR%20'1'='1", '1;2'];
    for (const id of ids) {
      for (const [method, body] of [['GET'], ['PUT', '{"name":"x"}'], ['DELETE']] as [string, string?][]) {
        const answer = await rawRequest(kernel.url, method, `/items/${id}`, body === undefined ? {} : { body, headers: JSON_TYPE });
        refuses(t, answer, 400, /\bid\b/, `${method} ${id}`);
        t.ok(isMarked(answer), `${method} ${id}: marked`);
      }
    }
    refuses(t, await kernel.request('DELETE', '/items'), 400, /\bid\b/, 'no id at all');
    refuses(t, await rawRequest(kernel.url, 'GET', '/items/%'), 400, /%/, 'no URL at all');
    refuses(t, await rawRequest(kernel.url, 'GET', '/items/%E0%A4%A'), 400, /%E0/, 'half a character');
    refuses(t, await kernel.get(`/items/${'9'.repeat(101)}`), 414, /9999/, 'an endless id');
    t.match(await kernel.get('/items/1'), { status: 200, json: { id: 1, name: 'anchor' } }, 'and nothing was changed or deleted');
  });

  t.test('a bad body is refused and the field is named', async (t) => {
    const before = await count();
    const id = 1;
    const unchanged = (await kernel.get(`/items/${id}`)).text;
    const values: [field: RegExp, body: string][] = [
      [/body\/name\b/, '{"name":""}'], [/body\/name\b/, '{"name":5}'], [/body\/name\b/, '{"name":null}'], [/body\/name\b/, '{"name":true}'],
      [/body\/name\b/, '{"name":["a"]}'], [/body\/name\b/, '{"name":{"a":1}}'], [/body\/name\b/, JSON.stringify({ name: 'a'.repeat(201) })],
      [/body\/name\b/, '{"name":"a\\u0000b"}'], [/body\/description\b/, '{"name":"a","description":5}'], [/body\/description\b/, '{"name":"a","description":["x"]}'],
      [/body\/description\b/, '{"name":"a","description":"\\u0000"}'], [/body\/description\b/, JSON.stringify({ name: 'a', description: 'd'.repeat(10_001) })],
      [/body\b/, '[]'], [/body\b/, '[{"name":"a"}]'], [/body\b/, '"name"'], [/body\b/, '5'], [/body\b/, 'null'], [/body\b/i, '{"name":"a"'], [/body\b/i, 'name=a'],
      [/body\b/i, ''], [/body\b/i, '{"name":"a","__proto__":{"description":"b"}}'],
    ];
    const cases: [method: string, path: string, field: RegExp, body: string][] = [
      ...values.flatMap(([field, body]): [string, string, RegExp, string][] => [['POST', '/items', field, body], ['PUT', `/items/${id}`, field, body]]),
      ['POST', '/items', /body\/name\b/, '{}'], ['POST', '/items', /body\/name\b/, '{"description":"no name"}'], ['POST', '/items', /body\/name\b/, '{"Name":"a"}'],
    ];
    for (const [method, path, field, body] of cases) {
      const answer = await kernel.request(method, path, body, JSON_TYPE);
      refuses(t, answer, 400, field, `${method} ${body.slice(0, 60)}`);
      t.ok(isMarked(answer), 'marked');
    }
    for (const [method, path] of [['POST', '/items'], ['PUT', `/items/${id}`]] as const) {
      refuses(t, await rawRequest(kernel.url, method, path), 400, /body\b/, `${method} without a body`);
      for (const type of ['application/xml', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', 'image/png', 'nonsense']) {
        refuses(t, await kernel.request(method, path, '{"name":"a"}', { 'content-type': type }), 415, /media type/i, `${method} as ${type}`);
      }
      refuses(t, await kernel.request(method, path, '{"name":"a"}', { 'content-type': 'text/plain' }), 400, /body\b/, `${method} as text`);
    }
    t.equal(await count(), before, 'none of it was stored');
    t.equal((await kernel.get(`/items/${id}`)).text, unchanged, 'nor changed what there is');
  });

  t.test('a body over the limit is 413, one of that size is read', async (t) => {
    const limit = PLUGIN_LIMITS.bodyLimitBytes;
    const before = await count();
    const padded = (bytes: number): string => '{"name":"big"}'.padEnd(bytes, ' ');
    for (const headers of [JSON_TYPE, { ...JSON_TYPE, 'transfer-encoding': 'chunked' }]) {
      const how = 'transfer-encoding' in headers ? 'of unknown length' : 'of known length';
      refuses(t, await rawRequest(kernel.url, 'POST', '/items', { body: padded(limit + 1), headers }), 413, /large/, `a byte too many, ${how}`);
      t.equal((await rawRequest(kernel.url, 'POST', '/items', { body: padded(limit), headers })).status, 201, `just right, ${how}`);
    }
    t.equal(await count(), before + 2, 'the refused ones are not stored');
  });

  t.test('what there is no route for is refused cleanly', async (t) => {
    for (const [method, path] of [['PATCH', '/items/1'], ['PATCH', '/items'], ['PUT', '/items'], ['POST', '/items/1'], ['GET', '/items/1/x'], ['GET', '/items//']] as const) {
      const answer = await rawRequest(kernel.url, method, path, method === 'GET' ? {} : { body: '{"name":"x"}', headers: JSON_TYPE });
      if (path === '/items' && method === 'PUT') refuses(t, answer, 400, /\bid\b/, `${method} ${path}`);
      else refuses(t, answer, 404, new RegExp(`${method} ${path}`), `${method} ${path}`);
      t.ok(isMarked(answer), `${method} ${path}: marked`);
    }
    t.equal((await kernel.get('/itemsandmore')).json.code, 'ROUTE_UNKNOWN', 'a longer word is another path');
    t.notOk(isMarked(await kernel.get('/itemsandmore')));
  });

  t.test('HEAD is GET without the body', async (t) => {
    for (const path of ['/items', '/items/1', '/plugins/items/1', `/items/${ABSENT}`, '/items/abc']) {
      const [get, head] = [await kernel.get(path), await kernel.request('HEAD', path)];
      t.equal(head.status, get.status, path);
      t.equal(head.text, '');
      t.ok(isMarked(head));
      t.equal(head.headers.get('content-type'), get.headers.get('content-type'));
      if (get.status === 200) t.equal(head.headers.get('content-length'), String(Buffer.byteLength(get.text)));
    }
  });

  t.test('every answer to what is right is marked too', async (t) => {
    const made = await kernel.request('POST', '/items', { name: 'marked' });
    const path = `/items/${made.json.id}`;
    for (const answer of [made, await kernel.get('/items'), await kernel.get(path), await kernel.request('PUT', path, {}), await kernel.request('DELETE', path)]) t.ok(isMarked(answer));
    for (const path of ['/plugins/hello/', '/plugins/hello/nothing', '/plugins/analytics/count']) t.ok(isMarked(await kernel.get(path)), `and ${path} of another plugin`);
  });

  t.test('two hundred creations at once get two hundred ids, and analytics counts them', async (t) => {
    const before = await count();
    const made = await Promise.all(Array.from({ length: 200 }, (_, n) => create(kernel, { name: `parallel ${n}` })));
    t.equal(new Set(made.map(({ id }) => id)).size, 200);
    t.strictSame(made.map(({ name }) => name), Array.from({ length: 200 }, (_, n) => `parallel ${n}`), 'each answer went to its own request');
    const { status, text } = await kernel.get('/plugins/analytics/count');
    t.equal(status, 200);
    t.equal(text, `{"items_count":${before + 200}}`);
    t.equal(((await kernel.get('/items?limit=1000')).json as Item[]).length, before + 200);
  });

  t.test('its absence is told by kind, and the others do not notice', async (t) => {
    const stored = (await kernel.get('/items?limit=1000')).text;
    const amount = await count();
    t.ok(amount > 300, 'there is something to lose');
    const absent = async (status: number, code: string, what: string): Promise<void> => {
      for (const [method, path] of [['GET', '/plugins/items'], ['GET', '/plugins/items/1'], ['POST', '/plugins/items']] as const) {
        const answer = await kernel.request(method, path, method === 'POST' ? { name: 'x' } : undefined);
        refuses(t, answer, status, /items/, `${what}: ${method} ${path}`);
        t.equal(answer.json.code, code);
      }
      for (const path of ['/items', '/items/', '/items/1', '/items?limit=5']) refuses(t, await kernel.get(path), status, /items/, `${what}: ${path}`);
      t.strictSame((await kernel.get('/plugins/analytics/count')).json, { items_count: amount }, `${what}: analytics counts`);
      t.strictSame((await kernel.get('/plugins/hello/')).json, { message: 'Hello from plugin' }, `${what}: hello says hello`);
      t.equal((await kernel.get('/health')).status, 200);
    };

    t.match(await kernel.verb('stop', 'items'), { status: 200, json: { status: 'stopped' } });
    await absent(503, 'PLUGIN_NOT_RUNNING', 'stopped');
    t.match((await kernel.get('/items')).json.message, /stopped.*POST \/plugins\/start\/items/, 'and says what to do');
    t.match(await kernel.verb('start', 'items'), { status: 200, json: { status: 'running' } });
    t.equal((await kernel.get('/items?limit=1000')).text, stored, 'all is there after stop and start');

    t.match(await kernel.verb('unload', 'items'), { status: 200, json: { status: 'registered' } });
    await absent(404, 'PLUGIN_NOT_LOADED', 'unloaded');
    t.equal((await kernel.get('/items')).json.code, 'ROUTE_UNKNOWN', 'its other mount is nobody\'s');

    t.match(await kernel.verb('load', 'items'), { status: 200, json: { status: 'mounted' } });
    await absent(503, 'PLUGIN_NOT_RUNNING', 'loaded only');
    t.match(await kernel.verb('start', 'items'), { status: 200, json: { status: 'running' } });
    t.equal((await kernel.get('/items?limit=1000')).text, stored, 'all is there after unload, load and start');
  });

  t.test('a new kernel on the same data directory has the same items', async (t) => {
    const stored = (await kernel.get('/items?limit=1000')).text;
    t.ok(stored.length > 1_000);
    await kernel.stop();
    const next = await startTestKernel(t, { PLUGINS_ENABLED: 'items', DATA_DIR: kernel.dataDir, DATABASE_URL: url });
    t.equal((await next.get('/items?limit=1000')).text, stored);
    const ids = (JSON.parse(stored) as Item[]).map(({ id }) => id);
    t.ok((await create(next, { name: 'after the restart' })).id > Math.max(...ids), 'and goes on counting');
  });
});

t.test('analytics counts 0 while the table of items does not exist, and the items as soon as there are some', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'analytics' });
  t.equal((await kernel.get('/plugins/analytics/count')).text, '{"items_count":0}');
  t.equal((await kernel.get('/items')).status, 404, 'nobody has loaded items');
  await kernel.verb('load', 'items');
  await kernel.verb('start', 'items');
  await create(kernel, { name: 'first' });
  t.equal((await kernel.get('/plugins/analytics/count')).text, '{"items_count":1}');
});
