// `npm run chaos -- --minutes M --seed N`: rounds of the simulation until the time is over; exits with 1 when there was a violation. Must not know how a round works.
import { parseArgs } from 'node:util';
import { Simulation, type Owner } from './simulation.js';

const ROUND_MS = 20_000;
const { values } = parseArgs({ options: { minutes: { type: 'string', default: '1' }, seed: { type: 'string', default: String(Date.now() % 1_000_000) } } });
const [minutes, first] = [Number(values.minutes), Number(values.seed)];
if (!(minutes > 0) || !Number.isSafeInteger(first)) throw new Error('usage: npm run chaos -- --minutes <more than 0> --seed <a whole number>');

const teardowns: (() => unknown)[] = [];
const owner: Owner = { teardown: (undo: () => unknown) => void teardowns.push(undo) };
const say = (line: string): boolean => process.stdout.write(`${line}\n`);

say(`seed ${first}; the first seed of ${minutes} minutes`);
const end = performance.now() + minutes * 60_000;
let violations = 0;
try {
  const simulation = await Simulation.start(owner);
  // Each round is the seed after the last one's, so that a violation can be looked for without the rounds before it.
  for (let seed = first; performance.now() < end; seed += 1) {
    const report = await simulation.round(seed, Math.min(ROUND_MS, Math.max(5_000, end - performance.now())));
    violations += report.violations.length;
    say(`${String(report)}; ${(process.memoryUsage.rss() / 2 ** 20).toFixed(0)} MiB resident`);
    for (const violation of report.violations) say(`VIOLATION ${violation}`);
  }
} finally {
  for (const undo of teardowns.reverse()) await undo();
}
say(violations === 0 ? 'no violations' : `${violations} violations`);
process.exitCode = violations === 0 ? 0 : 1;
