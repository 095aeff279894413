// Puts a plugin's code into a worker of the build that its manifest asks for. Must not know hooks, states or verbs.
import { BulkheadError } from '../../protocol/errors.js';
import type { Death } from '../../protocol/lifecycle.js';
import { missingPermissions } from '../../protocol/permissions.js';
import { THREADS_MAX } from '../../protocol/limits.js';
import { isThreads, type PluginManifest } from '../../protocol/plugin.js';
import { permissionsVariable, threadsVariable } from '../config.js';
import type { Orphan } from '../dispatch/replay.js';
import { Compartment } from './compartment.js';
import type { LifecycleContext } from './lifecycle-context.js';
import type { PluginRecord } from './record.js';

/** The code of a plugin as it was last bundled. */
export interface Code {
  /** URL of the bundle. */
  readonly bundle: string;
  /** Absolute path of the plugin's folder. */
  readonly folder: string;
}

/** A worker has the code, and may die from now on. */
export type OnOpen = (compartment: Compartment) => void;
export type OnDeath = (compartment: Compartment, death: Death, orphans: readonly Orphan[]) => void;

export class Commission {
  readonly #record: PluginRecord;
  readonly #context: LifecycleContext;
  readonly #onDeath: OnDeath;

  constructor(record: PluginRecord, context: LifecycleContext, onDeath: OnDeath) {
    this.#record = record;
    this.#context = context;
    this.#onDeath = onDeath;
  }

  /** An urgent one gets the standby, if that fits. Throws `PLUGIN_LOAD_FAILED` when the manifest asks for more than is granted. */
  async import(code: Code, urgent: boolean, onOpen: OnOpen): Promise<{ readonly compartment: Compartment; readonly manifest: PluginManifest }> {
    const heapMb = this.#record.limits.heapMb;
    const first = await this.#describe(code, heapMb, urgent, onOpen);
    if (first.manifest.limits.heapMb === heapMb) return first;
    // Only its code says how much memory it wants, and a heap cannot change its size: once per change, it boots twice.
    const { generation } = first.compartment;
    generation.kill('stopped', 'it asks for another heap');
    await generation.gone;
    return this.#describe(code, first.manifest.limits.heapMb, urgent, onOpen);
  }

  async #describe(code: Code, heapMb: number, urgent: boolean, onOpen: OnOpen): Promise<{ readonly compartment: Compartment; readonly manifest: PluginManifest }> {
    const { name } = this.#record;
    const { granted, ...settings } = this.#context.settings(name);
    if (settings.threads !== null && !isThreads(settings.threads)) throw new BulkheadError('PLUGIN_LOAD_FAILED', { name, reason: `${threadsVariable(name)} must be a whole number from 1 to ${THREADS_MAX}` });
    const generation = this.#context.standby.take({ heapMb, granted }, urgent);
    const { berths } = this.#context;
    const compartment = new Compartment(this.#context.ship, {
      generation,
      order: { name, generation: this.#record.takeNumber(), bundle: berths.bundleIn(generation.berth, code.bundle), folder: generation.berth, ...settings },
      counts: this.#record.requests,
      events: this.#record.events,
      onDeath: (death, orphans) => this.#onDeath(compartment, death, orphans),
    });
    onOpen(compartment);
    await Promise.all([compartment.enlist(), berths.furnish(generation.berth, code.bundle, code.folder)]);
    const manifest = await compartment.describe();
    const missing = missingPermissions(manifest.permissions, granted);
    if (missing.length === 0) return { compartment, manifest };
    throw new BulkheadError('PLUGIN_LOAD_FAILED', { name, reason: `it asks for permissions that it has not been granted: ${missing.join(',')}. Grant them with ${permissionsVariable(name)}=${[...granted, ...missing].join(',')} and restart` });
  }
}
