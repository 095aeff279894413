// The life of one plugin over all its generations: the operator's verbs one at a time, and what follows a death. Must not know HTTP or the other plugins.
import { BulkheadError } from '../../protocol/errors.js';
import type { Death, Fault } from '../../protocol/lifecycle.js';
import { VERB_QUEUE_MAX } from '../../protocol/limits.js';
import type { CatalogEntry } from './catalog.js';
import { Enrolment } from './enrolment.js';
import { faultOf, faultOfDeath, isExcuse, isPermanent, refusal, type StepCode } from './faults.js';
import { Gate } from './gate.js';
import { Launch, type Needs } from './launch.js';
import type { LifecycleContext, Verb } from './lifecycle-context.js';
import { priorOf, type PriorLife } from './prior-life.js';
import type { PluginRecord } from './record.js';
import type { Setback } from './restart-policy.js';
import { Restarts } from './restarts.js';
import { statusOf, type PluginDetails } from './status.js';
import { Turnstile } from './turnstile.js';
import { Workers } from './workers.js';

export class Lifecycle {
  readonly record: PluginRecord;
  readonly gate: Gate;
  readonly #context: LifecycleContext;
  readonly #turns = new Turnstile(1);
  #entry: CatalogEntry;
  /** How far a restart goes, of the worker or of the kernel: what the operator wanted last. */
  #desired: 'mounted' | 'running' | 'stopped' = 'mounted';
  /** True while a verb or a restart handles the workers, and so their deaths too. */
  #attended = false;
  readonly #restarts: Restarts;
  readonly #workers: Workers;
  readonly #launch: Launch;

  constructor(record: PluginRecord, entry: CatalogEntry, context: LifecycleContext) {
    this.record = record;
    this.#entry = entry;
    this.#context = context;
    this.#restarts = new Restarts(context.random);
    this.gate = new Gate(record, () => refusal(record.name, record.state, Date.now()), (expected) => context.ship.services.expect(record.name, expected));
    this.#workers = new Workers(record, context, this.gate, (death) => this.#onDown(death));
    this.#launch = new Launch(record, context, this.#workers, new Enrolment(this, context));
  }

  get status(): PluginDetails {
    return statusOf(this.record, this.#workers.all, { waiting: this.gate.waiting, missing: this.missing, interceptors: this.#context.interceptors.statusOf(this.record.name) });
  }

  /** What `resume` needs in the next kernel. */
  get prior(): PriorLife | null {
    return priorOf(this.record, this.#desired, this.#launch.code);
  }

  /** Whether all that keeps it from running is something else, such as the database. */
  get waits(): boolean {
    return this.#restarts.excused && !this.record.is(this.#desired) && this.record.is('restarting', 'initialized', 'mounted', 'started');
  }

  /** Services that it requires and that are not there. */
  get missing(): readonly string[] {
    return this.#context.dependencies.missing(this.record.name);
  }

  get busy(): boolean {
    return this.#turns.busy;
  }

  /** Carries out a verb when the ones before it are done. `entry` is what the catalog says now; with `force`, also what breaks other plugins. */
  async perform(verb: Verb, entry: CatalogEntry | undefined, force = false): Promise<void> {
    if (this.#turns.waiting >= VERB_QUEUE_MAX) throw this.#conflict(`${VERB_QUEUE_MAX} operations are waiting for it already; try again when they are done`);
    await this.#turns.run(async () => {
      if (entry !== undefined) this.#entry = entry;
      if (this.record.is('registered') && verb !== 'load' && verb !== 'unload') throw this.#conflict(`it is not loaded, so it cannot ${verb}; load it first with POST /plugins/load/${this.record.name}`);
      await this.#attend(() => this.#carryOut(verb, force));
    });
    if (verb === 'start' || verb === 'restart') await this.#workers.mustered;
  }

  async #carryOut(verb: Verb, force: boolean): Promise<void> {
    switch (verb) {
      case 'load':
        if (this.record.is('mounted', 'running')) return;
        this.#pardon();
        this.#desired = 'mounted';
        this.gate.close();
        return this.#load('load', force);
      case 'start':
        this.#desired = 'running';
        this.#pardon();
        if (this.record.is('running')) return;
        if (!this.record.is('mounted')) await this.#load('start', force);
        return this.#start('start');
      case 'stop':
        this.#desired = 'stopped';
        return this.#stop('stop');
      case 'restart': {
        // It has run without what is missing, and does so again.
        const needs: Needs = this.record.is('running') ? 'awaited' : 'required';
        await this.#launch.rehearse(this.#entry, force);
        this.#desired = 'running';
        await this.#stop('restart', () => this.gate.wait()); // requests and calls that come meanwhile wait, as after a death
        this.#pardon();
        await this.#load('restart', force, needs);
        return this.#start('restart');
      }
      case 'unload':
        this.#desired = 'stopped';
        await this.#stop('unload');
        return this.#launch.forget();
    }
  }

  /** At the kernel's boot: to where it was, or shall be first. No operator hears of a failure, so the kernel itself tries again. */
  async resume(prior: PriorLife): Promise<void> {
    const { standing, manifest, code } = prior;
    const cause = prior.generation === 0 ? 'boot of the kernel' : 'the kernel was replaced';
    this.record.inherit(prior);
    this.#launch.inherit(code, manifest);
    this.#desired = standing.status === 'mounted' || standing.status === 'running' ? standing.status : 'stopped';
    if (standing.status !== 'mounted' && standing.status !== 'running') return this.record.transition(standing, cause);
    this.#expect();
    await this.#turns.run(() => this.#attend(() => this.#revive(cause, prior.generation === 0 ? 'required' : 'awaited')));
  }

  /** What it lacked may be there now. */
  wake(): void {
    const { record } = this;
    const waits = (): boolean => record.fault?.code.startsWith('DEPENDENCY_') === true && record.is('failed', 'quarantined') && this.missing.length === 0;
    if (!waits()) return;
    void this.#turns.run(() => this.#attend(async () => {
      if (!waits()) return; // an operator has come in between
      this.#expect();
      await this.#revive('what it needs is there', 'required');
    }));
  }

  /** From any state without a worker to `mounted`, from fresh code. */
  #load(cause: string, force: boolean, needs: Needs = 'required'): Promise<void> {
    return this.#step('PLUGIN_LOAD_FAILED', async () => {
      await this.#launch.renew(this.#entry);
      await this.#launch.boot(this.#entry, cause, { needs, force });
    });
  }

  #start(cause: string): Promise<void> {
    this.gate.wait();
    return this.#step('PLUGIN_START_FAILED', () => this.#launch.run(cause));
  }

  /** When it fails no worker is left, and the operator hears why. */
  async #step(code: StepCode, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (thrown) {
      const error = await this.#launch.discard(code, thrown);
      this.record.transition({ status: 'failed', fault: faultOf(error) }, error.message);
      this.gate.close();
      throw error;
    }
  }

  #stop(cause: string, shut = () => this.gate.close()): Promise<void> {
    this.#restarts.cancel();
    shut();
    return this.#launch.stop(cause);
  }

  #onDown(death: Death): void {
    if (this.#attended) this.gate.pause();
    else this.#afterSetback(faultOfDeath(death), { at: death.at, excused: false });
  }

  /** Restart, or quarantine. */
  #afterSetback(fault: Fault, setback: Setback): void {
    this.record.transition({ status: 'failed', fault }, fault.message);
    const verdict = isPermanent(fault) ? ({ action: 'quarantine', reason: fault.code === 'DEPENDENCY_MISSING' ? 'it waits for what it needs' : 'no restart can mend it' } as const) : this.#restarts.judge(setback);
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
    // Those that use it are better off with half of it now.
    await this.#revive('restart', 'ignored');
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
  async #revive(cause: string, needs: Needs): Promise<void> {
    try {
      await this.#launch.boot(this.#entry, cause, { needs, force: true });
      if (this.#desired === 'running') await this.#launch.run(cause);
    } catch (thrown) {
      const error = await this.#launch.discard('PLUGIN_START_FAILED', thrown);
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

  #conflict(reason: string): BulkheadError {
    return new BulkheadError('PLUGIN_CONFLICT', { name: this.record.name, reason });
  }
}
