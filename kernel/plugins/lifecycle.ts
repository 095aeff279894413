// The life of one plugin over all its generations: the operator's verbs one at a time, and what follows a death. Must not know HTTP or the other plugins.
import { BulkheadError } from '../../protocol/errors.js';
import type { Death, Fault } from '../../protocol/lifecycle.js';
import { PLUGIN_LIMITS, VERB_QUEUE_MAX } from '../../protocol/limits.js';
import type { PluginManifest } from '../../protocol/plugin.js';
import type { Exchange } from '../dispatch/exchange.js';
import type { CatalogEntry } from './catalog.js';
import { Compartment } from './compartment.js';
import { faultOf, faultOfDeath, isExcuse, isPermanent, refusal, stepError, type StepCode } from './faults.js';
import type { LifecycleContext, Verb } from './lifecycle-context.js';
import type { PluginRecord } from './record.js';
import type { Setback } from './restart-policy.js';
import { Restarts } from './restarts.js';
import { Turnstile } from './turnstile.js';

export class Lifecycle {
  readonly record: PluginRecord;
  readonly #context: LifecycleContext;
  readonly #turns = new Turnstile(1);
  #entry: CatalogEntry;
  #bundle: string | null = null;
  #compartment: Compartment | null = null;
  /** How far a restart goes: what the operator wanted last. */
  #desired: 'mounted' | 'running' = 'mounted';
  /** True while a verb or a restart handles the compartment, and so its death too. */
  #attended = false;
  readonly #restarts: Restarts;

  constructor(record: PluginRecord, entry: CatalogEntry, context: LifecycleContext) {
    this.record = record;
    this.#entry = entry;
    this.#context = context;
    this.#restarts = new Restarts(context.random);
  }

  get compartment(): Compartment | null {
    return this.#compartment;
  }

  /** Whether a verb or a restart is under way or waiting. */
  get busy(): boolean {
    return this.#turns.busy;
  }

  /** Hands a request to the running generation, or answers why it cannot. */
  admit(exchange: Exchange): void {
    const { state, name } = this.record;
    const dispatcher = this.#compartment?.dispatcher;
    if (state.status === 'running' && dispatcher != null) dispatcher.dispatch(exchange);
    else exchange.fail(refusal(name, state, Date.now()));
  }

  /** Carries out a verb when the ones before it are done. `entry` is what the catalog says now. */
  async perform(verb: Verb, entry: CatalogEntry | undefined): Promise<void> {
    if (this.#turns.waiting >= VERB_QUEUE_MAX) throw this.#conflict(`${VERB_QUEUE_MAX} operations are waiting for it already; try again when they are done`);
    await this.#turns.run(async () => {
      if (entry !== undefined) this.#entry = entry;
      if (this.record.is('registered') && verb !== 'load' && verb !== 'unload') throw this.#conflict(`it is not loaded, so it cannot ${verb}; load it first with POST /plugins/load/${this.record.name}`);
      await this.#attend(() => this.#carryOut(verb));
    });
  }

  async #carryOut(verb: Verb): Promise<void> {
    switch (verb) {
      case 'load':
        if (this.record.is('mounted', 'running')) return;
        this.#restarts.pardon();
        this.#desired = 'mounted';
        return this.#load('load');
      case 'start':
        this.#desired = 'running';
        if (this.record.is('running')) return;
        this.#restarts.pardon();
        if (!this.record.is('mounted')) await this.#load('start');
        return this.#start('start');
      case 'stop': return this.#stop('stop');
      case 'restart':
        await this.#stop('restart');
        this.#restarts.pardon();
        this.#desired = 'running';
        await this.#load('restart');
        return this.#start('restart');
      case 'unload':
        await this.#stop('unload');
        return this.#forget();
    }
  }

  /** Loads and starts it at the kernel's boot. No operator hears of a failure, so the kernel itself tries again. */
  async bringUp(): Promise<void> {
    this.#desired = 'running';
    await this.#turns.run(() => this.#attend(() => this.#revive('boot of the kernel')));
  }

  /** From any state without a worker to `mounted`, from fresh code. */
  #load(cause: string): Promise<void> {
    return this.#step('PLUGIN_LOAD_FAILED', async () => {
      await this.#bundleCode();
      await this.#boot(cause);
    });
  }

  #start(cause: string): Promise<void> {
    return this.#step('PLUGIN_START_FAILED', () => this.#run(cause));
  }

  /** When it fails no worker is left, and the operator hears why. */
  async #step(code: StepCode, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (thrown) {
      const error = await this.#discard(code, thrown);
      this.record.transition({ status: 'failed', fault: faultOf(error) }, error.message);
      throw error;
    }
  }

  async #bundleCode(): Promise<void> {
    const { name } = this.record;
    this.#bundle = await this.#context.bundler.bundle(name, this.#entry.file).catch((error: unknown) => { throw stepError('PLUGIN_LOAD_FAILED', name, error); });
  }

  async #boot(cause: string): Promise<void> {
    const { record } = this;
    // Only the import takes turns with other plugins: a hook that waits must not keep others from coming back.
    const { compartment, manifest } = await this.#context.boots.run(() => this.#import());
    this.#claim(manifest);
    await compartment.init();
    record.transition({ status: 'initialized', generation: record.generation }, cause);
    record.routes = await compartment.mount();
    this.#context.mounts.set(this, record.mounts); // again: the documentation follows the table's version
    record.transition({ status: 'mounted', generation: record.generation }, cause);
  }

  async #import(): Promise<{ readonly compartment: Compartment; readonly manifest: PluginManifest }> {
    const heapMb = this.record.manifest?.limits.heapMb ?? PLUGIN_LIMITS.heapMb;
    const compartment = this.#open(heapMb);
    const manifest = await compartment.describe();
    if (manifest.limits.heapMb === heapMb) return { compartment, manifest };
    // Only its code says how much memory it wants, and a heap cannot change its size: once per change, it boots twice.
    compartment.generation.kill('stopped', 'it asks for another heap');
    await compartment.generation.gone;
    const resized = this.#open(manifest.limits.heapMb);
    return { compartment: resized, manifest: await resized.describe() };
  }

  async #run(cause: string): Promise<void> {
    await this.#compartment!.start();
    for (const status of ['started', 'running'] as const) this.record.transition({ status, generation: this.record.generation }, cause);
  }

  #open(heapMb: number): Compartment {
    const { name } = this.record;
    const generation = ++this.record.generation;
    const compartment = new Compartment(this.#context.ship, {
      order: { name, generation, bundle: this.#bundle!, ...this.#context.settings(name) },
      heapMb,
      counts: this.record.requests,
      onDeath: (death) => this.#onDeath(compartment, death),
    });
    this.#compartment = compartment;
    return compartment;
  }

  async #stop(cause: string): Promise<void> {
    this.#restarts.cancel();
    const { record } = this;
    const compartment = this.#compartment;
    if (compartment !== null && record.is('initialized', 'mounted', 'started', 'running')) {
      record.transition({ status: 'stopping', generation: record.generation }, cause);
      const failure = await compartment.stop().then(() => null, (error: Error) => error);
      record.transition({ status: 'stopped' }, failure === null ? cause : `${cause}; ${failure.message}`);
    } else if (record.is('failed', 'restarting', 'quarantined')) record.transition({ status: 'stopped' }, cause);
  }

  #forget(): void {
    const { record } = this;
    this.#context.mounts.set(this, []);
    record.manifest = null;
    record.routes = [];
    record.mounts = [];
    this.#bundle = null;
    if (!record.is('registered')) record.transition({ status: 'registered' }, 'unload');
  }

  /** Ends the present generation after a failed step and returns the error that says which. */
  async #discard(code: StepCode, thrown: unknown): Promise<BulkheadError> {
    const error = stepError(code, this.record.name, thrown);
    const generation = this.#compartment?.generation;
    generation?.kill('failed', error.message);
    await generation?.gone;
    return error;
  }

  #onDeath(compartment: Compartment, death: Death): void {
    if (this.#compartment === compartment) this.#compartment = null;
    this.record.bury(death);
    if (!this.#attended) this.#afterSetback(faultOfDeath(death), { at: death.at, excused: false });
  }

  /** Restart, or quarantine. */
  #afterSetback(fault: Fault, setback: Setback): void {
    this.record.transition({ status: 'failed', fault }, fault.message);
    const verdict = isPermanent(fault) ? ({ action: 'quarantine', reason: 'no restart can mend it' } as const) : this.#restarts.judge(setback);
    if (verdict.action === 'quarantine') {
      return this.record.transition({ status: 'quarantined', fault: { code: fault.code, message: `${verdict.reason}: ${fault.message}` } }, verdict.reason);
    }
    this.record.transition({ status: 'restarting', fault, restartAt: setback.at + verdict.delayMs }, `restart in ${verdict.delayMs} ms`);
    this.#restarts.schedule(verdict.delayMs, () => void this.#turns.run(() => this.#attend(() => this.#restart())));
  }

  async #restart(): Promise<void> {
    // An operator may have come in between.
    if (!this.record.is('restarting')) return;
    this.record.restarts += 1;
    await this.#revive('restart');
  }

  /** To where the operator wanted it last. A failure is a setback like a death, unless its cause lies elsewhere and passes. */
  async #revive(cause: string): Promise<void> {
    try {
      if (this.#bundle === null) await this.#bundleCode();
      await this.#boot(cause);
      if (this.#desired === 'running') await this.#run(cause);
    } catch (thrown) {
      const error = await this.#discard('PLUGIN_START_FAILED', thrown);
      this.#afterSetback(faultOf(error), { at: Date.now(), excused: isExcuse(thrown) });
    }
  }

  /** A death during `work` is handled by `work`, whose calls to the worker then reject. One right after it is not lost. */
  async #attend(work: () => Promise<void>): Promise<void> {
    this.#attended = true;
    try {
      await work();
    } finally {
      this.#attended = false;
      if (this.#compartment === null && this.record.is('initialized', 'mounted', 'started', 'running')) {
        const death = this.record.deaths.at(-1);
        this.#afterSetback({ code: 'PLUGIN_CRASHED', message: death?.cause ?? 'its worker ended' }, { at: Date.now(), excused: false });
      }
    }
  }

  /** From here on the plugin answers under its mounts, if only with why it cannot. */
  #claim(manifest: PluginManifest): void {
    for (const prefix of manifest.mounts) {
      const owner = this.#context.mounts.owner(prefix);
      if (owner !== undefined && owner !== this) throw this.#conflict(`the mount ${prefix} belongs to plugin "${owner.record.name}"`);
    }
    this.record.manifest = manifest;
    this.record.mounts = manifest.mounts;
    this.#context.mounts.set(this, manifest.mounts);
  }

  #conflict(reason: string): BulkheadError {
    return new BulkheadError('PLUGIN_CONFLICT', { name: this.record.name, reason });
  }
}
