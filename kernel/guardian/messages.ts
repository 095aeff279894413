// What guardian and kernel tell each other over the channel between their processes. Must not know what they do with it.
import type { Config } from '../config.js';
import type { Occupant } from '../plugins/compartment.js';
import type { PriorLife } from '../plugins/prior-life.js';

/** What a kernel is made of. It travels as a message, because a diagnostic report would show the environment with its secrets. */
export interface KernelOrder {
  readonly config: Config;
  readonly databaseUrl: string;
  /** In the order in which they are begun. */
  readonly plugins: readonly PriorLife[];
}

export type GuardianMessage =
  | { readonly kind: 'boot'; readonly order: KernelOrder }
  /** Comes with the client's socket. */
  | { readonly kind: 'connection'; readonly id: number }
  | { readonly kind: 'stop' };

export type KernelMessage =
  /** It can answer; plugins are still coming. */
  | { readonly kind: 'ready' }
  /** Each plugin is back, or has failed once. */
  | { readonly kind: 'booted' }
  /** It cannot be, or go on; its process ends. */
  | { readonly kind: 'failed'; readonly message: string }
  /** The connection is the kernel's from here on. */
  | { readonly kind: 'taken'; readonly id: number }
  | { readonly kind: 'thread'; readonly threadId: number; readonly occupant: Occupant }
  /** How the next kernel brings this plugin back; null when it is not loaded any more. */
  | { readonly kind: 'plugin'; readonly name: string; readonly prior: PriorLife | null };
