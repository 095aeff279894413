// What a round of the simulation has seen: counts, and every violation with what is needed to look into it. Must not know how anything is judged.
import type { Act } from './acts.js';
import type { Chronicle, Life } from './chronicle.js';
import type { Judgement } from './oracle.js';

/** More would be the same again. */
const VIOLATIONS_MAX = 50;

export class Report {
  readonly seed: number;
  readonly violations: string[] = [];
  /** Requests of clients, poison not among them. */
  requests = 0;
  /** Idempotent requests, and those of them that were lost with a worker, if for reasons that are allowed. */
  idempotent = { sent: 0, lost: 0 };
  /** What was forgiven, by outcome. */
  readonly forgiven: Record<string, number> = {};
  readonly faults: Record<string, number> = {};
  readonly verbs: Record<string, number> = {};
  /** Of generations under load. */
  deaths = 0;
  /** Requests answered as promised although a generation of their plugin died meanwhile. */
  survivors = 0;
  readonly #chronicle: Chronicle;
  readonly #began = performance.now();

  constructor(seed: number, chronicle: Chronicle) {
    this.seed = seed;
    this.#chronicle = chronicle;
  }

  count({ idempotent, plugin }: Act, { verdict, outcome }: Judgement, life: Life): void {
    this.requests += 1;
    if (verdict === 'good' && this.#chronicle.deaths(plugin, life) > 0) this.survivors += 1;
    if (idempotent) this.idempotent.sent += 1;
    if (verdict !== 'forgiven') return;
    if (idempotent && /^50[024]|cut/.test(outcome)) this.idempotent.lost += 1;
    increment(this.forgiven, outcome);
  }

  fault(name: string): void {
    increment(this.faults, name);
  }

  verb(name: string): void {
    increment(this.verbs, name);
  }

  /** With what the plugins went through in that time. */
  violation(what: string, plugins: readonly string[] = [], life: Life = { from: performance.now(), to: performance.now() }): void {
    if (this.violations.length >= VIOLATIONS_MAX) return;
    const told = plugins.map((plugin) => `\n  ${plugin}, counted from the request: ${this.#chronicle.tell(plugin, life) || 'nothing happened'}`).join('');
    this.violations.push(`[seed ${this.seed}, second ${((life.from - this.#began) / 1_000).toFixed(2)}] ${what}${told}`);
  }

  /** One line. */
  toString(): string {
    const { requests, idempotent, deaths, survivors, violations } = this;
    const list = (counts: Record<string, number>): string => Object.entries(counts).sort().map(([name, count]) => `${count} ${name}`).join(', ') || 'none';
    return `seed ${this.seed}: ${requests} requests, ${deaths} deaths, ${survivors} requests survived one, ${idempotent.lost} of ${idempotent.sent} idempotent requests lost, ${violations.length} violations`
      + `; forgiven: ${list(this.forgiven)}; faults: ${list(this.faults)}; verbs: ${list(this.verbs)}`;
  }
}

function increment(counts: Record<string, number>, name: string): void {
  counts[name] = (counts[name] ?? 0) + 1;
}
