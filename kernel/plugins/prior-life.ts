// What outlives a kernel's process of one plugin, so that the next kernel brings it back as it was. Must not know who keeps it meanwhile.
import type { Death, PluginState } from '../../protocol/lifecycle.js';
import type { PluginManifest, RouteDescription } from '../../protocol/plugin.js';
import type { Code } from './commission.js';
import type { PluginRecord } from './record.js';

/** Plain data: it travels between processes as JSON. */
export interface PriorLife {
  readonly name: string;
  /** What it is brought back to. */
  readonly standing: Standing;
  /** The last number that was given to a generation; the next kernel counts on from there. 0 when it has never had one. */
  readonly generation: number;
  readonly restarts: number;
  readonly deaths: readonly Death[];
  /** What it ran, so that it comes back with the same code and without a bundler. */
  readonly code: Code | null;
  /** Of its newest generation; with it the plugin answers under its mounts even while it is stopped. */
  readonly manifest: PluginManifest | null;
  readonly routes: readonly RouteDescription[];
}

export type Standing = { readonly status: 'mounted' } | { readonly status: 'running' } | Extract<PluginState, { status: 'stopped' | 'failed' | 'quarantined' }>;

/** A plugin of `PLUGINS_ENABLED`, before any kernel has run it. */
export function firstLife(name: string): PriorLife {
  return { name, standing: { status: 'running' }, generation: 0, restarts: 0, deaths: [], code: null, manifest: null, routes: [] };
}

/** What the next kernel must know, or null when there is nothing to bring back. A fault outweighs what the operator wanted. */
export function priorOf(record: PluginRecord, wanted: 'mounted' | 'running' | 'stopped', code: Code | null): PriorLife | null {
  const { state, name, lastNumber: generation, restarts, deaths, manifest, routes } = record;
  if (state.status === 'registered') return null;
  const standing = state.status === 'failed' || state.status === 'quarantined' ? state : { status: wanted };
  return { name, standing, generation, restarts, deaths, code, manifest, routes };
}
