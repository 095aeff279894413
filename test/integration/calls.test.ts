// Service calls in full: contracts, deadlines, streams, repeats after a death, buffers that move, and what nobody may call.
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { eventually, startTestKernel } from '../helpers/kernel.js';

t.test('calls', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'mill,miller', PLUGIN_MILLER_GRAIN: 'oats', STANDBY_WORKERS: '1' });
  const ask = async (way: string): Promise<any> => (await kernel.request('POST', `/plugins/miller/${encodeURIComponent(way)}`)).json;
  const seen = async (): Promise<Record<string, number>> => (await ask('seen')).value as Record<string, number>;
  const back = (after: number) => eventually('the mill is back', 10_000, async () => {
    const { status, generation } = await kernel.status('mill');
    return status === 'running' && generation > after ? generation : undefined;
  });

  t.test('a contract checks arguments before the method and results after it', async (t) => {
    t.strictSame(await ask('grind'), { value: '3 of wheat' });
    t.strictSame(await ask('grind without'), { value: '3 of rye' }, 'what is optional may be left out');
    t.match(await ask('grind wrong'), { code: 'SERVICE_ARGUMENTS_INVALID', message: /mill\.wheel\.grind.*argument 1 is wrong/ });
    t.match(await ask('grind too much'), { code: 'SERVICE_ARGUMENTS_INVALID', message: /3 were given, and it takes 2/ });
    t.match(await ask('cheat'), { code: 'SERVICE_RESULT_INVALID', message: /mill\.wheel\.cheat/ });
  });

  t.test('a call has no longer than the request that makes it', async (t) => {
    const began = performance.now();
    const { status } = await kernel.request('POST', '/plugins/miller/never');
    t.equal(status, 504);
    t.ok(performance.now() - began < 6_500, 'and ends with it');
  });

  t.test('an AbortSignal ends the call on both sides', async (t) => {
    t.match(await ask('aborted'), { name: 'TimeoutError' }, 'with its own reason');
    await eventually('the provider has heard of it', 2_000, async () => ((await seen())['aborted'] === 1 ? true : undefined));
    const { begun } = await seen();
    t.match(await ask('aborted before'), { name: 'AbortError' });
    t.equal((await seen())['begun'], begun, 'and one that was aborted before makes no call');
  });

  t.test('a buffer is moved and not copied, there and back', async (t) => {
    t.strictSame(await ask('moved'), { value: { left: 0, back: 1_000, first: 7 } });
  });

  t.test('a stream gives its values in order, with or without awaiting it first', async (t) => {
    t.strictSame(await ask('stream'), { value: 499_500 });
    t.strictSame(await ask('stream awaited'), { value: [0, 1, 2] });
    t.strictSame(await ask('stream spoilt'), { value: [['good'], 'WEEVILS'] }, 'until its error');
  });

  t.test('who leaves a stream ends its generator, and who does not read it lets it rest', async (t) => {
    const { closed } = await seen();
    t.strictSame(await ask('stream left'), { value: 'enough' });
    await eventually('the generator is closed', 2_000, async () => ((await seen())['closed'] === closed! + 1 ? true : undefined));
    const { produced } = await seen();
    const { value } = await ask('stream unread');
    t.ok(value - produced! <= 65, `only ${value - produced!} values were made ahead`);
    await eventually('that one is closed as well', 2_000, async () => ((await seen())['closed'] === closed! + 2 ? true : undefined));
  });

  t.test('what the plugin has not declared it may not use', async (t) => {
    t.match(await ask('forbidden'), { code: 'SERVICE_FORBIDDEN', message: /"miller" does not declare the service "provider\.double"/ });
  });

  t.test('the kernel has services of its own for everybody', async (t) => {
    const { value } = await ask('own');
    t.match(value, { grain: 'oats', heap: true, callsMade: 0 });
    t.ok(value.remaining > 3_000 && value.remaining <= 5_000, `the request has ${value.remaining} ms left`);
    t.ok(Math.abs(value.distance - value.remaining) < 50);
    t.match(kernel.logLines.find(({ msg }) => msg === 'the wheel turns'), { plugin: 'miller', turns: 3, level: 'warn' });
  });

  t.test('a provider that dies: what may be repeated is, what may not is refused at once', async (t) => {
    const { generation } = await kernel.status('mill');
    const [repeated, once] = [ask('slow'), ask('once')];
    await delay(100);
    await ask('die');
    t.match(await once, { code: 'SERVICE_UNAVAILABLE', message: /went away during the call/ });
    t.match(await repeated, { value: process.pid }, 'by the next generation');
    await back(generation);
  });

  t.test('a stream that has begun ends with an error when its provider dies', async (t) => {
    const { generation } = await kernel.status('mill');
    t.match(await ask('stream cut'), { code: 'SERVICE_UNAVAILABLE' });
    await back(generation);
  });

  t.test('a call that has killed its provider three times is not tried again', async (t) => {
    await kernel.verb('restart', 'mill'); // what it has died of before is forgiven
    const { deaths } = await kernel.status('mill');
    t.match(await ask('die again'), { code: 'SERVICE_UNAVAILABLE' });
    const { generation } = await eventually('three generations have died', 2_000, async () => {
      const details = await kernel.status('mill');
      return details.deaths.length === deaths.length + 3 ? details : undefined;
    });
    await back(generation);
    t.equal((await kernel.status('mill')).deaths.length, deaths.length + 3, 'and no more');
  });

  t.test('restarts of the provider under load fail no call, whether it may be repeated or not', async (t) => {
    const [load, strict] = (['slow', 'once'] as const).map((method) => kernel.request('POST', `/plugins/miller/load/${method}?ms=2500`));
    for (let i = 0; i < 4; i += 1) {
      t.equal((await kernel.verb('restart', 'mill')).status, 200);
      await delay(100);
    }
    for (const { json } of await Promise.all([load!, strict!])) {
      t.strictSame(json.failures, [], `${json.answered} calls were answered`);
      t.ok(json.answered > 100);
    }
  });

  t.test('a fallback stands in for a provider that is not there', async (t) => {
    t.strictSame(await ask('fallback'), { value: '1 of rye' }, 'and only then');
    await kernel.verb('stop', 'mill');
    t.strictSame(await ask('fallback'), { value: '1 by hand' });
    t.match(await ask('fallback lacks'), { name: 'TypeError', message: 'the fallback of the service "mill.wheel" has no method "cheat"' });
    t.match(await ask('grind'), { code: 'SERVICE_UNAVAILABLE' });
  });
});
