// Who gives a connection back when another plugin waits for one, and who makes do with what he has.
import t from 'tap';
import { Borrowers, type Borrower } from '../../kernel/database/borrowers.js';

class Plugin implements Borrower {
  readonly plugin: string;
  held: number;
  calledIn = 0;
  #waiting = 0;

  constructor(borrowers: Borrowers, plugin: string, held: number) {
    this.plugin = plugin;
    this.held = held;
    borrowers.enter(this);
  }

  get claims(): number {
    return this.held + this.calledIn + this.#waiting;
  }

  waits(borrowers: Borrowers): () => void {
    this.#waiting += 1;
    return borrowers.wait(this);
  }

  callIn(): void {
    this.held -= 1;
    this.calledIn += 1;
  }
}

t.test('whoever has the most gives one back', async (t) => {
  const borrowers = new Borrowers();
  const [poor, middle, rich] = [new Plugin(borrowers, 'poor', 0), new Plugin(borrowers, 'middle', 2), new Plugin(borrowers, 'rich', 4)];
  t.ok(borrowers.mayWait(poor));
  const served = poor.waits(borrowers);
  t.ok(borrowers.crowded);
  t.strictSame([poor, middle, rich].map(({ calledIn }) => calledIn), [0, 0, 1]);
  borrowers.remind();
  t.strictSame([middle, rich].map(({ calledIn }) => calledIn), [0, 2], 'and another one, when that takes long');
  served();
  borrowers.remind();
  t.notOk(borrowers.crowded);
  t.strictSame([middle, rich].map(({ calledIn }) => calledIn), [0, 2], 'but none when nobody waits any more');
});

t.test('who has as many as the others, or one less, makes do with them', async (t) => {
  const borrowers = new Borrowers();
  const [one, other] = [new Plugin(borrowers, 'one', 3), new Plugin(borrowers, 'other', 4)];
  t.notOk(borrowers.mayWait(one));
  t.notOk(borrowers.mayWait(other));
  const alone = new Borrowers();
  t.notOk(alone.mayWait(new Plugin(alone, 'alone', 2)), 'also who is alone');
  one.held = 2;
  t.ok(borrowers.mayWait(one), 'who has two less gets one');
  one.waits(borrowers);
  t.notOk(borrowers.mayWait(one), 'but not two at a time');
});

t.test('nobody is called in for one who has as many', async (t) => {
  const borrowers = new Borrowers();
  const [one, other] = [new Plugin(borrowers, 'one', 1), new Plugin(borrowers, 'other', 1)];
  one.waits(borrowers);
  t.equal(other.calledIn, 0);
});

t.test('what counts is what all workers of a plugin have', async (t) => {
  const borrowers = new Borrowers();
  const workers = [3, 1, 2].map((held) => new Plugin(borrowers, 'many', held));
  const single = new Plugin(borrowers, 'single', 4);
  t.ok(borrowers.mayWait(single), 'six are more than one more than four');
  single.waits(borrowers);
  t.strictSame(workers.map(({ calledIn }) => calledIn), [1, 0, 0], 'the worker that has the most gives one back');
  t.notOk(borrowers.mayWait(workers[1]!), 'and who has one of six is not poor');
});

t.test('the kernel itself is served like a plugin that has none', async (t) => {
  const borrowers = new Borrowers();
  const only = new Plugin(borrowers, 'only', 1);
  borrowers.wait();
  t.equal(only.calledIn, 1);
  borrowers.leave(only);
  borrowers.remind();
  t.equal(only.calledIn, 1, 'who has left is not asked');
});
