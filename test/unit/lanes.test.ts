// The events of a durable subscription in memory: which one is next, and what has to wait for what.
import t from 'tap';
import type { WaitingEvent } from '../../kernel/database/event-store.js';
import { Lanes } from '../../kernel/services/lanes.js';
import { EVENTS_OF_KEY_IN_HAND_MAX } from '../../protocol/event-limits.js';

const event = (n: number, key: string | null = null): WaitingEvent => ({ event: String(n), key, topic: 't', publisher: 'p', payload: new Uint8Array(), at: 0, attempts: 0, dueInMs: 0 });
const filled = (...events: WaitingEvent[]): Lanes => {
  const lanes = new Lanes();
  for (const one of events) lanes.add(one);
  return lanes;
};
const take = (lanes: Lanes): string | null => {
  const next = lanes.next();
  if (next !== null) lanes.begin(next);
  return next?.event ?? null;
};

t.test('one of each key is under way at a time, those without a key all at once', async (t) => {
  const events = [event(1, 'a'), event(2, 'a'), event(3), event(4, 'b'), event(5)] as const;
  const lanes = filled(...events);
  t.strictSame([take(lanes), take(lanes), take(lanes), take(lanes), take(lanes)], ['1', '3', '4', '5', null]);
  lanes.end(events[0]);
  t.equal(take(lanes), '2', 'the next of a key when the one before is done with');
  t.equal(lanes.size, 4);
});

t.test('one that is put back is the next again', async (t) => {
  const first = event(1, 'a');
  const lanes = filled(first, event(2, 'a'));
  take(lanes);
  lanes.putBack(first);
  t.equal(take(lanes), '1');
});

t.test('one that is held holds up its key, which is looked for again when it is released', async (t) => {
  const [first, second, alone] = [event(1, 'a'), event(2, 'a'), event(3)];
  const lanes = filled(first, second, alone);
  take(lanes);
  lanes.hold(first);
  t.strictSame([take(lanes), take(lanes)], ['3', null]);
  lanes.hold(alone);
  t.strictSame([lanes.size, lanes.held, lanes.except], [0, 2, { events: ['1', '3'], keys: ['a'] }]);
  lanes.add(second);
  t.equal(lanes.next(), null, 'and cannot be added meanwhile');
  lanes.release(first);
  lanes.add(first);
  lanes.add(second);
  t.equal(take(lanes), '1');
});

t.test('a key has so much room, and what did not fit is looked for when half of it is free', async (t) => {
  const events = Array.from({ length: EVENTS_OF_KEY_IN_HAND_MAX + 2 }, (_, i) => event(i, 'a'));
  const lanes = filled(...events);
  t.equal(lanes.size, EVENTS_OF_KEY_IN_HAND_MAX);
  t.strictSame(lanes.except.keys, ['a']);
  const more: boolean[] = [];
  for (const one of events.slice(0, EVENTS_OF_KEY_IN_HAND_MAX)) {
    take(lanes);
    more.push(lanes.end(one));
    if (!more.includes(true)) {
      lanes.add(events.at(-1)!);
      t.notOk(lanes.except.events.includes(events.at(-1)!.event), 'none overtakes another that did not fit');
    }
  }
  t.strictSame(more.map((yes, i) => (yes ? i : -1)).filter((i) => i >= 0), [EVENTS_OF_KEY_IN_HAND_MAX / 2 - 1], 'once');
  t.equal(lanes.size, 0);
});

t.test('clearing leaves what is under way', async (t) => {
  const events = [event(1, 'a'), event(2, 'a'), event(3, 'b')] as const;
  const lanes = filled(...events);
  take(lanes);
  lanes.clear();
  t.strictSame([lanes.size, lanes.except.events, lanes.next()], [1, ['1'], null]);
  lanes.add(events[1]);
  t.equal(lanes.size, 1, 'what follows it is fetched again when it is done with');
  t.ok(lanes.end(events[0]));
});
