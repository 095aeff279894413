// The table of what is under way.
import t from 'tap';
import { InFlightTable } from '../../protocol/in-flight.js';

t.test('entries are found until they are deleted, and listed oldest first', async (t) => {
  const table = new InFlightTable<string>();
  for (let id = 1; id <= 5; id += 1) table.add(id, `request ${id}`);
  table.delete(2);
  table.delete(2);
  t.equal(table.get(2), undefined);
  t.equal(table.get(3), 'request 3');
  t.equal(table.size, 4);
  t.strictSame([...table.values()], ['request 1', 'request 3', 'request 4', 'request 5']);
});

t.test('a long-lived entry survives any number of newer ones', async (t) => {
  const table = new InFlightTable<number>();
  for (let id = 1; id <= 10_000; id += 1) {
    table.add(id, id);
    if (id > 3 && id !== 5_000) table.delete(id);
  }
  t.strictSame([...table.values()], [1, 2, 3, 5_000]);
  t.equal(table.size, 4);
  table.delete(2);
  table.delete(5_000);
  t.equal(table.get(2), undefined);
  t.strictSame([...table.values()], [1, 3]);
  t.equal(table.get(10_000), undefined);
});

t.test('ids that nobody gave out find nothing', async (t) => {
  const table = new InFlightTable<string>();
  table.add(1, 'request 1');
  for (const id of [0, -1, 2, 1_025, -1_023, 1.5, NaN, Infinity, '1', 1n, null, {}]) t.equal(table.get(id as number), undefined);
  table.delete(0);
  t.equal(table.size, 1);
});
