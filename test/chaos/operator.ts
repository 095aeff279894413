// The operator of the simulation: takes plugins down and up under load, and pardons those that died too often. Must not know requests of clients.
import { setTimeout as delay } from 'node:timers/promises';
import { FRAGILE } from './acts.js';
import type { Chronicle } from './chronicle.js';
import type { Report } from './report.js';
import { rawRequest, type TestKernel } from '../helpers/kernel.js';
import type { Random } from './random.js';

type Verb = Parameters<TestKernel['verb']>[0];

const GAP_MS = { min: 2_000, max: 5_000 };
/** How often the operator looks at the plugins. */
const ROUND_MS = 250;
/** After so many deaths the operator may step in before the kernel gives the plugin up. */
const DEATHS_TO_PARDON = 3;
const INTERVENTIONS: Readonly<Record<string, readonly Verb[]>> = { 'restart': ['restart'], 'stop and start': ['stop', 'start'], 'unload and load': ['unload', 'load', 'start'] };

export interface OperatorOptions {
  readonly kernel: TestKernel;
  readonly random: Random;
  readonly chronicle: Chronicle;
  readonly report: Report;
}

export class Operator {
  readonly #options: OperatorOptions;
  /** Ends of what is under way: verbs for one plugin come one after the other, as from one person. */
  readonly #busy = new Map<string, Promise<void>>();
  readonly #pardoned = new Map<string, number>();

  constructor(options: OperatorOptions) {
    this.#options = options;
  }

  async workUntil(end: number): Promise<void> {
    const { random } = this.#options;
    await Promise.all([this.#intervene(end, random.fork()), this.#watch(end, random.fork())]);
    await Promise.all(this.#busy.values());
  }

  /** Every plugin runs, and what it went through is forgotten. */
  async restoreAll(plugins: readonly string[]): Promise<void> {
    await Promise.all(plugins.map((plugin) => this.#perform(plugin, ['start'])));
  }

  async #intervene(end: number, random: Random): Promise<void> {
    for (;;) {
      const [gapMs, plugin, name] = [random.whole(GAP_MS.min, GAP_MS.max), random.pick(['items', ...FRAGILE]), random.pick(Object.keys(INTERVENTIONS))];
      if (performance.now() + gapMs >= end) return;
      await delay(gapMs);
      this.#options.report.verb(name);
      await this.#perform(plugin, INTERVENTIONS[name]!);
    }
  }

  async #watch(end: number, random: Random): Promise<void> {
    const { kernel, chronicle, report } = this.#options;
    while (performance.now() < end) {
      await delay(ROUND_MS);
      for (const plugin of FRAGILE) {
        const due = chronicle.deaths(plugin) - (this.#pardoned.get(plugin) ?? 0) >= DEATHS_TO_PARDON;
        const { status } = await kernel.kernel.supervisor.details(plugin);
        if (status !== 'quarantined' && !(due && random.chance(0.08))) continue;
        this.#pardoned.set(plugin, chronicle.deaths(plugin));
        report.verb(status === 'quarantined' ? 'release' : 'pardon');
        await this.#perform(plugin, ['start']);
      }
    }
  }

  #perform(plugin: string, verbs: readonly Verb[]): Promise<void> {
    const done = (this.#busy.get(plugin) ?? Promise.resolve()).then(() => this.#carryOut(plugin, verbs));
    this.#busy.set(plugin, done);
    return done;
  }

  async #carryOut(plugin: string, verbs: readonly Verb[]): Promise<void> {
    const { kernel, report } = this.#options;
    for (const verb of verbs) {
      const from = performance.now();
      // On a connection of its own, because one that is kept would count as left over.
      const { status, text } = await rawRequest(kernel.url, 'POST', `/plugins/${verb}/${plugin}`);
      if (status !== 200) report.violation(`POST /plugins/${verb}/${plugin} had ${status} ${text}`, [plugin], { from, to: performance.now() });
    }
  }
}
