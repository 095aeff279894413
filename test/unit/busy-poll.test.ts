// When a thread stays awake for an answer, and when it leaves its core to others.
import { availableParallelism } from 'node:os';
import t from 'tap';
import { BusyPoll } from '../../protocol/busy-poll.js';

/** A turn of an idle event loop, and more than the longest wait, in milliseconds. */
const TURN_MS = 0.005;
const LONG_MS = 1;

function setup() {
  let now = 1_000;
  let turn: (() => void) | null = null;
  const poll = new BusyPoll(() => now, (next) => (turn = next));
  const turns = (ms = TURN_MS): number => {
    let count = 0;
    for (; turn !== null; count += 1) {
      const due: () => void = turn;
      turn = null;
      now += ms;
      due();
    }
    return count;
  };
  /** Returns how often it polled. */
  const answered = (afterMs: number): number => {
    poll.sent();
    now += afterMs;
    poll.received();
    return turns();
  };
  return { poll, turns, answered, polls: () => turn !== null, pass: (ms: number) => void (now += ms), soon: () => { for (let i = 0; i < 32; i += 1) answered(0.05); } };
}

t.test('polling', { skip: availableParallelism() === 1 && 'one core has no place for it' }, async (t) => {
  await t.test('begins when answers have come soon for a while, and ends when one does not come', async (t) => {
    const { poll, turns, soon } = setup();
    poll.sent();
    t.equal(turns(), 0, 'not at first');
    soon();
    poll.sent();
    const count = turns();
    t.ok(count > 10 && count < 100, `after ${count} turns it sleeps`);
  });

  await t.test('ends with the answer', async (t) => {
    const { poll, turns, soon } = setup();
    soon();
    poll.sent();
    poll.received();
    t.equal(turns(), 1, 'the turn that was due finds nothing to wait for');
  });

  await t.test('is given up where answers take long', async (t) => {
    const { poll, turns, soon, answered } = setup();
    soon();
    for (let i = 0; i < 32; i += 1) answered(LONG_MS);
    poll.sent();
    t.equal(turns(), 0);
  });

  await t.test('stands back from a core that others want, each time for longer', async (t) => {
    const { poll, turns, pass, polls, soon } = setup();
    soon();
    poll.sent();
    const rests: number[] = [];
    for (let i = 0; i < 3; i += 1) {
      t.equal(turns(LONG_MS), 1, 'one turn that took long is enough');
      let rest = 0;
      for (; rest < 1_000 && !polls(); rest += 1) {
        pass(1);
        poll.sent();
      }
      rests.push(rest);
    }
    t.ok(rests[0]! >= 1 && rests[1]! > rests[0]! && rests[2]! > rests[1]!, `it rested for ${rests.join(', ')} ms`);
  });
});
