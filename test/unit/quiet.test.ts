// A worker that has come to rest collects its garbage, once, and one that is busy does not.
import t from 'tap';
import { collectWhenQuiet } from '../../kernel/host/quiet.js';
import { QUIET_HEAP_MAX_BYTES, QUIET_LOOKS_MAX, QUIET_LOOK_INTERVAL_MS } from '../../protocol/limits.js';
import { StatusBlock } from '../../protocol/status-block.js';

t.test('collects once after each time of work', async (t) => {
  let collections = 0;
  let look = (): void => void t.fail('it looks');
  t.intercept(globalThis, 'setInterval', { value: (callback: () => void, ms: number) => {
    t.equal(ms, QUIET_LOOK_INTERVAL_MS);
    look = callback;
    return { unref() {} };
  } });
  const status = new StatusBlock();
  const disturb = collectWhenQuiet(status, () => (collections += 1));
  const lookTimes = (times: number): number => {
    for (let i = 0; i < times; i += 1) look();
    return collections;
  };

  t.equal(lookTimes(QUIET_LOOKS_MAX - 1), 0, 'not right after its boot');
  disturb();
  t.equal(lookTimes(QUIET_LOOKS_MAX - 1), 0, 'nor after its plugin has come');
  t.equal(lookTimes(1), 1);
  t.equal(lookTimes(10), 1, 'once');
  for (let request = 1; request <= 10; request += 1) {
    status.lastRequest = request;
    lookTimes(1);
  }
  t.equal(collections, 1, 'not while requests come');
  t.equal(lookTimes(10), 2, 'but after them');
  status.memory = { heapUsed: QUIET_HEAP_MAX_BYTES + 1, external: 0, arrayBuffers: 0 };
  disturb();
  t.equal(lookTimes(10), 2, 'and never a heap that would take long');
});

t.test('does nothing where there is no way to collect', async (t) => {
  t.intercept(globalThis, 'setInterval', { value: () => t.fail('it looks') });
  collectWhenQuiet(new StatusBlock(), null)();
  t.pass('it has not looked');
});
