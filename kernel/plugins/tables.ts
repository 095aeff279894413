// Brings the database to what a plugin's code expects, once for each time its code is loaded. Must not know how that is done, or hooks and states.
import type { Grant } from '../../protocol/grants.js';
import { applyGrants } from '../database/grants.js';
import { migrate } from '../database/migrations.js';
import type { Code } from './commission.js';
import type { Ship } from './compartment.js';

export class Tables {
  readonly #plugin: string;
  readonly #ship: Ship;
  /** What the database was brought to. */
  #settled: Code | null = null;

  constructor(plugin: string, ship: Ship) {
    this.#plugin = plugin;
    this.#ship = ship;
  }

  /** Runs its migrations, then `init`, which may make tables too, then lets others use what it grants. */
  async prepare(code: Code, grants: readonly Grant[], init: () => Promise<void>): Promise<void> {
    if (code === this.#settled) return init();
    const { scopes } = this.#ship;
    const wasUsed = scopes.has(this.#plugin);
    scopes.forget(this.#plugin); // whatever has been done to its schema and role, to load it again mends it
    await migrate({ ...this.#ship, plugin: this.#plugin, folder: code.folder });
    await init();
    const share = (): Promise<void> => applyGrants(this.#ship, this.#plugin, grants);
    // A plugin that does not use the database must not fail for want of one.
    if (grants.length > 0 || wasUsed || scopes.has(this.#plugin)) await share();
    else scopes.onFirstUse(this.#plugin, share);
    this.#settled = code;
  }
}
