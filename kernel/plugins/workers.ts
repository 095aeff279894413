// The workers of one plugin: a first one, which its lifecycle brings up step by step, and in a plugin of several threads further ones beside it. Must not know states or verbs.
import type { Logger } from 'pino';
import { BulkheadError } from '../../protocol/errors.js';
import type { Death } from '../../protocol/lifecycle.js';
import { BACKOFF_MAX_MS, THREADS_MAX } from '../../protocol/limits.js';
import type { PluginManifest } from '../../protocol/plugin.js';
import type { Orphan } from '../dispatch/replay.js';
import { Commission, type Code } from './commission.js';
import type { Compartment } from './compartment.js';
import { faultOf, isExcuse, isPermanent, stepError, type StepCode } from './faults.js';
import type { Gate } from './gate.js';
import type { LifecycleContext } from './lifecycle-context.js';
import type { PluginRecord } from './record.js';
import type { Setback } from './restart-policy.js';
import { Restarts } from './restarts.js';
import { Watchman } from './watchman.js';

interface Prepared {
  readonly compartment: Compartment;
  readonly manifest: PluginManifest;
}

/** The time in which the first worker serves, or another that has taken its place. */
interface Watch {
  readonly code: Code;
  /** How many there shall be beside the first. */
  readonly further: number;
  /** Those that have been called up and do not serve yet. */
  expected: number;
  /** When those that are missing are called up, in milliseconds since 1970, or null. */
  dueAt: number | null;
}

const OVER = 'the plugin does not serve any more';

export class Workers {
  readonly #record: PluginRecord;
  readonly #context: LifecycleContext;
  readonly #gate: Gate;
  readonly #onDown: (death: Death) => void;
  readonly #log: Logger;
  readonly #commission: Commission;
  readonly #restarts: Restarts;
  #first: Compartment | null = null;
  /** Has its code, and waits to be the first. */
  #next: Prepared | null = null;
  /** Beside the first: those that serve, and those that are on their way to. */
  readonly #serving = new Set<Compartment>();
  readonly #coming = new Set<Compartment>();
  #watch: Watch | null = null;
  #mustered: Promise<void> = Promise.resolve();

  /** `onDown` is called when the last worker has died. */
  constructor(record: PluginRecord, context: LifecycleContext, gate: Gate, onDown: (death: Death) => void) {
    this.#record = record;
    this.#context = context;
    this.#gate = gate;
    this.#onDown = onDown;
    this.#log = context.ship.log.child({ plugin: record.name });
    this.#restarts = new Restarts(context.random);
    this.#commission = new Commission(record, context, (compartment, death, orphans) => this.#onDeath(compartment, death, orphans));
  }

  get first(): Compartment | null {
    return this.#first;
  }

  /** The first, and those that serve beside it. */
  get all(): readonly Compartment[] {
    return this.#first === null ? [...this.#serving] : [this.#first, ...this.#serving];
  }

  /** Resolves when all that were called up by `serve` and `pardon` serve or have failed once. */
  get mustered(): Promise<void> {
    return this.#mustered;
  }

  /** Whether there is a worker that waits to be the first. */
  get prepared(): boolean {
    return this.#next?.compartment.generation.alive === true;
  }

  /** Gives the code to a worker that shall be the first after this one. */
  async prepare(code: Code): Promise<PluginManifest> {
    let opened: Compartment | null = null;
    try {
      this.#next = await this.#commission.import(code, false, (compartment) => { opened = compartment; });
      return this.#next.manifest;
    } catch (thrown) {
      (opened as Compartment | null)?.generation.kill('failed', (thrown as Error).message);
      throw thrown;
    }
  }

  /** The one that was prepared is not wanted. Returns the error that says why. */
  discardNext(code: StepCode, thrown: unknown): BulkheadError {
    const error = stepError(code, this.#record.name, thrown);
    this.#next?.compartment.generation.kill('stopped', error.message);
    this.#next = null;
    return error;
  }

  /** Gives the code to the first worker, which must not be there, unless one has it already. */
  async import(code: Code): Promise<Prepared> {
    const next = this.prepared ? this.#next! : await this.#commission.import(code, true, (compartment) => this.#appoint(compartment));
    this.#next = null;
    this.#appoint(next.compartment);
    return next;
  }

  #appoint(compartment: Compartment): void {
    this.#first = compartment;
    this.#enter(compartment);
  }

  #enter({ number }: Compartment): void {
    this.#record.generation = Math.max(this.#record.generation, number);
  }

  /** What its interceptors are is known. */
  declare({ interceptors }: PluginManifest): void {
    this.#context.interceptors.declare(new Watchman(this.#record, this), interceptors);
  }

  /** The first has started and takes requests; the others follow, each with all hooks of its own. */
  serve(code: Code): void {
    this.#watch = { code, further: Math.min(this.#record.threads, THREADS_MAX) - 1, expected: 0, dueAt: null };
    this.#first!.offer();
    this.#gate.open(this.#first!.dispatcher!);
    this.#mustered = this.#muster(this.#watch);
  }

  /** The operator has intervened: what is missing comes at once. */
  pardon(): void {
    this.#restarts.pardon();
    if (this.#watch === null) return;
    this.#watch.dueAt = null;
    this.#mustered = Promise.all([this.#mustered, this.#muster(this.#watch)]).then(() => {});
  }

  /** Lets open requests finish, runs the plugin's `stop` in each and ends the threads. Resolves to what their `stop` threw. */
  async stop(): Promise<readonly Error[]> {
    const serving = this.all;
    this.#disband();
    const coming = [...this.#coming].map(({ generation }) => generation.gone);
    const failures = await Promise.all(serving.map((compartment) => compartment.stop().then(() => null, (error: Error) => error)));
    await Promise.all(coming);
    return failures.filter((failure) => failure !== null);
  }

  /** Ends the first after a step that failed, and returns the error that says which. */
  async discard(code: StepCode, thrown: unknown): Promise<BulkheadError> {
    const error = stepError(code, this.#record.name, thrown);
    const generation = this.#first?.generation;
    generation?.kill('failed', error.message);
    await generation?.gone;
    return error;
  }

  #onDeath(compartment: Compartment, death: Death, orphans: readonly Orphan[]): void {
    this.#record.bury(death);
    this.#coming.delete(compartment);
    const wasFirst = compartment === this.#first;
    const served = this.#serving.delete(compartment) || wasFirst;
    if (wasFirst) {
      [this.#first = null] = this.#watch === null ? [] : this.#serving;
      if (this.#first !== null) this.#serving.delete(this.#first);
    }
    if (wasFirst && this.#first === null) {
      this.#disband();
      this.#onDown(death);
    } else if (served && this.#watch !== null) this.#replace(this.#watch, death.cause, { at: death.at, excused: false });
    this.#gate.takeBack(orphans);
  }

  /** Calls up as many as are missing. */
  async #muster(watch: Watch, count = (_missing: number): void => {}): Promise<void> {
    const missing = watch.further - this.#serving.size - watch.expected;
    count(missing);
    await Promise.all(Array.from({ length: missing }, () => this.#add(watch)));
  }

  async #add(watch: Watch): Promise<void> {
    watch.expected += 1;
    let own: Compartment | null = null;
    try {
      const { compartment } = await this.#context.furtherBoots.run(() => this.#context.boots.run(async () => {
        if (watch !== this.#watch) throw new Error(OVER);
        return this.#commission.import(watch.code, false, (opened) => {
          this.#coming.add(own = opened);
          this.#enter(opened);
          if (watch !== this.#watch) opened.generation.kill('stopped', OVER);
        });
      }));
      await compartment.init();
      await compartment.mount();
      await compartment.start();
      if (watch !== this.#watch) throw new Error(OVER);
      watch.expected -= 1;
      this.#coming.delete(compartment);
      this.#serving.add(compartment);
      compartment.offer();
      this.#gate.open(compartment.dispatcher!);
      this.#context.changed(this.#record.name);
      this.#log.info({ generation: compartment.number, workers: this.#serving.size + 1, threads: watch.further + 1 }, 'a further worker serves');
    } catch (thrown) {
      watch.expected -= 1;
      const error = stepError('PLUGIN_START_FAILED', this.#record.name, thrown);
      (own as Compartment | null)?.generation.kill('failed', error.message);
      if (watch !== this.#watch) return;
      if (isPermanent(faultOf(error))) this.#log.error(`a further worker cannot be had, and no restart can mend it: ${error.message}`);
      else this.#replace(watch, error.message, { at: Date.now(), excused: isExcuse(thrown) });
    }
  }

  /** One of several is gone. The plugin is not, so it is never given up. */
  #replace(watch: Watch, cause: string, setback: Setback): void {
    const verdict = this.#restarts.judge(setback);
    const dueAt = setback.at + (verdict.action === 'restart' ? verdict.delayMs : BACKOFF_MAX_MS);
    // One that is due for another already brings this one as well.
    watch.dueAt = Math.min(watch.dueAt ?? dueAt, dueAt);
    const delayMs = Math.max(0, watch.dueAt - Date.now());
    this.#log.warn({ workers: this.#serving.size + 1, threads: watch.further + 1, delayMs }, `one of its workers ended, the others carry on; another one in ${delayMs} ms: ${cause}`);
    this.#context.changed(this.#record.name);
    this.#restarts.schedule(delayMs, () => {
      watch.dueAt = null;
      void this.#muster(watch, (missing) => { this.#record.restarts += missing; });
    }, setback.excused ? this.#context.ship.database.onBack : undefined);
  }

  /** No further ones any more. Those on their way end, those that serve are for `stop`. */
  #disband(): void {
    this.#watch = null;
    this.#restarts.cancel();
    for (const { generation } of this.#coming) generation.kill('stopped', OVER);
  }
}
