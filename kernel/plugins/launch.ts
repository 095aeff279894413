// The way of one plugin from its code to a worker that serves, and back, step by step. Must not know verbs, restarts or what follows from a failure.
import type { BulkheadError } from '../../protocol/errors.js';
import type { PluginManifest } from '../../protocol/plugin.js';
import type { CatalogEntry } from './catalog.js';
import type { Code } from './commission.js';
import type { Compartment } from './compartment.js';
import type { Enrolment } from './enrolment.js';
import type { StepCode } from './faults.js';
import type { LifecycleContext } from './lifecycle-context.js';
import type { PluginRecord } from './record.js';
import { Tables } from './tables.js';
import type { Workers } from './workers.js';

/** What becomes of services that the plugin requires: it fails for want of them, it waits for those that are on their way, or it makes do without. */
export type Needs = 'required' | 'awaited' | 'ignored';

export class Launch {
  readonly #record: PluginRecord;
  readonly #context: LifecycleContext;
  readonly #workers: Workers;
  readonly #enrolment: Enrolment;
  readonly #tables: Tables;
  #code: Code | null = null;

  constructor(record: PluginRecord, context: LifecycleContext, workers: Workers, enrolment: Enrolment) {
    this.#record = record;
    this.#context = context;
    this.#workers = workers;
    this.#enrolment = enrolment;
    this.#tables = new Tables(record.name, context.ship);
  }

  /** As it was last bundled, or null. */
  get code(): Code | null {
    return this.#code;
  }

  /** What the kernel before this one had. */
  inherit(code: Code | null, manifest: PluginManifest | null): void {
    this.#code = code;
    if (manifest !== null) this.#enrol(manifest, true);
  }

  /** Gives fresh code to a further worker, as far as no hook has run. What is wrong with it leaves the one that serves alone. */
  async rehearse(entry: CatalogEntry, force: boolean): Promise<void> {
    if (this.#workers.first === null) return;
    const code = await this.#enrolment.bundle(entry, this.#code);
    try {
      this.#enrolment.check(await this.#context.boots.run(() => this.#workers.prepare(code)), force);
    } catch (thrown) {
      throw this.#workers.discardNext('PLUGIN_LOAD_FAILED', thrown);
    }
    this.#code = code;
  }

  /** Fresh code for the next boot, unless a worker was prepared with it. */
  async renew(entry: CatalogEntry): Promise<void> {
    if (!this.#workers.prepared) this.#code = await this.#enrolment.bundle(entry, this.#code);
  }

  /** To `mounted`. `force`: also when others break. */
  async boot(entry: CatalogEntry, cause: string, { needs, force }: { readonly needs: Needs; readonly force: boolean }): Promise<void> {
    const record = this.#record;
    const code = (this.#code ??= await this.#enrolment.bundle(entry, null));
    // Only the import takes turns with other plugins: a hook that waits must not keep others from coming back.
    const { compartment, manifest } = await this.#context.boots.run(() => this.#workers.import(code));
    this.#enrol(manifest, force);
    if (needs !== 'ignored') await this.#satisfied(compartment, needs === 'required');
    await this.#tables.prepare(code, manifest.grants, () => compartment.init());
    record.transition({ status: 'initialized', generation: record.generation }, cause);
    record.routes = await compartment.mount();
    this.#enrolment.refresh();
    record.transition({ status: 'mounted', generation: record.generation }, cause);
  }

  /** From `mounted` to `running`. */
  async run(cause: string): Promise<void> {
    await this.#workers.first!.start();
    for (const status of ['started', 'running'] as const) this.#record.transition({ status, generation: this.#record.generation }, cause);
    this.#workers.serve(this.#code!);
  }

  /** To `stopped`, from wherever it is. */
  async stop(cause: string): Promise<void> {
    const record = this.#record;
    const { first } = this.#workers;
    if (first !== null && record.is('initialized', 'mounted', 'started', 'running')) {
      record.transition({ status: 'stopping', generation: first.number }, cause);
      const failures = await this.#workers.stop();
      record.transition({ status: 'stopped' }, [cause, ...new Set(failures.map(({ message }) => message))].join('; '));
      return;
    }
    // It has died while this verb prepared the next.
    if (record.is('initialized', 'mounted', 'started', 'running')) record.transition({ status: 'failed', fault: { code: 'PLUGIN_CRASHED', message: record.deaths.at(-1)?.cause ?? 'its worker ended' } }, 'its worker ended');
    if (record.is('failed', 'restarting', 'quarantined')) record.transition({ status: 'stopped' }, cause);
  }

  /** To `registered`, from `stopped`. */
  forget(): void {
    this.#enrolment.leave();
    this.#context.interceptors.withdraw(this.#record.name);
    this.#record.forgetCode();
    this.#code = null;
    if (!this.#record.is('registered')) this.#record.transition({ status: 'registered' }, 'unload');
  }

  /** No worker is left. Returns the error that says what has failed. */
  discard(code: StepCode, thrown: unknown): Promise<BulkheadError> {
    return this.#workers.discard(code, thrown);
  }

  /** Its worker may die meanwhile, which is known at once. */
  async #satisfied({ generation }: Compartment, strict: boolean): Promise<void> {
    const { name } = this.#record;
    await Promise.race([this.#context.dependencies.satisfied(name, strict), generation.gone.then(() => { throw new Error('its worker ended while it waited for what it needs'); })]);
  }

  #enrol(manifest: PluginManifest, force: boolean): void {
    this.#enrolment.check(manifest, force);
    this.#enrolment.enter(manifest);
    this.#workers.declare(manifest);
  }
}
