// The control plane: what the kernel can ask of a host, one call at a time, over comlink. Must not know either side.
import type { MessagePort } from 'node:worker_threads';
import type { PluginManifest, RouteDescription } from './plugin.js';

/** What a worker is born with. */
export interface HostBirth {
  readonly control: MessagePort;
  readonly data: MessagePort;
  readonly status: SharedArrayBuffer;
}

/** Which plugin a host is to run. */
export interface HostOrder {
  readonly name: string;
  readonly generation: number;
  /** URL of the bundled plugin file, inside `folder`. */
  readonly bundle: string;
  /** Absolute path of the folder that the worker may read. */
  readonly folder: string;
  /** The operator's variables for this plugin, under their full names: the worker's whole environment. */
  readonly environment: Readonly<Record<string, string>>;
  /** The same without the prefix, as `ctx.config`. */
  readonly config: Readonly<Record<string, string>>;
  /** Workers that run the plugin, or null for as many as its manifest says. */
  readonly threads: number | null;
  /** A level of pino. */
  readonly logLevel: string;
  /** Whether clients see the text of unexpected errors. */
  readonly debug: boolean;
  /** Whose `X-Forwarded-*` headers are believed, as Fastify's option of the same name takes it. */
  readonly trustProxy: boolean | readonly string[];
}

/** The host's answers; each rejects with a plain error. Called in this order, each at most once. */
export interface HostApi {
  /** Resolves when the host is loaded and warm; only a standby is asked. */
  ready(): Promise<void>;
  /** Takes the order; the bundle need not be there yet. */
  enlist(order: HostOrder): Promise<void>;
  /** Imports the bundle and reads its manifest; no hook has run yet. */
  describe(): Promise<PluginManifest>;
  /** Runs the plugin's `init`. */
  init(): Promise<void>;
  /** Runs the plugin's `routes` and makes its Fastify ready. */
  mount(): Promise<readonly RouteDescription[]>;
  /** Runs the plugin's `start`. */
  start(): Promise<void>;
  /** Aborts `ctx.signal`, runs the plugin's `stop` and lets the worker's task end. */
  stop(): Promise<void>;
}
