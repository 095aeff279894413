// What a plugin's code asks of the whole: it is bundled, checked against the other plugins, and entered with its mounts, services and needs. Must not know workers or states.
import { BulkheadError } from '../../protocol/errors.js';
import type { PluginManifest } from '../../protocol/plugin.js';
import type { CatalogEntry } from './catalog.js';
import type { Code } from './commission.js';
import { stepError } from './faults.js';
import type { LifecycleContext } from './lifecycle-context.js';
import type { Lifecycle } from './lifecycle.js';

export class Enrolment {
  readonly #life: Lifecycle;
  readonly #context: LifecycleContext;

  constructor(life: Lifecycle, context: LifecycleContext) {
    this.#life = life;
    this.#context = context;
  }

  get #name(): string {
    return this.#life.record.name;
  }

  /** `present` is what it may have to go on with. Throws `PLUGIN_LOAD_FAILED` with what is wrong in the code. */
  async bundle({ file, folder }: CatalogEntry, present: Code | null): Promise<Code> {
    const bundle = await this.#context.bundler.bundle(this.#name, file, present?.bundle).catch((error: unknown) => { throw stepError('PLUGIN_LOAD_FAILED', this.#name, error); });
    return { bundle, folder };
  }

  /** Whether this can be entered. Throws `PLUGIN_CONFLICT` when a mount or a service is another's, or when others would break and nobody insists. */
  check(manifest: PluginManifest, force: boolean): void {
    const taken = this.#context.mounts.taken(this.#life, manifest.mounts);
    if (taken !== undefined) throw new BulkheadError('PLUGIN_CONFLICT', { name: this.#name, reason: `the mount ${taken.prefix} belongs to plugin "${taken.owner.record.name}"` });
    this.#context.dependencies.assertFree(this.#name, manifest.services);
    if (!force) this.#context.dependencies.assertKept(this.#name, manifest.services, this.#context.running());
  }

  /** From here on the plugin answers under its mounts, if only with why it cannot, and its services are its own. */
  enter(manifest: PluginManifest): void {
    this.#context.dependencies.claim(this.#name, manifest);
    this.#life.record.describe(manifest);
    this.#context.mounts.set(this.#life, manifest.mounts);
  }

  /** The documentation follows the table's version. */
  refresh(): void {
    this.#context.mounts.set(this.#life, this.#life.record.mounts);
  }

  leave(): void {
    this.#context.mounts.set(this.#life, []);
    this.#context.dependencies.forget(this.#name);
  }
}
