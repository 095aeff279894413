// Puts a plugin's code into a worker of the build that its manifest asks for. Must not know hooks, states or verbs.
import { BulkheadError } from '../../protocol/errors.js';
import type { Death } from '../../protocol/lifecycle.js';
import { missingPermissions } from '../../protocol/permissions.js';
import type { PluginManifest } from '../../protocol/plugin.js';
import { permissionsVariable } from '../config.js';
import type { Orphan } from '../dispatch/replay.js';
import type { CatalogEntry } from './catalog.js';
import { Compartment } from './compartment.js';
import { stepError } from './faults.js';
import type { LifecycleContext } from './lifecycle-context.js';
import type { PluginRecord } from './record.js';

/** The code of a plugin as it was last bundled. */
export interface Code {
  /** URL of the bundle. */
  readonly bundle: string;
  /** Absolute path of the plugin's folder. */
  readonly folder: string;
}

export interface CommissionEvents {
  /** A worker has the code, and may die from now on. */
  readonly onOpen: (compartment: Compartment) => void;
  readonly onDeath: (compartment: Compartment, death: Death, orphans: readonly Orphan[]) => void;
}

export class Commission {
  readonly #record: PluginRecord;
  readonly #context: LifecycleContext;
  readonly #events: CommissionEvents;

  constructor(record: PluginRecord, context: LifecycleContext, events: CommissionEvents) {
    this.#record = record;
    this.#context = context;
    this.#events = events;
  }

  /** Throws `PLUGIN_LOAD_FAILED` with what is wrong in the code. */
  async bundle({ name, file, folder }: CatalogEntry): Promise<Code> {
    const bundle = await this.#context.bundler.bundle(name, file).catch((error: unknown) => { throw stepError('PLUGIN_LOAD_FAILED', name, error); });
    return { bundle, folder };
  }

  /** Throws `PLUGIN_LOAD_FAILED` when the manifest asks for more than is granted. */
  async import(code: Code): Promise<{ readonly compartment: Compartment; readonly manifest: PluginManifest }> {
    const heapMb = this.#record.limits.heapMb;
    const first = await this.#describe(code, heapMb);
    if (first.manifest.limits.heapMb === heapMb) return first;
    // Only its code says how much memory it wants, and a heap cannot change its size: once per change, it boots twice.
    const { generation } = first.compartment;
    generation.kill('stopped', 'it asks for another heap');
    await generation.gone;
    return this.#describe(code, first.manifest.limits.heapMb);
  }

  async #describe(code: Code, heapMb: number): Promise<{ readonly compartment: Compartment; readonly manifest: PluginManifest }> {
    const { name } = this.#record;
    const { granted, ...settings } = this.#context.settings(name);
    const generation = this.#context.standby.take({ heapMb, granted });
    const { berths } = this.#context;
    const compartment = new Compartment(this.#context.ship, {
      generation,
      order: { name, generation: (this.#record.generation += 1), bundle: berths.bundleIn(generation.berth, code.bundle), folder: generation.berth, ...settings },
      counts: this.#record.requests,
      onDeath: (death, orphans) => this.#events.onDeath(compartment, death, orphans),
    });
    this.#events.onOpen(compartment);
    await Promise.all([compartment.enlist(), berths.furnish(generation.berth, code.bundle, code.folder)]);
    const manifest = await compartment.describe();
    const missing = missingPermissions(manifest.permissions, granted);
    if (missing.length === 0) return { compartment, manifest };
    throw new BulkheadError('PLUGIN_LOAD_FAILED', { name, reason: `it asks for permissions that it has not been granted: ${missing.join(',')}. Grant them with ${permissionsVariable(name)}=${[...granted, ...missing].join(',')} and restart` });
  }
}
