// Who needs whose services: in which order plugins start and stop, who waits for whom, and what is missing. Must not know workers or ports.
import { BulkheadError } from '../../protocol/errors.js';
import type { PluginManifest } from '../../protocol/plugin.js';
import { COMPATIBILITY_STEPS_MAX } from '../../protocol/service-limits.js';
import { breaches } from '../contracts/compatibility.js';
import { Steps } from '../contracts/schema-cases.js';
import type { ServiceRegistry } from './registry.js';

type Needs = Pick<PluginManifest, 'requires' | 'optional' | 'services'>;

export class Dependencies {
  readonly #services: ServiceRegistry;
  readonly #needs = new Map<string, Needs>();
  /** Plugins of the kernel's boot that have not said yet what they provide. */
  readonly #arriving = new Set<string>();
  #waiters: (() => void)[] = [];

  constructor(services: ServiceRegistry) {
    this.#services = services;
  }

  /** It will say what it provides, or fail. */
  announce(plugin: string): void {
    this.#arriving.add(plugin);
  }

  /** What the plugin's code needs and provides. Throws `PLUGIN_CONFLICT` when a service is another's. */
  claim(plugin: string, { requires, optional, services }: Needs): void {
    this.#services.claims.claim(plugin, services);
    this.#needs.set(plugin, { requires, optional, services });
    this.arrived(plugin);
  }

  /** It has said so, or never will. */
  arrived(plugin: string): void {
    this.#arriving.delete(plugin);
    this.changed();
  }

  forget(plugin: string): void {
    this.#services.claims.forget(plugin);
    this.#needs.delete(plugin);
    this.arrived(plugin);
  }

  /** Some plugin is up or down that was not before. */
  changed(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }

  /** Services that it requires and that are not provided now. */
  missing(plugin: string): string[] {
    return (this.#needs.get(plugin)?.requires ?? []).filter((service) => !this.#services.has(service));
  }

  /**
   * Resolves when all that it requires is provided, and when what it would like to have is, if that is on its way: so plugins start in levels, those of a level side by side.
   * Throws `DEPENDENCY_CYCLE` or `DEPENDENCY_MISSING`. Every wait ends, because a provider that is on its way arrives or fails.
   */
  async satisfied(plugin: string): Promise<void> {
    for (;;) {
      const { requires, optional } = this.#needs.get(plugin)!;
      const cycle = this.#path(plugin, plugin, ({ requires: needed }) => needed);
      if (cycle !== null) throw new BulkheadError('DEPENDENCY_CYCLE', { name: plugin, path: cycle });
      const lacking = requires.filter((service) => !this.#services.has(service));
      const lost = lacking.filter((service) => !this.#comes(service));
      if (lost.length > 0) throw new BulkheadError('DEPENDENCY_MISSING', { name: plugin, services: lost.map((service) => this.#describe(service)) });
      const wished = optional.filter((service) => !this.#services.has(service) && this.#comes(service) && !this.#waitsFor(service, plugin));
      if (lacking.length === 0 && wished.length === 0) return;
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
  }

  /** Throws `PLUGIN_CONFLICT` when plugins of `running` use what these services would not be any more. */
  assertKept(plugin: string, after: PluginManifest['services'], running: readonly string[]): void {
    const steps = new Steps(COMPATIBILITY_STEPS_MAX);
    for (const service of this.#services.claims.of(plugin)) {
      const broken = breaches(this.#services.claims.contractOf(service)!, after[service], steps);
      if (broken.length === 0) continue;
      const consumers = running.filter((other) => other !== plugin && this.#uses(other, service));
      if (consumers.length === 0) continue;
      const reason = `its new code would break ${consumers.map((name) => `"${name}"`).join(', ')}, which use${consumers.length === 1 ? 's' : ''} the service "${service}": ${broken.join('; ')}. Nothing was changed; to load it all the same, repeat with ?force=true`;
      throw new BulkheadError('PLUGIN_CONFLICT', { name: plugin, reason });
    }
  }

  /** Whether the one has declared that it uses a service of the other. */
  dependsOn(consumer: string, provider: string): boolean {
    const needs = this.#needs.get(consumer);
    return needs !== undefined && [...needs.requires, ...needs.optional].some((service) => this.#services.claims.ownerOf(service) === provider);
  }

  #uses(plugin: string, service: string): boolean {
    const needs = this.#needs.get(plugin);
    return needs !== undefined && (needs.requires.includes(service) || needs.optional.includes(service));
  }

  #comes(service: string): boolean {
    return this.#services.claims.ownerOf(service) === null ? this.#arriving.size > 0 : this.#services.isExpected(service);
  }

  #describe(service: string): string {
    const owner = this.#services.claims.ownerOf(service);
    return owner === null ? `"${service}", which no loaded plugin provides` : `"${service}", whose plugin "${owner}" is not running`;
  }

  /** Whether the provider of the service starts after this plugin: to wait for it would be for ever. */
  #waitsFor(service: string, plugin: string): boolean {
    const owner = this.#services.claims.ownerOf(service);
    return owner !== null && (owner === plugin || this.#path(owner, plugin, ({ requires, optional }) => [...requires, ...optional]) !== null);
  }

  /** From the one to the other over what each needs, as `a (a service of b) -> b (...) -> ...`; null when there is no way. */
  #path(from: string, to: string, needed: (needs: Needs) => readonly string[]): string[] | null {
    const seen = new Set<string>();
    const walk = (plugin: string): string[] | null => {
      if (seen.has(plugin)) return null;
      seen.add(plugin);
      const needs = this.#needs.get(plugin);
      for (const service of needs === undefined ? [] : needed(needs)) {
        const owner = this.#services.claims.ownerOf(service);
        if (owner === null) continue;
        const rest = owner === to ? [to] : walk(owner);
        if (rest !== null) return [`${plugin} (${service})`, ...rest];
      }
      return null;
    };
    return walk(from);
  }
}
