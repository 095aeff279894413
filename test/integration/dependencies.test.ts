// Plugins that need each other's services: the order of their starts, what happens when a provider is missing, goes down, or changes its contract.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { startTestKernel, type TestKernel } from '../helpers/kernel.js';

interface Spec { readonly requires?: readonly string[]; readonly optional?: readonly string[]; readonly services?: string; readonly init?: string; readonly version?: string }

const source = (name: string, { requires = [], optional = [], services = `{ '${name}.ask': async () => '${name}' }`, init = '', version = '1.0.0' }: Spec): string => `
  import { Type } from '@sinclair/typebox';
  import { definePlugin, method } from 'bulkhead/protocol';
  export default definePlugin({
    name: '${name}', version: '${version}', requires: ${JSON.stringify(requires)} as never[], optional: ${JSON.stringify(optional)} as never[],
    services: ${services} as never,
    async init(ctx) { const ask = (service: string): Promise<string> => (ctx.services.get(service as never) as () => Promise<string>)(); ${init} },
    routes(app, ctx) { app.get('/:service', ({ params }) => (ctx.services.get((params as { service: string }).service as never) as () => Promise<string>)()); },
  });`;

interface Fleet extends TestKernel { rewrite(name: string, spec: Spec): Promise<void> }

/** A kernel with these plugins, of which it enables some. */
async function boot(t: Test, specs: Readonly<Record<string, Spec>>, enabled = Object.keys(specs)): Promise<Fleet> {
  const folder = await mkdtemp(join(tmpdir(), 'bulkhead-fleet-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const rewrite = async (name: string, spec: Spec): Promise<void> => {
    await mkdir(join(folder, name), { recursive: true });
    await writeFile(join(folder, name, 'plugin.ts'), source(name, spec));
  };
  for (const [name, spec] of Object.entries(specs)) await rewrite(name, spec);
  return { ...(await startTestKernel(t, { PLUGINS_ENABLED: enabled.join(','), PLUGINS_DIR: folder })), rewrite };
}

const startOf = (kernel: TestKernel, name: string): { initialized: number; running: number } => {
  const at = (to: string): number => kernel.logLines.findIndex((line) => line['plugin'] === name && line['to'] === to);
  const [initialized, running] = [at('initialized'), at('running')];
  if (initialized < 0 || running < 0) throw new Error(`${name} has not come so far`);
  return { initialized, running };
};

t.test('plugins start in levels: each when those that it needs run', async (t) => {
  const kernel = await boot(t, {
    top: { requires: ['left.ask', 'right.ask'], init: `ctx.log.info('top heard ' + await ask('left.ask') + await ask('right.ask'));` },
    left: { requires: ['base.ask'] },
    right: { requires: ['base.ask'], optional: ['extra.ask'], init: `ctx.log.info('right heard ' + await ask('extra.ask'));` },
    extra: { init: 'await new Promise((resolve) => setTimeout(resolve, 300));' },
    base: {},
  });
  for (const [later, earlier] of [['top', 'left'], ['top', 'right'], ['left', 'base'], ['right', 'base'], ['right', 'extra']] as const) {
    t.ok(startOf(kernel, later).initialized > startOf(kernel, earlier).running, `${later} is initialized when ${earlier} runs`);
  }
  t.ok(startOf(kernel, 'left').running < startOf(kernel, 'right').running, 'nobody waits for a slow one that he does not need');
  t.ok(kernel.logLines.some(({ msg }) => msg === 'top heard leftright'), 'and its `init` can call them');
  t.ok(kernel.logLines.some(({ msg }) => msg === 'right heard extra'), 'also what is optional, when it is on its way');

  await kernel.stop();
  const stopOf = (name: string): number => kernel.logLines.findIndex((line) => line['plugin'] === name && line['to'] === 'stopped');
  for (const [earlier, later] of [['top', 'left'], ['top', 'right'], ['left', 'base'], ['right', 'base'], ['right', 'extra']] as const) t.ok(stopOf(earlier) >= 0 && stopOf(earlier) < stopOf(later), `${earlier} stops before ${later}`);
});

t.test('a circle is refused with its path, and those outside of it start', async (t) => {
  const kernel = await boot(t, {
    hen: { requires: ['egg.ask'] }, egg: { requires: ['nest.ask'] }, nest: { requires: ['hen.ask'] },
    farm: {}, cook: { optional: ['waiter.ask'] }, waiter: { optional: ['cook.ask'] }, self: { optional: ['self.ask'] },
  });
  const { status, error } = await kernel.status('hen');
  t.equal(status, 'quarantined');
  t.match(error, /hen \(egg\.ask\) -> egg \(nest\.ask\) -> nest \(hen\.ask\) -> hen\. Make one of these services `optional`/);
  for (const name of ['farm', 'cook', 'waiter', 'self']) t.equal((await kernel.status(name)).status, 'running', name);
  t.strictSame((await kernel.get('/plugins/cook/waiter.ask')).text, 'waiter', 'what is optional may go in circles');
  t.equal((await kernel.get('/plugins/self/self.ask')).text, 'self');
  const answer = await kernel.verb('start', 'egg');
  t.match([answer.status, answer.json.code], [409, 'DEPENDENCY_CYCLE']);

  await kernel.rewrite('egg', {});
  t.equal((await kernel.verb('start', 'egg')).status, 200);
  await kernel.until('hen', 'running');
  await kernel.until('nest', 'running'); // the others come by themselves when it is broken
});

t.test('who needs what nobody provides is refused, and wakes when somebody does', async (t) => {
  const kernel = await boot(t, { hungry: { requires: ['baker.ask', 'brewer.ask'] }, baker: { requires: ['miller.ask'] }, miller: {}, brewer: {} }, ['hungry', 'brewer']);
  const { status, error } = await kernel.status('hungry');
  t.equal(status, 'quarantined');
  t.match(error, /"baker\.ask", which no loaded plugin provides/);
  t.notMatch(error, /brewer/, 'what is there is not named');

  const refused = await kernel.verb('load', 'baker');
  t.match([refused.status, refused.json.code], [409, 'DEPENDENCY_MISSING'], 'an operator hears it at once');
  t.equal((await kernel.verb('load', 'miller')).status, 200);
  t.match((await kernel.verb('start', 'baker')).json.message, /"miller\.ask", whose plugin "miller" is not running/);
  t.equal((await kernel.verb('start', 'miller')).status, 200);
  await kernel.until('baker', 'running');
  await kernel.until('hungry', 'running');
  t.equal((await kernel.get('/plugins/hungry/baker.ask')).text, 'baker', 'one has woken the other');
});

t.test('a provider that goes down leaves who requires it degraded, and nobody dead', async (t) => {
  const kernel = await boot(t, { user: { requires: ['maker.ask'] }, maker: {} });
  const { generation } = await kernel.status('user');
  t.strictSame((await kernel.status('user')).degraded, []);
  await kernel.verb('stop', 'maker');
  t.match(await kernel.status('user'), { status: 'running', degraded: ['maker.ask'] });
  t.match((await kernel.get('/health')).json, { status: 'ok', degraded: [{ plugin: 'user', missing: ['maker.ask'] }] });
  t.equal((await kernel.get('/plugins/user/maker.ask')).status, 503);
  t.equal((await kernel.verb('restart', 'user')).status, 200, 'a restart brings it back as it was');
  t.match(await kernel.status('user'), { status: 'running', degraded: ['maker.ask'] });
  await kernel.verb('start', 'maker');
  t.notOk('degraded' in (await kernel.get('/health')).json);
  t.equal((await kernel.get('/plugins/user/maker.ask')).text, 'maker', 'its handle works again');
  t.equal((await kernel.status('user')).generation, generation + 1, 'in the same worker');
});

t.test('a contract that would break a running plugin is refused unless forced, and the old one goes on', async (t) => {
  const asks = (args: string, result: string, more = ''): string => `{ 'shop.price': { of: method({ args: [Type.Object({ ${args} })], result: Type.Object({ ${result} }) }, () => ({ price: 1, currency: 'EUR' })), ${more} } }`;
  const kernel = await boot(t, { buyer: { optional: ['shop.price'] }, shop: { services: asks('name: Type.String()', 'price: Type.Number(), currency: Type.String()', 'list: () => []') } });
  const { generation } = await kernel.status('shop');
  const refused = async (services: string, ...reasons: RegExp[]): Promise<void> => {
    await kernel.rewrite('shop', { services, version: '2.0.0' });
    const answer = await kernel.verb('restart', 'shop');
    t.match([answer.status, answer.json.code], [409, 'PLUGIN_CONFLICT']);
    for (const reason of [/would break "buyer", which uses the service "shop\.price"/, ...reasons, /force=true/]) t.match(answer.json.message, reason);
    t.match(await kernel.status('shop'), { status: 'running', version: '1.0.0', generation }, 'nothing has changed');
  };
  await refused(asks('name: Type.String(), size: Type.Integer()', 'price: Type.Number(), currency: Type.String()', 'list: () => []'), /of: .*size/);
  await refused(asks('name: Type.String()', 'price: Type.Number()', 'list: () => []'), /of: .*currency/);
  await refused(asks('name: Type.String()', 'price: Type.Number(), currency: Type.String()'), /list/);
  await refused(`{ 'shop.other': () => 1 }`, /shop\.price/);

  await kernel.rewrite('shop', { services: asks('name: Type.String(), size: Type.Optional(Type.Integer())', 'price: Type.Number(), currency: Type.String(), stock: Type.Integer()', 'list: () => [], more: () => 1'), version: '2.0.0' });
  t.equal((await kernel.verb('restart', 'shop')).status, 200, 'what only adds breaks nobody');
  t.match(await kernel.status('shop'), { version: '2.0.0' });

  await kernel.rewrite('shop', { services: `{ 'shop.other': () => 1 }`, version: '3.0.0' });
  t.equal((await kernel.verb('restart', 'shop')).status, 409);
  t.equal((await kernel.request('POST', '/plugins/restart/shop?force=true')).status, 200, 'the operator may insist');
  t.match(await kernel.status('shop'), { version: '3.0.0', services: ['shop.other'] });
  await kernel.rewrite('shop', { services: asks('name: Type.String()', 'price: Type.Number()'), version: '4.0.0' });
  await kernel.verb('stop', 'buyer');
  t.equal((await kernel.verb('restart', 'shop')).status, 200, 'who does not run cannot be broken');
});

t.test('a worker that dies while its restart is prepared does not take the restart along', async (t) => {
  const kernel = await boot(t, { brittle: { init: `setTimeout(() => process.exit(1), 1_500);` } });
  await kernel.rewrite('brittle', { version: '2.0.0', services: `(await new Promise((resolve) => setTimeout(resolve, 2_000)), { 'brittle.ask': async () => 'mended' })` });
  const answer = await kernel.verb('restart', 'brittle');
  t.equal(answer.status, 200, answer.text);
  t.match(await kernel.status('brittle'), { status: 'running', version: '2.0.0', deaths: [{ cause: 'it called process.exit(1)' }] });
});

t.test('code that cannot be loaded leaves the plugin that is to be restarted with it running', async (t) => {
  const kernel = await boot(t, { steady: {} });
  await kernel.rewrite('steady', { services: '{ not code' });
  const answer = await kernel.verb('restart', 'steady');
  t.match([answer.status, answer.json.code], [422, 'PLUGIN_LOAD_FAILED']);
  t.match(await kernel.status('steady'), { status: 'running', generation: 1 });
  t.strictSame((await kernel.kernel.supervisor.census()).services, 1);
  await kernel.rewrite('steady', { version: '1.1.0' });
  t.equal((await kernel.verb('restart', 'steady')).status, 200);
  t.match(await kernel.status('steady'), { status: 'running', version: '1.1.0' });
});
