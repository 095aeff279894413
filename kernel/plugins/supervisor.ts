// All plugins: names to lives, the operator's verbs with their checks, boot and shutdown. Must not know HTTP.
import { join } from 'node:path';
import type { Logger } from 'pino';
import { BulkheadError, toPlainError } from '../../protocol/errors.js';
import { PARALLEL_BOOTS_MAX } from '../../protocol/limits.js';
import { pluginNameProblem } from '../../protocol/plugin.js';
import { Dependencies } from '../services/dependencies.js';
import { Interceptors } from '../intercept/interceptors.js';
import { Berths } from './berths.js';
import { Bundler } from './bundler.js';
import { takeCensus, type Census } from './census.js';
import { Catalog, type CatalogEntry } from './catalog.js';
import type { Ship } from './compartment.js';
import { refusal } from './faults.js';
import { Lifecycle } from './lifecycle.js';
import type { PluginOrders, Verb } from './lifecycle-context.js';
import { Mounts } from './mounts.js';
import type { PriorLife } from './prior-life.js';
import { PluginRecord, type OnTransition, type PluginSummary } from './record.js';
import { Standby } from './standby.js';
import { statusOf, type PluginDetails } from './status.js';
import { Turnstile } from './turnstile.js';

export interface SupervisorOptions {
  readonly ship: Ship;
  /** Absolute paths of the folders with plugins. */
  readonly pluginsDirs: readonly string[];
  /** Absolute path of the folder for bundles and for what workers may read. */
  readonly workDir: string;
  /** Booted workers that wait for a plugin to die. */
  readonly standbyWorkers: number;
  /** `known` are the names in the catalog. */
  readonly settings: (name: string, known: readonly string[]) => PluginOrders;
  readonly random?: () => number;
  /** Told when `priorOf` a plugin has changed without a transition. */
  readonly onChange?: (plugin: string) => void;
}

export class Supervisor {
  readonly mounts = new Mounts<Lifecycle>();
  readonly interceptors = new Interceptors();
  readonly #lives = new Map<string, Lifecycle>();
  readonly #dependencies: Dependencies;
  readonly #catalog: Catalog;
  readonly #bundler: Bundler;
  readonly #berths: Berths;
  readonly #standby: Standby;
  readonly #boots = new Turnstile(PARALLEL_BOOTS_MAX);
  readonly #furtherBoots = new Turnstile(1);
  readonly #options: SupervisorOptions;
  readonly #log: Logger;
  readonly #listeners = new Set<OnTransition>();
  /** Resolves when the plugins of the boot run or have failed. */
  readonly whenBooted: Promise<void>;
  #haveBooted!: () => void;
  #booted = false;
  #stopping = false;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.whenBooted = new Promise((resolve) => (this.#haveBooted = resolve));
    this.#log = options.ship.log;
    this.#dependencies = new Dependencies(options.ship.services);
    this.#catalog = new Catalog(options.pluginsDirs);
    this.#bundler = new Bundler(join(options.workDir, 'bundles'));
    this.#berths = new Berths(join(options.workDir, 'berths'));
    this.#standby = new Standby(options.standbyWorkers, this.#berths, this.#log);
  }

  get booted(): boolean {
    return this.#booted;
  }

  /** Calls back after each transition of any plugin. Returns the way to end it. */
  onTransition(listener: OnTransition): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The lives that are loaded, or were tried to. */
  get lives(): Lifecycle[] {
    return [...this.#lives.values()];
  }

  /** Plugins that run without all that they require. */
  get degraded(): { readonly plugin: string; readonly missing: readonly string[] }[] {
    return this.lives.flatMap(({ record, missing }) => (record.is('running') && missing.length > 0 ? [{ plugin: record.name, missing }] : []));
  }

  /** What all plugins together hold in the kernel. */
  census(): Census {
    return takeCensus(this.#options.ship, this.lives, this.#standby, this.#berths);
  }

  /** Every plugin of the catalog, and those that run although their folder has gone, by name. */
  async list(): Promise<PluginSummary[]> {
    await this.#catalog.scan();
    const names = new Set([...this.#catalog.names, ...this.#lives.keys()]);
    return [...names].sort().map((name) => (this.#lives.get(name)?.record ?? this.#newRecord(name)).summary());
  }

  /** Throws `PLUGIN_NAME_INVALID` or `PLUGIN_UNKNOWN`. */
  async details(name: string): Promise<PluginDetails> {
    await this.#check(name);
    const life = this.#lives.get(name);
    return life === undefined ? statusOf(this.#newRecord(name), [], { waiting: 0, missing: [], interceptors: [] }) : life.status;
  }

  /** Carries out an operator's verb, with `force` even if it breaks other plugins, and returns the resulting state. Throws what the error table says. */
  async perform(verb: Verb, name: string, force = false): Promise<PluginDetails> {
    await this.#check(name);
    if (this.#stopping) throw new BulkheadError('KERNEL_STOPPING', {});
    // No await between here and the verb: a life that is not busy may be forgotten.
    const life = this.#lives.get(name) ?? this.#newLife(name);
    try {
      await life.perform(verb, this.#catalog.get(name), force);
      return life.status;
    } finally {
      // Its place may be another's by now.
      if (life.record.is('registered') && !life.busy && this.#lives.get(name) === life) this.#lives.delete(name);
    }
  }

  /** Why nothing answers under `/plugins/<name>`. */
  explainAbsence(name: string): BulkheadError {
    const problem = pluginNameProblem(name);
    if (problem !== null) return new BulkheadError('PLUGIN_NAME_INVALID', { name, reason: problem });
    const state = this.#lives.get(name)?.record.state;
    if (state !== undefined && state.status !== 'registered') return refusal(name, state, Date.now());
    if (this.#catalog.get(name) !== undefined) return new BulkheadError('PLUGIN_NOT_LOADED', { name });
    return new BulkheadError('PLUGIN_UNKNOWN', { name, known: this.#catalog.names });
  }

  /** Brings these to where they were, or shall be first; resolves when each is there or has failed once, which leaves the others alone. */
  async boot(priors: readonly PriorLife[]): Promise<void> {
    for (const { name } of priors) this.#dependencies.announce(name);
    this.interceptors.expect(priors.map(({ name }) => name));
    await Promise.all([this.#catalog.scan(), this.#berths.clear()]);
    await Promise.all(priors.map((prior) => this.#resume(prior).finally(() => {
      this.#dependencies.arrived(prior.name);
      this.interceptors.settle(prior.name);
    })));
    this.#booted = true;
    this.#haveBooted();
    this.#standby.open();
  }

  async #resume(prior: PriorLife): Promise<void> {
    const { name } = prior;
    if (this.#catalog.get(name) === undefined) return this.#log.error({ plugin: name }, new BulkheadError('PLUGIN_UNKNOWN', { name, known: this.#catalog.names }).message);
    // An operator may have been faster.
    if (this.#lives.has(name)) return;
    await this.#newLife(name).resume(prior).catch((error: unknown) => this.#log.error({ plugin: name, err: toPlainError(error) }, 'cannot be brought back'));
  }

  /** What the next kernel must know of a plugin to bring it back as it is; null when it is not loaded. */
  priorOf(name: string): PriorLife | null {
    return this.#lives.get(name)?.prior ?? null;
  }

  /** Refuses new verbs, then drains and stops every plugin: those first whose services no other needs any more. */
  async shutdown(): Promise<void> {
    this.#stopping = true;
    for (let left = this.lives; left.length > 0;) {
      const unused = left.filter(({ record: { name } }) => !left.some(({ record }) => record.name !== name && this.#dependencies.dependsOn(record.name, name)));
      // In a circle nobody is first.
      const idle = unused.length > 0 ? unused : left;
      // Who is asked about the requests of the others stays until they are done.
      const unasked = idle.filter(({ record }) => !this.interceptors.isAsked(record.name));
      const next = unasked.length > 0 ? unasked : idle;
      await Promise.all(next.map((life) => life.perform('stop', undefined).catch((error: unknown) => {
        if ((error as BulkheadError).code !== 'PLUGIN_CONFLICT') this.#log.error({ plugin: life.record.name, err: toPlainError(error) }, 'did not stop cleanly');
      })));
      left = left.filter((life) => !next.includes(life));
    }
    await Promise.all([this.#standby.close(), this.#bundler.close()]);
  }

  async #check(name: string): Promise<void> {
    const problem = pluginNameProblem(name);
    if (problem !== null) throw new BulkheadError('PLUGIN_NAME_INVALID', { name, reason: problem });
    await this.#catalog.scan();
    if (!this.#lives.has(name)) this.#entry(name);
  }

  #entry(name: string): CatalogEntry {
    const entry = this.#catalog.get(name);
    if (entry === undefined) throw new BulkheadError('PLUGIN_UNKNOWN', { name, known: this.#catalog.names });
    return entry;
  }

  #newLife(name: string): Lifecycle {
    const life = new Lifecycle(this.#newRecord(name), this.#entry(name), {
      ship: this.#options.ship,
      bundler: this.#bundler,
      berths: this.#berths,
      standby: this.#standby,
      mounts: this.mounts,
      dependencies: this.#dependencies,
      running: () => this.lives.filter(({ record }) => record.is('running')).map(({ record }) => record.name),
      interceptors: this.interceptors,
      boots: this.#boots,
      furtherBoots: this.#furtherBoots,
      changed: (plugin) => this.#options.onChange?.(plugin),
      settings: (plugin) => this.#options.settings(plugin, this.#catalog.names),
      random: this.#options.random ?? Math.random,
    });
    this.#lives.set(name, life);
    return life;
  }

  #newRecord(name: string): PluginRecord {
    return new PluginRecord(name, this.#log, (transition) => {
      this.interceptors.refresh();
      for (const listener of this.#listeners) listener(transition);
      this.#dependencies.changed();
      // Not before its services are there.
      if (transition.to === 'running') queueMicrotask(() => { for (const life of this.lives) life.wake(); });
    });
  }
}
