// Which plugin each service belongs to, with its contract, whether it runs or not. Must not know workers or ports.
import type { ServiceContract, ServiceContracts } from '../../protocol/contracts.js';
import { BulkheadError } from '../../protocol/errors.js';

interface Claim {
  readonly plugin: string;
  readonly contract: ServiceContract;
}

export class Claims {
  readonly #claims = new Map<string, Claim>();

  /** The plugin that provides it, also while that is down; null when no loaded plugin does. */
  ownerOf(service: string): string | null {
    return this.#claims.get(service)?.plugin ?? null;
  }

  contractOf(service: string): ServiceContract | null {
    return this.#claims.get(service)?.contract ?? null;
  }

  /** The services of this plugin. */
  of(plugin: string): string[] {
    return [...this.#claims].flatMap(([service, claim]) => (claim.plugin === plugin ? [service] : []));
  }

  /** Throws `PLUGIN_CONFLICT` when one of these services is another's. */
  assertFree(plugin: string, contracts: ServiceContracts): void {
    for (const service of Object.keys(contracts)) {
      const owner = this.ownerOf(service) ?? plugin;
      if (owner !== plugin) throw new BulkheadError('PLUGIN_CONFLICT', { name: plugin, reason: `the service "${service}" is provided by plugin "${owner}" already` });
    }
  }

  /** From now on these and no others are the plugin's, until it is forgotten. They must be free. */
  claim(plugin: string, contracts: ServiceContracts): void {
    this.forget(plugin);
    for (const [service, contract] of Object.entries(contracts)) this.#claims.set(service, { plugin, contract });
  }

  forget(plugin: string): void {
    for (const service of this.of(plugin)) this.#claims.delete(service);
  }
}
