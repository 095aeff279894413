// The documentation: a page that needs nobody else, and one document that follows the plugins.
import t from 'tap';
import { parse as parseYaml } from 'yaml';
import { startTestKernel, type TestKernel } from '../helpers/kernel.js';

type Json = Record<string, any>;

const PAPERS = (routes: string): string => `export default {
  name: 'papers', version: '1.0.0', description: 'Ship\\'s papers', mounts: ['/papers', '/archive/old'],
  routes(app) { ${routes} },
};`;
const FIRST_ROUTES = `
  app.get('/', { schema: { summary: 'All papers', description: 'In no order', deprecated: true } }, async () => []);
  app.get('/:owner/files/:number(^[0-9]+$)', { schema: {
    params: { type: 'object', properties: { owner: { type: 'string', maxLength: 9 }, number: { type: 'integer' } } },
    querystring: { type: 'object', required: ['page'], properties: { page: { type: 'integer', minimum: 1, description: 'From 1' }, size: { type: 'integer' } } },
    headers: { type: 'object', properties: { 'x-ship': { type: 'string' } } },
  } }, async () => 'x');
  app.post('/upload/*', { schema: { consumes: ['text/csv'], body: { type: 'string' }, response: { 204: { type: 'null', description: 'Kept' }, '4xx': { type: 'object', description: 'Not kept' } } } }, async () => null);
  app.route({ method: ['PUT', 'PATCH'], url: '/both', handler: async () => null });
  app.get('/secret', { schema: { hide: true } }, async () => 'x');`;

const documentOf = async (kernel: TestKernel): Promise<Json> => (await kernel.get('/openapi.json')).json as Json;
const pathsBelow = (document: Json, ...prefixes: string[]): string[] => Object.keys(document['paths'] as Json).filter((path) => prefixes.some((prefix) => path === prefix || path.startsWith(`${prefix}/`))).sort();

function* everyNode(value: unknown): Generator<Json> {
  if (typeof value !== 'object' || value === null) return;
  yield value as Json;
  for (const child of Object.values(value)) yield* everyNode(child);
}

/** Follows `#/components/...`. */
function resolve(document: Json, ref: string): unknown {
  if (!ref.startsWith('#/')) return undefined;
  return ref.slice(2).split('/').reduce<any>((node, key) => node?.[key.replaceAll('~1', '/').replaceAll('~0', '~')], document);
}

const operationsOf = (document: Json): [path: string, method: string, operation: Json][] =>
  Object.entries(document['paths'] as Json).flatMap(([path, item]) => Object.entries(item as Json).map(([method, operation]): [string, string, Json] => [path, method, operation as Json]));

t.test('documentation', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'hello,analytics,items', APP_NAME: 'Test Ship' });

  t.test('the page and all that it loads come from this server', async (t) => {
    for (const path of ['/docs', '/docs/']) {
      const page = await kernel.get(path);
      t.equal(page.status, 200, path);
      t.match(page.headers.get('content-type'), /^text\/html/);
      t.match(page.text, /id="swagger-ui"/);
      const references = [...page.text.matchAll(/\b(?:src|href|action)\s*=\s*"([^"]*)"/g)].map(([, url]) => url!);
      t.ok(references.length >= 5, `${path} loads scripts, styles and icons: ${references.join(' ')}`);
      t.ok(references.some((url) => url.endsWith('.js')) && references.some((url) => url.endsWith('.css')));
      t.notMatch(page.text, /(?:https?:)?\/\/(?!www\.w3\.org)[a-z0-9-]+\.[a-z]/i, 'no other host is mentioned');
      t.notMatch(page.text, /<script(?![^>]*\bsrc=)[^>]*>|\son\w+=/, 'no script stands in the page, where the policy would refuse it');
      for (const reference of references) {
        const url = new URL(reference, kernel.url + path);
        t.equal(url.origin, kernel.url, `${reference} is ours`);
        const asset = await kernel.get(url.pathname);
        t.equal(asset.status, 200, `${url.pathname} is there`);
        t.ok(asset.text.length > 0);
        if (url.pathname.endsWith('.css')) t.notMatch(asset.text, /@import|url\(\s*["']?(?!data:|["')])/, `${reference} loads nothing`);
        if (url.pathname.endsWith('.css')) t.match(asset.headers.get('content-type'), /^text\/css/);
        if (url.pathname.endsWith('.js')) t.match(asset.headers.get('content-type'), /javascript/);
        if (url.pathname.endsWith('initializer.js')) {
          t.notMatch(asset.text, /["'](?:https?:)?\/\/[a-z]/i, 'the settings name no other host');
          t.match(asset.text, /validatorUrl: null/, 'the document is sent to nobody for validation');
        }
      }
      t.ok(references.some((url) => url.endsWith('initializer.js')), 'the settings were looked at');
    }
  });

  t.test('the policy lets the page reach this server only', async (t) => {
    for (const path of ['/docs', '/docs/', '/docs/static/swagger-initializer.js']) {
      const policy = (await kernel.get(path)).headers.get('content-security-policy') ?? '';
      const directives = new Map(policy.split(';').map((directive) => directive.trim().split(/\s+/)).map(([name, ...sources]) => [name!, sources]));
      t.strictSame(directives.get('default-src'), ["'self'"], path);
      t.strictSame(directives.get('script-src') ?? ["'self'"], ["'self'"], 'scripts too');
      t.strictSame(directives.get('object-src'), ["'none'"]);
      t.ok(directives.has('base-uri') && directives.has('frame-ancestors'), 'what default-src does not cover is covered');
      for (const [name, sources] of directives) {
        t.strictSame(sources.filter((source) => !["'self'", "'none'", 'data:', ...(name === 'style-src' ? ["'unsafe-inline'"] : [])].includes(source)), [], `${name} names no other host`);
      }
    }
  });

  t.test('all forms are one document', async (t) => {
    const [json, api, yaml] = [await kernel.get('/docs/json'), await kernel.get('/openapi.json'), await kernel.get('/docs/yaml')];
    for (const answer of [json, api, yaml]) t.equal(answer.status, 200);
    t.match(json.headers.get('content-type'), /^application\/json/);
    t.match(api.headers.get('content-type'), /^application\/json/);
    t.match(json.json, { openapi: /^3\.1\./, info: { title: 'Test Ship', version: String } });
    t.strictSame(api.json, json.json);
    t.strictSame(parseYaml(yaml.text), json.json);
    t.ok(Object.keys(json.json.paths as Json).length >= 15);
  });

  t.test('it has the kernel\'s own routes, and no others of it', async (t) => {
    const document = await documentOf(kernel);
    const kernelRoutes = operationsOf(document).filter(([,, { tags }]) => (tags as string[]).includes('kernel')).map(([path, method]) => `${method} ${path}`).sort();
    t.strictSame(kernelRoutes, [
      'get /', 'get /health', 'get /health/live', 'get /health/ready', 'get /plugins', 'get /plugins/dead-letters/{name}', 'get /plugins/status/{name}',
      'post /plugins/dead-letters/{name}/retry',
      'post /plugins/load/{name}', 'post /plugins/restart/{name}', 'post /plugins/start/{name}', 'post /plugins/stop/{name}', 'post /plugins/unload/{name}',
    ]);
    t.match(document['paths']['/health'].get.responses, { 200: { content: { 'application/json': { schema: { properties: { status: {}, database: {} } } } } }, 503: {} });
    t.match(document['paths']['/plugins/load/{name}'].post.parameters.sort((one: Json, other: Json) => (one['name'] as string).localeCompare(other['name'] as string)), [{ name: 'force', in: 'query', required: false }, { name: 'name', in: 'path', required: true }]);
    t.strictSame((document['tags'] as Json[]).map(({ name }) => name).sort(), ['analytics', 'hello', 'items', 'kernel']);
    t.notMatch(JSON.stringify(document), /"\/\*"|\/docs\/static/, 'the gateway and the page\'s files are nobody\'s business');
  });

  t.test('items stands under both mounts with parameters and schemas', async (t) => {
    const document = await documentOf(kernel);
    t.strictSame(pathsBelow(document, '/items', '/plugins/items'),
      ['/items', '/items/{id}', '/plugins/items/', '/plugins/items/{id}']);
    for (const mount of ['/items', '/plugins/items']) {
      const collection = document['paths'][mount] ?? document['paths'][`${mount}/`];
      const single = document['paths'][`${mount}/{id}`];
      t.strictSame([Object.keys(collection).sort(), Object.keys(single).sort()], [['get', 'post'], ['delete', 'get', 'put']], mount);
      t.match(collection.get.parameters, [
        { name: 'skip', in: 'query', required: false, schema: { type: 'integer', minimum: 0, default: 0 } },
        { name: 'limit', in: 'query', required: false, schema: { type: 'integer', minimum: 1, maximum: 1_000, default: 100 } },
      ]);
      const body = collection.post.requestBody;
      t.match(body, { required: true, content: { 'application/json': { schema: { type: 'object', required: ['name'], properties: { name: { type: 'string', minLength: 1 }, description: {} } } } } });
      t.match(collection.post.responses[201].content['application/json'].schema, { required: ['id', 'name', 'description'], properties: { id: { type: 'integer' } } });
      t.match(collection.get.responses[200].content['application/json'].schema, { type: 'array', items: { properties: { id: {}, name: {}, description: {} } } });
      t.strictSame(collection.get.tags, ['items']);
      for (const method of ['get', 'put', 'delete']) {
        t.match(single[method].parameters, [{ name: 'id', in: 'path', required: true, schema: { type: 'integer', minimum: 1, maximum: 2_147_483_647 } }], method);
        t.ok(single[method].responses[404] && single[method].responses[400], 'its errors too');
      }
      t.strictSame(Object.keys(single.delete.responses[204]), ['description'], 'nothing has no content');
      t.strictSame(single.put.requestBody.content['application/json'].schema.required ?? [], [], 'a change needs no field');
    }
  });

  t.test('it is a sound OpenAPI document', async (t) => {
    await kernel.writePlugin('papers', PAPERS(FIRST_ROUTES));
    await kernel.verb('load', 'papers');
    const document = await documentOf(kernel);
    const ids: string[] = [];
    for (const [path, method, operation] of operationsOf(document)) {
      t.match(path, /^\/[^:*()?]*$/, `${path} has no syntax of Fastify`);
      const declared = ((operation['parameters'] ?? []) as Json[]).filter((parameter) => parameter['in'] === 'path').map(({ name }) => name as string);
      t.strictSame(declared.sort(), [...path.matchAll(/\{([^}]+)\}/g)].map(([, name]) => name).sort(), `${method} ${path} declares the parameters of its path`);
      t.ok(Object.keys(operation['responses'] as Json).length > 0, `${method} ${path} says what it answers`);
      for (const answer of Object.values(operation['responses'] as Json)) t.type((answer as Json)['description'], 'string');
      if (operation['operationId'] !== undefined) ids.push(operation['operationId'] as string);
    }
    t.ok(ids.length >= 8);
    t.strictSame(ids.filter((id, at) => ids.indexOf(id) !== at), [], 'each operation has its own id');
    const references = [...everyNode(document)].map((node) => node['$ref'] as unknown).filter((ref) => typeof ref === 'string');
    t.strictSame(references.filter((ref) => resolve(document, ref) === undefined), [], 'no reference leads nowhere');
    await kernel.verb('unload', 'papers');
  });

  t.test('routes of a plugin come and go with it, at once and under all its mounts', async (t) => {
    const mounts = ['/plugins/papers', '/papers', '/archive/old'];
    const below = async (): Promise<string[]> => pathsBelow(await documentOf(kernel), ...mounts);
    t.strictSame(await below(), [], 'not loaded yet');
    const before = await documentOf(kernel);

    t.equal((await kernel.verb('load', 'papers')).json.status, 'mounted');
    const document = await documentOf(kernel);
    t.strictSame(await below(), mounts.flatMap((mount) => [mount.startsWith('/plugins/') ? `${mount}/` : mount, `${mount}/both`, `${mount}/upload/{wildcard}`, `${mount}/{owner}/files/{number}`]).sort());
    t.match(document['tags'], [{}, {}, {}, {}, { name: 'papers', description: 'Ship\'s papers' }]);
    t.match(document['paths']['/papers'].get, { summary: 'All papers', description: 'In no order', deprecated: true, tags: ['papers'] });
    t.strictSame(document['paths']['/archive/old/{owner}/files/{number}'].get.parameters, [
      { name: 'owner', in: 'path', required: true, schema: { type: 'string', maxLength: 9 } },
      { name: 'number', in: 'path', required: true, schema: { type: 'integer' } },
      { name: 'page', in: 'query', required: true, description: 'From 1', schema: { type: 'integer', minimum: 1, description: 'From 1' } },
      { name: 'size', in: 'query', required: false, schema: { type: 'integer' } },
      { name: 'x-ship', in: 'header', required: false, schema: { type: 'string' } },
    ]);
    const upload = document['paths']['/papers/upload/{wildcard}'].post;
    t.strictSame(Object.keys(upload.requestBody.content), ['text/csv']);
    t.strictSame(upload.responses[204], { description: 'Kept' });
    t.strictSame(Object.keys(document['paths']['/papers/both']).sort(), ['patch', 'put']);
    for (const path of ['/docs/json', '/docs/yaml']) t.match((await kernel.get(path)).text, /archive\/old/, path);

    for (const verb of ['start', 'stop'] as const) {
      await kernel.verb(verb, 'papers');
      t.equal((await below()).length, 12, `still there after ${verb}`);
    }

    await kernel.writePlugin('papers', PAPERS("app.get('/changed', async () => 'x');"));
    await kernel.verb('restart', 'papers');
    t.strictSame(await below(), mounts.map((mount) => `${mount}/changed`).sort(), 'new code, new routes');

    t.equal((await kernel.verb('unload', 'papers')).json.status, 'registered');
    t.strictSame(await below(), []);
    t.strictSame(await documentOf(kernel), before, 'as if it had never been there');
    for (const path of ['/docs/json', '/docs/yaml']) t.notMatch((await kernel.get(path)).text, /archive\/old|papers/, path);
  });

  t.test('a plugin that cannot be loaded leaves the document alone', async (t) => {
    const before = await documentOf(kernel);
    await kernel.writePlugin('leaky', `export default { name: 'leaky', version: '1.0.0', mounts: ['/leaky'], routes(app) { app.get('/x', async () => 1); throw new Error('no'); } };`);
    t.equal((await kernel.verb('load', 'leaky')).status, 422);
    t.strictSame(await documentOf(kernel), before);
    await kernel.verb('unload', 'leaky');
    await kernel.verb('unload', 'items');
    t.strictSame(pathsBelow(await documentOf(kernel), '/items', '/plugins/items'), [], 'items goes like any other');
    t.strictSame(pathsBelow(await documentOf(kernel), '/plugins/hello', '/plugins/analytics').length, 2, 'the others stay');
  });
});
