// The heart of a host beats slowly when it has no work, and at once when some comes.
import t from 'tap';
import { Heartbeat } from '../../kernel/host/heartbeat.js';
import { HEARTBEAT_INTERVAL_MS, HEARTBEAT_REST_INTERVAL_MS, HEARTBEATS_BEFORE_REST_MAX, RESTING_WORK_MAX_MS } from '../../protocol/limits.js';
import { StatusBlock } from '../../protocol/status-block.js';

t.test('beats slowly when no frame has come for a while', async (t) => {
  let paceMs = 0;
  let tick = (): void => void t.fail('it beats');
  t.intercept(globalThis, 'setInterval', { value: (callback: () => void, ms: number) => {
    [tick, paceMs] = [callback, ms];
    return { unref: () => ({}) };
  } });
  t.intercept(globalThis, 'clearInterval', { value: () => {} });
  const status = new StatusBlock();
  let worked = 0;
  const heartbeat = new Heartbeat(status, () => worked);
  heartbeat.start();
  const beat = (times: number): number => {
    for (let i = 0; i < times; i += 1) tick();
    return paceMs;
  };

  t.equal(beat(HEARTBEATS_BEFORE_REST_MAX - 1), HEARTBEAT_INTERVAL_MS);
  heartbeat.stir();
  t.equal(beat(HEARTBEATS_BEFORE_REST_MAX - 1), HEARTBEAT_INTERVAL_MS, 'a frame counts from anew');
  t.equal(beat(1), HEARTBEAT_REST_INTERVAL_MS);
  t.equal(status.resting, true, 'and the kernel can see it');
  const before = status.heartbeat;
  t.equal(beat(20), HEARTBEAT_REST_INTERVAL_MS);
  t.equal(status.heartbeat, before + 20);
  t.ok(status.memory.heapUsed > 0);

  heartbeat.stir();
  t.equal(paceMs, HEARTBEAT_INTERVAL_MS, 'the next frame wakes it');
  t.equal(status.resting, false);
  t.equal(status.heartbeat, before + 21, 'at once');

  worked = RESTING_WORK_MAX_MS + 1;
  t.equal(beat(10 * HEARTBEATS_BEFORE_REST_MAX), HEARTBEAT_INTERVAL_MS, 'a thread that works without having been asked does not rest');
  worked = 0;
  t.equal(beat(HEARTBEATS_BEFORE_REST_MAX), HEARTBEAT_REST_INTERVAL_MS);
  worked = RESTING_WORK_MAX_MS + 1;
  t.equal(beat(1), HEARTBEAT_INTERVAL_MS, 'and is awake at the next beat when it begins to');
});
