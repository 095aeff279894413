// What is known of one plugin: its state, how it got there, its deaths and its manifest; and how that is shown to the operator. Must not know workers.
import type { Logger } from 'pino';
import { TRANSITIONS, type Death, type Fault, type PluginState, type PluginStatus, type Transition } from '../../protocol/lifecycle.js';
import { HISTORY_MAX_ENTRIES, PLUGIN_LIMITS, type PluginLimits } from '../../protocol/limits.js';
import type { PluginManifest, RouteDescription } from '../../protocol/plugin.js';
import { noRequests } from '../dispatch/dispatcher.js';
import { noEvents } from '../services/event-party.js';
import type { PriorLife } from './prior-life.js';

export type OnTransition = (transition: Transition) => void;

export class PluginRecord {
  readonly name: string;
  readonly requests = noRequests();
  readonly events = noEvents();
  readonly transitions: Transition[] = [];
  readonly deaths: Death[] = [];
  /** Of the newest generation that could be imported. */
  manifest: PluginManifest | null = null;
  /** What is mounted now: prefixes and the routes below them. */
  mounts: readonly string[] = [];
  routes: readonly RouteDescription[] = [];
  /** Generations that the supervisor began after a death. */
  restarts = 0;
  /** Number of the newest generation that has come into service; 0 before the first. */
  generation = 0;
  /** The last number that was given to a generation. */
  #numbers = 0;
  readonly #log: Logger;
  readonly #onTransition: OnTransition;
  #state: PluginState = { status: 'registered' };
  #since = Date.now();

  constructor(name: string, log: Logger, onTransition: OnTransition) {
    this.name = name;
    this.#log = log;
    this.#onTransition = onTransition;
  }

  get state(): PluginState {
    return this.#state;
  }

  /** Why it does not run, where it failed. */
  get fault(): Fault | null {
    return 'fault' in this.#state ? this.#state.fault : null;
  }

  get limits(): PluginLimits {
    return this.manifest?.limits ?? PLUGIN_LIMITS;
  }

  /** Workers that it shall have while it runs. */
  get threads(): number {
    return this.manifest?.threads ?? 1;
  }

  /** For a generation to come. */
  takeNumber(): number {
    return (this.#numbers += 1);
  }

  get lastNumber(): number {
    return this.#numbers;
  }

  describe(manifest: PluginManifest): void {
    this.manifest = manifest;
    this.mounts = manifest.mounts;
  }

  /** The plugin has been unloaded: only its history stays. */
  forgetCode(): void {
    this.manifest = null;
    this.routes = [];
    this.mounts = [];
  }

  is(...statuses: readonly PluginStatus[]): boolean {
    return statuses.includes(this.#state.status);
  }

  /** Makes every change of state there is. Throws on one that the table does not have: a mistake of the kernel. */
  transition(to: PluginState, cause: string): void {
    const from = this.#state.status;
    if (!TRANSITIONS[from].includes(to.status)) throw new Error(`plugin ${this.name} cannot go from ${from} to ${to.status} (${cause})`);
    const at = Date.now();
    const transition: Transition = { plugin: this.name, from, to: to.status, generation: 'generation' in to ? to.generation : this.generation, cause, at, ms: at - this.#since };
    this.#state = to;
    this.#since = at;
    remember(this.transitions, transition);
    const level = to.status === 'failed' ? 'warn' : to.status === 'quarantined' ? 'error' : 'info';
    this.#log[level](transition, `${this.name}: ${from} -> ${to.status} (${cause})`);
    this.#onTransition(transition);
  }

  bury(death: Death): void {
    if (death.kind !== 'stopped') remember(this.deaths, death);
  }

  /** Takes over what the kernel before knew of it. */
  inherit({ generation, restarts, deaths, routes }: PriorLife): void {
    this.generation = generation;
    this.#numbers = generation;
    this.restarts = restarts;
    this.deaths.push(...deaths);
    this.routes = routes;
  }

  /** One row of `GET /plugins`. */
  summary(): PluginSummary {
    const { manifest } = this;
    return {
      name: this.name,
      version: manifest?.version ?? null,
      description: manifest?.description ?? null,
      status: this.#state.status,
      error: this.fault?.message ?? null,
      generation: this.generation,
      restarts: this.restarts,
      mounts: this.mounts,
    };
  }
}

export interface PluginSummary {
  readonly name: string;
  /** Null until the plugin has been loaded once: its version stands in its code. */
  readonly version: string | null;
  readonly description: string | null;
  readonly status: PluginStatus;
  readonly error: string | null;
  readonly generation: number;
  readonly restarts: number;
  readonly mounts: readonly string[];
}

function remember<T>(list: T[], entry: T): void {
  list.push(entry);
  if (list.length > HISTORY_MAX_ENTRIES) list.shift();
}
