// Tasks: what is given up together, and who belongs to which.
import { AsyncResource } from 'node:async_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { GivenUpError, isGivenUp, Task, Tasks } from '../../kernel/host/task.js';

t.test('a cancelled task gives up what is going on, once, and nothing else', async (t) => {
  const task = new Task(Infinity);
  const errors: Error[] = [];
  task.onCancel((error) => errors.push(error));
  const takeBack = task.onCancel(() => t.fail('this was over before'));
  takeBack();
  task.onCancel((error) => errors.push(error));
  task.cancel('the ship sank');
  task.cancel('and once more');
  t.equal(errors.length, 2);
  t.not(errors[0], errors[1], 'each has an error of its own, whose stack may be its own');
  for (const error of errors) t.match(error, { name: 'AbortError', code: 'ABORT_ERR', statusCode: 503, message: 'the ship sank' });
  task.onCancel(() => t.fail('this began after the end and cleans up'));
  task.cancel('again');
});

t.test('there are no tasks before there is anything to give up', async (t) => {
  const tasks = new Tasks();
  const callback = (): void => {};
  t.equal(tasks.begin(1_000), null);
  t.equal(tasks.bind(callback), callback, 'and nothing is wrapped');
  t.equal(tasks.run(null, (a: number, b: number) => a + b, 1, 2), 3);
  tasks.track();
  t.ok(tasks.begin(1_000) instanceof Task);
});

t.test('a task is that of who asks', async (t) => {
  const tasks = new Tasks();
  tasks.track();
  const [one, other] = [tasks.begin(1_000)!, tasks.begin(1_000)!];
  const outside = new AsyncResource('shared by all');
  let call = (): void => {};
  await Promise.all([
    tasks.run(one, async () => {
      await delay(5);
      t.equal(tasks.current, one, 'after an await');
      call = tasks.bind(() => t.equal(tasks.current, one, 'in a callback that was bound, whoever calls'));
      await new Promise((resolve) => setImmediate(resolve));
      t.equal(tasks.current, one);
      t.equal(outside.runInAsyncScope(() => tasks.current), undefined, 'and not where the way out was taken');
    }),
    tasks.run(other, async () => {
      await delay(10);
      t.equal(tasks.current, other);
      call();
      t.equal(tasks.current, other);
    }),
  ]);
  t.equal(tasks.current, undefined, 'outside of all there is none');
  t.not(one, other);
});

t.test('an error that came of it is known as such', async (t) => {
  t.ok(isGivenUp(new GivenUpError('x')));
  t.ok(isGivenUp(new Error('a library\'s', { cause: new GivenUpError('x') })));
  for (const other of [new Error('x'), new DOMException('x', 'AbortError'), null, undefined, 'text', new Proxy({}, { getPrototypeOf() { throw new Error('no'); } })]) t.notOk(isGivenUp(other));
});
