// Faults at random under mixed load: whatever happens to plugins, every request has its answer and every answer is true.
import t from 'tap';
import { Simulation } from '../chaos/simulation.js';

const DURATION_MS = 12_000;
/** `CHAOS_SEED=N` repeats the decisions of an earlier run. */
const SEED = Number(process.env['CHAOS_SEED'] ?? Date.now() % 1_000_000);

t.test('faults at random break no promise', async (t) => {
  t.comment(`seed ${SEED}; repeat with CHAOS_SEED=${SEED}, run longer with npm run chaos -- --minutes 10 --seed ${SEED}`);
  const simulation = await Simulation.start(t);
  const report = await simulation.round(SEED, DURATION_MS);
  t.comment(String(report));
  t.strictSame(report.violations, [], `seed ${SEED}: each of ${report.requests} answers was as promised, and all is as it was`);
  t.ok(report.requests >= 200 && report.deaths >= 2 && report.survivors >= 1, 'there were requests, deaths and requests that survived one, for this to mean something');
  t.ok(report.idempotent.lost * 5 < report.idempotent.sent, 'and few idempotent requests were lost, whatever can be forgiven');
});
