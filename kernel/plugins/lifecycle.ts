// The life of one plugin over all its generations: the operator's verbs one at a time, and what follows a death. Must not know HTTP or the other plugins.
import { BulkheadError } from '../../protocol/errors.js';
import type { Death, Fault } from '../../protocol/lifecycle.js';
import { VERB_QUEUE_MAX } from '../../protocol/limits.js';
import type { PluginManifest } from '../../protocol/plugin.js';
import type { CatalogEntry } from './catalog.js';
import type { Code } from './commission.js';
import { faultOf, faultOfDeath, isExcuse, isPermanent, refusal, stepError, type StepCode } from './faults.js';
import { Gate } from './gate.js';
import type { LifecycleContext, Verb } from './lifecycle-context.js';
import { priorOf, type PriorLife } from './prior-life.js';
import type { PluginRecord } from './record.js';
import type { Setback } from './restart-policy.js';
import { Restarts } from './restarts.js';
import { statusOf, type PluginDetails } from './status.js';
import { Tables } from './tables.js';
import { Turnstile } from './turnstile.js';
import { Workers } from './workers.js';

export class Lifecycle {
  readonly record: PluginRecord;
  readonly gate: Gate;
  readonly #context: LifecycleContext;
  readonly #turns = new Turnstile(1);
  #entry: CatalogEntry;
  #code: Code | null = null;
  /** How far a restart goes, of the worker or of the kernel: what the operator wanted last. */
  #desired: 'mounted' | 'running' | 'stopped' = 'mounted';
  /** True while a verb or a restart handles the workers, and so their deaths too. */
  #attended = false;
  readonly #restarts: Restarts;
  readonly #workers: Workers;
  readonly #tables: Tables;

  constructor(record: PluginRecord, entry: CatalogEntry, context: LifecycleContext) {
    this.record = record;
    this.#entry = entry;
    this.#context = context;
    this.#restarts = new Restarts(context.random);
    this.#tables = new Tables(record.name, context.ship);
    this.gate = new Gate(record, () => refusal(record.name, record.state, Date.now()));
    this.#workers = new Workers(record, context, this.gate, (death) => this.#onDown(death));
  }

  get status(): PluginDetails {
    return statusOf(this.record, this.#workers.all, this.gate.waiting, this.#context.interceptors.statusOf(this.record.name));
  }

  /** What `resume` needs in the next kernel. */
  get prior(): PriorLife | null {
    return priorOf(this.record, this.#desired, this.#code);
  }

  /** Whether all that keeps it from running is something else, such as the database. */
  get waits(): boolean {
    return this.#restarts.excused && !this.record.is(this.#desired) && this.record.is('restarting', 'initialized', 'mounted', 'started');
  }

  get busy(): boolean {
    return this.#turns.busy;
  }

  /** Carries out a verb when the ones before it are done. `entry` is what the catalog says now. */
  async perform(verb: Verb, entry: CatalogEntry | undefined): Promise<void> {
    if (this.#turns.waiting >= VERB_QUEUE_MAX) throw this.#conflict(`${VERB_QUEUE_MAX} operations are waiting for it already; try again when they are done`);
    await this.#turns.run(async () => {
      if (entry !== undefined) this.#entry = entry;
      if (this.record.is('registered') && verb !== 'load' && verb !== 'unload') throw this.#conflict(`it is not loaded, so it cannot ${verb}; load it first with POST /plugins/load/${this.record.name}`);
      await this.#attend(() => this.#carryOut(verb));
    });
    if (verb === 'start' || verb === 'restart') await this.#workers.mustered;
  }

  async #carryOut(verb: Verb): Promise<void> {
    switch (verb) {
      case 'load':
        if (this.record.is('mounted', 'running')) return;
        this.#pardon();
        this.#desired = 'mounted';
        this.gate.close();
        return this.#load('load');
      case 'start':
        this.#desired = 'running';
        this.#pardon();
        if (this.record.is('running')) return;
        if (!this.record.is('mounted')) await this.#load('start');
        return this.#start('start');
      case 'stop':
        this.#desired = 'stopped';
        return this.#stop('stop');
      case 'restart':
        this.#desired = 'running';
        await this.#stop('restart', () => this.gate.wait()); // requests that come meanwhile wait, as after a death
        this.#pardon();
        await this.#load('restart');
        return this.#start('restart');
      case 'unload':
        this.#desired = 'stopped';
        await this.#stop('unload');
        return this.#forget();
    }
  }

  /** At the kernel's boot: to where it was, or shall be first. No operator hears of a failure, so the kernel itself tries again. */
  async resume(prior: PriorLife): Promise<void> {
    const { standing, manifest, code } = prior;
    const cause = prior.generation === 0 ? 'boot of the kernel' : 'the kernel was replaced';
    this.record.inherit(prior);
    this.#code = code;
    if (manifest !== null) this.#claim(manifest);
    this.#desired = standing.status === 'mounted' || standing.status === 'running' ? standing.status : 'stopped';
    if (standing.status !== 'mounted' && standing.status !== 'running') return this.record.transition(standing, cause);
    this.#expect();
    await this.#turns.run(() => this.#attend(() => this.#revive(cause)));
  }

  /** From any state without a worker to `mounted`, from fresh code. */
  #load(cause: string): Promise<void> {
    return this.#step('PLUGIN_LOAD_FAILED', async () => {
      this.#code = await this.#bundle();
      await this.#boot(cause);
    });
  }

  #start(cause: string): Promise<void> {
    this.gate.wait();
    return this.#step('PLUGIN_START_FAILED', () => this.#run(cause));
  }

  /** When it fails no worker is left, and the operator hears why. */
  async #step(code: StepCode, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (thrown) {
      const error = await this.#workers.discard(code, thrown);
      this.record.transition({ status: 'failed', fault: faultOf(error) }, error.message);
      this.gate.close();
      throw error;
    }
  }

  async #boot(cause: string): Promise<void> {
    // Only the import takes turns with other plugins: a hook that waits must not keep others from coming back.
    const { compartment, manifest } = await this.#context.boots.run(() => this.#workers.import(this.#code!));
    this.#claim(manifest);
    await this.#tables.prepare(this.#code!, manifest.grants, () => compartment.init());
    this.record.transition({ status: 'initialized', generation: this.record.generation }, cause);
    this.record.routes = await compartment.mount();
    this.#context.mounts.set(this, this.record.mounts); // again: the documentation follows the table's version
    this.record.transition({ status: 'mounted', generation: this.record.generation }, cause);
  }

  async #run(cause: string): Promise<void> {
    await this.#workers.first!.start();
    for (const status of ['started', 'running'] as const) this.record.transition({ status, generation: this.record.generation }, cause);
    this.#workers.serve(this.#code!);
  }

  async #stop(cause: string, shut = () => this.gate.close()): Promise<void> {
    this.#restarts.cancel();
    shut();
    const { record } = this;
    if (this.#workers.first !== null && record.is('initialized', 'mounted', 'started', 'running')) {
      record.transition({ status: 'stopping', generation: record.generation }, cause);
      const failures = await this.#workers.stop();
      record.transition({ status: 'stopped' }, [cause, ...new Set(failures.map(({ message }) => message))].join('; '));
    } else if (record.is('failed', 'restarting', 'quarantined')) record.transition({ status: 'stopped' }, cause);
  }

  #forget(): void {
    this.#context.mounts.set(this, []);
    this.#context.interceptors.withdraw(this.record.name);
    this.record.forgetCode();
    this.#code = null;
    if (!this.record.is('registered')) this.record.transition({ status: 'registered' }, 'unload');
  }

  #onDown(death: Death): void {
    if (this.#attended) this.gate.pause();
    else this.#afterSetback(faultOfDeath(death), { at: death.at, excused: false });
  }

  /** Restart, or quarantine. */
  #afterSetback(fault: Fault, setback: Setback): void {
    this.record.transition({ status: 'failed', fault }, fault.message);
    const verdict = isPermanent(fault) ? ({ action: 'quarantine', reason: 'no restart can mend it' } as const) : this.#restarts.judge(setback);
    if (verdict.action === 'quarantine') {
      this.record.transition({ status: 'quarantined', fault: { code: fault.code, message: `${verdict.reason}: ${fault.message}` } }, verdict.reason);
      return this.gate.close();
    }
    this.record.transition({ status: 'restarting', fault, restartAt: setback.at + verdict.delayMs }, `restart in ${verdict.delayMs} ms`);
    this.#expect(verdict.delayMs);
    this.#restarts.schedule(verdict.delayMs, () => void this.#turns.run(() => this.#attend(() => this.#restart())), setback.excused ? this.#context.ship.database.onBack : undefined);
  }

  async #restart(): Promise<void> {
    if (!this.record.is('restarting')) return; // an operator has come in between
    this.record.restarts += 1;
    this.#expect();
    await this.#revive('restart');
  }

  /** Requests wait for a plugin that is back soon, when they are to be served at all. */
  #expect(inMs = 0): void {
    if (this.#desired === 'running' && inMs <= this.record.limits.replayWaitMs) this.gate.wait();
    else this.gate.close();
  }

  #pardon(): void {
    this.#restarts.pardon();
    this.#workers.pardon();
    this.gate.pardon();
  }

  /** To where the operator wanted it last. A failure is a setback like a death, unless its cause lies elsewhere and passes. */
  async #revive(cause: string): Promise<void> {
    try {
      this.#code ??= await this.#bundle();
      await this.#boot(cause);
      if (this.#desired === 'running') await this.#run(cause);
    } catch (thrown) {
      const error = await this.#workers.discard('PLUGIN_START_FAILED', thrown);
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
      if (this.#workers.first === null && this.record.is('initialized', 'mounted', 'started', 'running')) {
        this.#afterSetback({ code: 'PLUGIN_CRASHED', message: this.record.deaths.at(-1)?.cause ?? 'its worker ended' }, { at: Date.now(), excused: false });
      }
    }
  }

  /** Throws `PLUGIN_LOAD_FAILED` with what is wrong in the code. */
  async #bundle(): Promise<Code> {
    const { name, file, folder } = this.#entry;
    const bundle = await this.#context.bundler.bundle(name, file).catch((error: unknown) => { throw stepError('PLUGIN_LOAD_FAILED', name, error); });
    return { bundle, folder };
  }

  /** From here on the plugin answers under its mounts, if only with why it cannot. */
  #claim(manifest: PluginManifest): void {
    const taken = this.#context.mounts.taken(this, manifest.mounts);
    if (taken !== undefined) throw this.#conflict(`the mount ${taken.prefix} belongs to plugin "${taken.owner.record.name}"`);
    this.record.describe(manifest);
    this.#context.mounts.set(this, manifest.mounts);
    this.#workers.declare(manifest);
  }

  #conflict(reason: string): BulkheadError {
    return new BulkheadError('PLUGIN_CONFLICT', { name: this.record.name, reason });
  }
}
