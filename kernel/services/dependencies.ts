// Who needs whose services: in which order plugins start and stop, who waits for whom, and what is missing. Must not know workers or ports.
import { BulkheadError } from '../../protocol/errors.js';
import type { PluginManifest } from '../../protocol/plugin.js';
import { COMPATIBILITY_STEPS_MAX, DEPENDENCY_WAIT_MS } from '../../protocol/service-limits.js';
import { breaches } from '../contracts/compatibility.js';
import { Steps } from '../contracts/schema-cases.js';
import type { ServiceRegistry } from './registry.js';

type Needs = Pick<PluginManifest, 'requires' | 'optional'>;

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

  /** What the plugin's code needs and provides. No service may be another's. */
  claim(plugin: string, { requires, optional, services }: Needs & Pick<PluginManifest, 'services'>): void {
    this.#services.claims.claim(plugin, services);
    this.#needs.set(plugin, { requires, optional });
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
   * Throws `DEPENDENCY_CYCLE`, and when it is `strict` `DEPENDENCY_MISSING`; else it does without what is not on its way. A provider that is so for longer than DEPENDENCY_WAIT_MS counts as missing.
   */
  async satisfied(plugin: string, strict: boolean): Promise<void> {
    const until = performance.now() + DEPENDENCY_WAIT_MS;
    for (;;) {
      const late = performance.now() >= until;
      const { requires, optional } = this.#needs.get(plugin)!;
      const cycle = this.#path(plugin, plugin, ({ requires: needed }) => needed);
      if (cycle !== null) throw new BulkheadError('DEPENDENCY_CYCLE', { name: plugin, path: cycle });
      const lacking = requires.filter((service) => !this.#services.has(service));
      const lost = lacking.filter((service) => late || !this.#comes(service));
      if (lost.length > 0 && strict) throw new BulkheadError('DEPENDENCY_MISSING', { name: plugin, services: lost.map((service) => this.#describe(service)) });
      const wished = optional.filter((service) => !late && !this.#services.has(service) && this.#comes(service) && !this.#waitsFor(service, plugin));
      if (lacking.length === lost.length && wished.length === 0) return;
      await this.#change(until);
    }
  }

  /** Throws `PLUGIN_CONFLICT` when a service is another's. */
  assertFree(plugin: string, services: PluginManifest['services']): void {
    this.#services.claims.assertFree(plugin, services);
  }

  /** Throws `PLUGIN_CONFLICT` when plugins of `running` use what these services would not be any more. */
  assertKept(plugin: string, after: PluginManifest['services'], running: readonly string[]): void {
    const steps = new Steps(COMPATIBILITY_STEPS_MAX);
    for (const service of this.#services.claims.of(plugin)) {
      const broken = breaches(this.#services.claims.contractOf(service)!, after[service], steps);
      if (broken.length === 0) continue;
      const consumers = running.filter((other) => other !== plugin && this.#uses(other, service));
      if (consumers.length === 0) continue;
      const reason = `its new code would break ${consumers.map((name) => `"${name}"`).join(', ')}, which use${consumers.length === 1 ? 's' : ''} the service "${service}": ${broken.join('; ')}. To load it all the same, repeat with ?force=true`;
      throw new BulkheadError('PLUGIN_CONFLICT', { name: plugin, reason });
    }
  }

  /** Whether the one has declared that it uses a service of the other. */
  dependsOn(consumer: string, provider: string): boolean {
    const needs = this.#needs.get(consumer);
    return needs !== undefined && [...needs.requires, ...needs.optional].some((service) => this.#services.claims.ownerOf(service) === provider);
  }

  /** Resolves when some plugin is up or down, and at that time of `performance.now()` at the latest. */
  #change(until: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, Math.max(1, until - performance.now()));
      this.#waiters.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
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
