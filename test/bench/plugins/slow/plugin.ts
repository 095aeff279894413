// A neighbour that takes its time, for the benchmark of two plugins under load: by waiting, at the expense of a core, or with many rows of the database.
import { setTimeout as delay } from 'node:timers/promises';
import { definePlugin } from 'bulkhead/protocol';

const WAIT_MS = 100;
/** Turns of a loop of dependent multiplications that take about 5 ms on a core of 2020. */
const WORK_TURNS = 3_750_000;

const ROWS = "SELECT n AS id, 'item ' || n AS name, repeat('x', 50) AS description FROM generate_series(1, 200000) AS n";

export default definePlugin({
  name: 'slow',
  limits: { heapMb: 384, timeoutMs: 60_000 },
  version: '1.0.0',
  async routes(app, { db }) {
    app.get('/wait', () => delay(WAIT_MS, { waited: WAIT_MS }));
    app.get('/rows', async () => ({ rows: (await db.query(ROWS)).rowCount }));
    app.get('/work', async () => ({ result: work() }));
  },
});

function work(): number {
  let x = 1;
  for (let i = 0; i < WORK_TURNS; i += 1) x = (Math.imul(x, 1_664_525) + 1_013_904_223) | 0;
  return x;
}
