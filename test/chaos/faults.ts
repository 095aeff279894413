// Throws faults at the fragile plugins while others use them. Must not know what the others hear.
import { setTimeout as delay } from 'node:timers/promises';
import { FRAGILE } from './acts.js';
import type { Chronicle, Life } from './chronicle.js';
import { Connection, type Reply } from './connection.js';
import { FAULTS, type Fault } from './fragile.js';
import { codeOf } from './oracle.js';
import type { Random } from './random.js';
import type { Report } from './report.js';

/** A second death hits few requests of the first one when the plugin is back before. */
const GAP_MS = { min: 700, max: 2_200 };
/** Those that end the worker before it begins another request: their replay can wait until the innocent are through. */
const IMMEDIATE: readonly Fault[] = ['exit', 'loop'];
const ANSWERS_TO_POISON = /^(502 PLUGIN_CRASHED|504 PLUGIN_UNRESPONSIVE|500 REQUEST_REFUSED)$/;
const ANSWERS_WHILE_AWAY = /^(503 PLUGIN_NOT_RUNNING|503 PLUGIN_QUARANTINED|404 PLUGIN_NOT_LOADED)$/;

export interface FaultsOptions {
  readonly url: string;
  readonly random: Random;
  readonly chronicle: Chronicle;
  readonly report: Report;
}

export async function injectFaultsUntil(end: number, options: FaultsOptions): Promise<void> {
  const { random, report } = options;
  const open: Promise<void>[] = [];
  for (let count = 1; ; count += 1) {
    const [gapMs, plugin, fault] = [random.whole(GAP_MS.min, GAP_MS.max), random.pick(FRAGILE), random.pick(FAULTS)];
    // A GET comes back and kills again. One that does so with a delay takes those along that were replayed with it: allowed, but no use if it is the rule.
    const method = random.chance(IMMEDIATE.includes(fault) ? 0.4 : 0.1) ? 'GET' : 'POST';
    const later = random.chance(0.3);
    const laterMs = random.whole(0, 60);
    if (performance.now() + gapMs >= end) break;
    await delay(gapMs);
    const base = `/plugins/${plugin}`;
    const n = `${report.seed}-${count}`;
    open.push(later ? inject(options, plugin, `${fault} later`, 'POST', `${base}/later/${fault}?ms=${laterMs}&n=${n}`, /^200$/) : inject(options, plugin, `${fault} by ${method}`, method, `${base}/poison/${fault}?n=${n}`, ANSWERS_TO_POISON));
  }
  await Promise.all(open);
}

/** Poison has exactly one answer, too. */
async function inject({ url, chronicle, report }: FaultsOptions, plugin: string, name: string, method: string, path: string, expected: RegExp): Promise<void> {
  report.fault(name);
  const connection = new Connection(url, (bytes) => report.violation(`an answer to no request after ${method} ${path}: ${JSON.stringify(bytes)}`, [plugin]));
  const from = performance.now();
  const reply = await connection.ask({ method, path });
  const life: Life = { from, to: performance.now() };
  const outcome = reply.end !== 'whole' ? reply.end : reply.status === 200 ? '200' : `${reply.status} ${codeOf(reply)}`;
  if (!expected.test(outcome) && !isForgiven(outcome, reply, chronicle, plugin, life)) report.violation(`the fault ${method} ${path} had ${outcome}`, [plugin], life);
  // Until here an answer too many would have come on this connection.
  await delay(100);
  connection.close();
}

function isForgiven(outcome: string, { end }: Reply, chronicle: Chronicle, plugin: string, life: Life): boolean {
  if (end !== 'whole') return false;
  return ANSWERS_WHILE_AWAY.test(outcome) ? chronicle.wasClosed(plugin, life) : ANSWERS_TO_POISON.test(outcome) && chronicle.deaths(plugin, life) > 0;
}
