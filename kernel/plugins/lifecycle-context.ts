// What every plugin's lifecycle works with, and the operator's verbs. Must not know what they do.
import type { HostOrder } from '../../protocol/host-api.js';
import type { Bundler } from './bundler.js';
import type { Ship } from './compartment.js';
import type { Lifecycle } from './lifecycle.js';
import type { Mounts } from './mounts.js';
import type { Turnstile } from './turnstile.js';

export type Verb = 'load' | 'start' | 'stop' | 'unload' | 'restart';

export interface LifecycleContext {
  readonly ship: Ship;
  readonly bundler: Bundler;
  readonly mounts: Mounts<Lifecycle>;
  /** Bounds the boots of all plugins together. */
  readonly boots: Turnstile;
  /** The operator's variables for this plugin, and the level of its log. */
  readonly settings: (name: string) => Pick<HostOrder, 'environment' | 'config' | 'logLevel' | 'debug'>;
  readonly random: () => number;
}
