// What every plugin's lifecycle works with, and the operator's verbs. Must not know what they do.
import type { HostOrder } from '../../protocol/host-api.js';
import type { Dependencies } from '../services/dependencies.js';
import type { Interceptors } from '../intercept/interceptors.js';
import type { Bundler } from './bundler.js';
import type { Ship } from './compartment.js';
import type { Lifecycle } from './lifecycle.js';
import type { Berths } from './berths.js';
import type { Mounts } from './mounts.js';
import type { Standby } from './standby.js';
import type { Turnstile } from './turnstile.js';

export type Verb = 'load' | 'start' | 'stop' | 'unload' | 'restart';

/** What the operator's configuration says of one plugin. */
export interface PluginOrders extends Pick<HostOrder, 'environment' | 'config' | 'threads' | 'logLevel' | 'debug' | 'trustProxy'> {
  /** Permissions that it may have beyond its walls. */
  readonly granted: readonly string[];
}

export interface LifecycleContext {
  readonly ship: Ship;
  readonly bundler: Bundler;
  readonly berths: Berths;
  readonly standby: Standby;
  readonly mounts: Mounts<Lifecycle>;
  readonly dependencies: Dependencies;
  /** Names of the plugins that run. */
  readonly running: () => readonly string[];
  readonly interceptors: Interceptors;
  /** Bounds the boots of all plugins together. */
  readonly boots: Turnstile;
  /** And those of further workers within them, which must not keep a plugin that is down waiting. */
  readonly furtherBoots: Turnstile;
  /** What the next kernel must know of the plugin has changed without a transition. */
  readonly changed: (name: string) => void;
  readonly settings: (name: string) => PluginOrders;
  readonly random: () => number;
}
