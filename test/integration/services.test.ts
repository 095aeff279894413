// Services between plugins, and what they become when the other side goes away.
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { eventually, startTestKernel } from '../helpers/kernel.js';

t.test('services', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'provider,consumer' });
  const call = async (service: string, method?: string, ...args: unknown[]): Promise<any> =>
    (await kernel.request('POST', '/plugins/consumer/call', { service, ...(method !== undefined && { method }), args })).json;
  const workersBefore = { provider: (await kernel.status('provider')).generation, consumer: (await kernel.status('consumer')).generation };

  t.test('a function, an object\'s functions and a class\'s methods can be called', async (t) => {
    t.strictSame(await call('provider.double', undefined, 21), { value: 42 });
    t.strictSame(await call('provider.various', 'echo', 'a', { b: [1, null] }), { value: ['a', { b: [1, null] }] });
    t.strictSame(await call('provider.counter', 'add', 2), { value: 2 });
    t.strictSame(await call('provider.counter', 'later', 3), { value: 5 }, 'with their own state');
    t.strictSame((await kernel.status('provider')).services, ['provider.double', 'provider.counter', 'provider.various']);
  });

  t.test('many calls in one turn are answered each by its own', async (t) => {
    const calls = Array.from({ length: 600 }, (_, n) => ({ service: 'provider.double', args: [n] }));
    t.strictSame((await kernel.request('POST', '/plugins/consumer/calls', calls)).json, calls.map((_, n) => ({ value: 2 * n })));
  });

  t.test('what is no method cannot be called', async (t) => {
    for (const method of ['absent', 'notAFunction', 'constructor', 'toString', '__proto__', 'hasOwnProperty']) {
      t.match(await call('provider.counter', method), { name: 'TypeError', message: `the service has no method "${method}"` });
    }
    t.match(await call('provider.counter'), { message: 'the service is an object; call one of its methods' });
  });

  t.test('an error crosses over with its name, code and status', async (t) => {
    t.match(await call('provider.various', 'fail'), { isError: true, name: 'RangeError', message: 'out of rope', code: 'NO_ROPE', statusCode: 422 });
    t.match(await call('provider.various', 'failText'), { isError: true, message: 'just text' });
    const thrown = await kernel.request('POST', '/plugins/consumer/throwing', { service: 'provider.various', method: 'fail' });
    t.match([thrown.status, thrown.json], [422, { code: 'NO_ROPE', message: 'out of rope' }], 'so that a handler which does not catch it answers with it');
  });

  t.test('an error of Bulkhead\'s own is of the class that plugins import', async (t) => {
    const { status, json, headers } = await kernel.request('POST', '/plugins/consumer/full');
    t.match([status, json.code, headers.get('retry-after')], [503, 'PLUGIN_OVERLOADED', '7']);
  });

  t.test('an unknown service is told at the first call', async (t) => {
    t.match(await call('nobody.knows'), { code: 'SERVICE_UNKNOWN', statusCode: 500, message: /"nobody\.knows"/ });
    await kernel.writePlugin('newcomer', "export default { name: 'newcomer', version: '1.0.0', services: { 'nobody.knows': () => 'now it is known' } };");
    await kernel.verb('load', 'newcomer');
    t.match(await call('nobody.knows'), { code: 'SERVICE_UNAVAILABLE' }, 'is there but down while its plugin is only loaded');
    await kernel.verb('start', 'newcomer');
    t.strictSame(await call('nobody.knows'), { value: 'now it is known' }, 'and works as soon as somebody provides it');
  });

  t.test('what cannot be cloned is an error of that one call', async (t) => {
    t.match(await call('provider.various', 'uncloneable'), { isError: true, name: 'DataCloneError', message: /could not be cloned/ }, 'as a result');
    const { json } = await kernel.request('POST', '/plugins/consumer/calls', [
      { service: 'provider.double', args: [1] }, { service: 'provider.double', uncloneable: true }, { service: 'provider.double', args: [2] },
      { service: 'provider.various', method: 'uncloneable' }, { service: 'provider.various', method: 'uncloneable' }, { service: 'provider.various', method: 'echo', args: [3] },
    ]);
    t.match(json, [{ value: 2 }, { name: 'DataCloneError' }, { value: 4 }, { name: 'DataCloneError' }, { name: 'DataCloneError' }, { value: [3] }], 'as an argument or a result among others of the same turn');
    t.match((await kernel.request('POST', '/plugins/consumer/calls', [{ service: 'provider.double', uncloneable: true }])).json, [{ name: 'DataCloneError' }], 'as an argument alone');
    t.equal((await kernel.status('provider')).generation, workersBefore.provider, 'the provider lives');
    t.equal((await kernel.status('consumer')).generation, workersBefore.consumer, 'and so does the consumer');
  });

  t.test('a call to a stopped provider is refused at once, and works when it is back', async (t) => {
    await kernel.verb('stop', 'provider');
    const refused = await call('provider.double', undefined, 1);
    t.match(refused, { code: 'SERVICE_UNAVAILABLE', statusCode: 503, message: /"provider\.double"/ });
    t.ok(refused.ms < 1_000, `after ${Math.round(refused.ms)} ms`);
    await kernel.verb('start', 'provider');
    t.strictSame(await call('provider.double', undefined, 4), { value: 8 });
  });

  t.test('a provider that dies takes its pending calls with it at once, and the handle works again', async (t) => {
    const { generation } = await kernel.status('provider');
    const pending = Array.from({ length: 3 }, () => call('provider.various', 'slow', 8_000));
    await delay(100);
    const began = performance.now();
    t.match(await call('provider.various', 'die'), { code: 'SERVICE_UNAVAILABLE', message: /went away during the call/ });
    for (const answer of await Promise.all(pending)) t.match(answer, { code: 'SERVICE_UNAVAILABLE', statusCode: 503 });
    t.ok(performance.now() - began < 2_000, `within ${(performance.now() - began).toFixed(0)} ms, not at their deadline`);
    await eventually('it has come back', 10_000, async () => {
      const { status, generation: now } = await kernel.status('provider');
      return status === 'running' && now > generation ? true : undefined;
    });
    t.strictSame(await call('provider.various', 'echo', 'again'), { value: ['again'] });
  });

  t.test('a plugin that provides the name of another is refused, and hears of whom', async (t) => {
    await kernel.writePlugin('pirate', "export default { name: 'pirate', version: '1.0.0', services: { 'provider.double': () => 'arr' } };");
    const answer = await kernel.verb('load', 'pirate');
    t.match([answer.status, answer.json.message], [409, /service "provider\.double" is provided by plugin "provider" already/]);
    t.equal((await kernel.status('pirate')).status, 'failed', 'and it is not tried again');
    t.strictSame(await call('provider.double', undefined, 5), { value: 10 }, 'the owner keeps it');
  });

  t.test('what is no service is refused, all problems at once', async (t) => {
    await kernel.writePlugin('stutter', "export default { name: 'stutter', version: '1.0.0', requires: 'a', optional: [5], services: { '': () => 1, 'kernel.clock': () => 1, 's.text': 'text', 's.empty': {}, ['x'.repeat(129)]: () => 1 } };");
    const answer = await kernel.verb('load', 'stutter');
    t.equal(answer.status, 422);
    for (const problem of [/`requires` must be an array/, /`optional` has 5 where/, /names with kernel\. are the kernel's own/, /"s\.text" must be a function or an object/, /"s\.empty" has no methods/, /has the name ""/, /1 to 128 characters/]) t.match(answer.json.message, problem);
    await kernel.writePlugin('stammer', "export default { name: 'stammer', version: '1.0.0', services: () => 5 };");
    t.match((await kernel.verb('load', 'stammer')).json.message, /`services` must be an object/, 'also what a function returns');
  });
});

t.test('when the kernel stops, a plugin ends before those whose services it uses, whatever was loaded first', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: '' });
  // Each has a service and uses that of the one before it in the alphabet, for the last time when it stops.
  const source = (name: string, uses: string): string => `
    let context;
    const ask = async () => ('${uses}' === '' ? [] : context.services.get('${uses}.chain')());
    export default {
      name: '${name}', version: '1.0.0',
      optional: '${uses}' === '' ? [] : ['${uses}.chain'],
      services(ctx) { context = ctx; return { '${name}.chain': async () => ['${name}', ...await ask()] }; },
      routes(app) { app.get('/', ask); },
      async stop() { await new Promise((resolve) => setTimeout(resolve, 100)); context.log.info({ chain: await ask() }, 'goodbye'); },
    };`;
  for (const [name, uses] of [['c', 'b'], ['a', ''], ['b', 'a']] as const) {
    await kernel.writePlugin(name, source(name, uses));
    t.equal((await kernel.verb('load', name)).status, 200);
    t.equal((await kernel.verb('start', name)).status, 200);
  }
  t.strictSame((await kernel.get('/plugins/c')).json, ['b', 'a']);
  t.strictSame((await kernel.get('/plugins/b')).json, ['a']);
  await kernel.stop();
  t.strictSame(kernel.logLines.filter(({ msg }) => msg === 'goodbye').map(({ plugin, chain }) => [plugin, chain]), [['c', ['b', 'a']], ['b', ['a']], ['a', []]]);
});
