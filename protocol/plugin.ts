// What a plugin is: its definition, its context, and its manifest as data. Must not know the kernel or the host.
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { FastifyInstance, FastifyBaseLogger, RawReplyDefaultExpression, RawRequestDefaultExpression, RawServerDefault } from 'fastify';
import type { Logger } from 'pino';
import type { Pool } from 'pg';
import { MEMORY_BESIDE_HEAP_MB, MOUNTS_MAX, PLUGIN_LIMITS, PLUGIN_NAME_MAX_CHARACTERS, THREADS_MAX, type PluginLimits } from './limits.js';
import { grantProblems, type Grant } from './grants.js';
import { interceptorManifests, interceptorProblems, type Interceptor, type InterceptorManifest } from './interceptors.js';
import { permissionProblems, type Permission } from './permissions.js';
import { needProblems, offerProblems, readContracts, type ServiceContracts } from './contracts.js';
import type { Events } from './events.js';
import type { OfferedServices, PluginServiceName, Services } from './services.js';
import { readTopics, topicsProblems, type TopicDeclaration } from './topics.js';

/** The Fastify instance of a plugin, typed so that handlers know the TypeBox schemas of their route. */
export type PluginApp = FastifyInstance<RawServerDefault, RawRequestDefaultExpression, RawReplyDefaultExpression, FastifyBaseLogger, TypeBoxTypeProvider>;

declare module 'fastify' {
  interface FastifyRequest {
    /** The prefix under which the plugin was reached, such as `/items`; build links from it. `url` is what follows it. */
    readonly mount: string;
  }
}

/** What a plugin gets; it lives as long as one generation. */
export interface PluginContext {
  readonly name: string;
  /** Absolute path of the plugin's files, to be read; paths relative to `import.meta.url` lead there too. */
  readonly folder: string;
  /** The operator's settings for this plugin: `PLUGIN_<NAME>_GREETING=hi` is `config.GREETING`. */
  readonly config: Readonly<Record<string, string>>;
  readonly log: Logger;
  /**
   * A pool of connections that the kernel lends; use it as any `pg.Pool`, but do not end it. Tables are in the plugin's own schema, `plugin_<name>`. What a request has asked for ends with it: when its client leaves or
   * its deadline passes, a running statement is cancelled on the server and rolled back with its transaction, and it or the wait for a connection rejects with
   * an `AbortError` (`code` `ABORT_ERR`). What begins after that runs, to clean up.
   */
  readonly db: Pool;
  /** Aborted when the generation stops, before `stop()` is called. */
  readonly signal: AbortSignal;
  readonly services: Services;
  readonly events: Events;
}

/** The default export of a plugin's `plugin.ts` or `plugin.js`. */
export interface PluginDefinition {
  /** The same as the plugin's folder; see `pluginNameProblem` for what is allowed. */
  readonly name: string;
  readonly version: string;
  readonly description?: string;
  /** Extra path prefixes besides `/plugins/<name>`, such as `/items`. */
  readonly mounts?: readonly string[];
  /** Of each of its workers; `connections` of all of them together. */
  readonly limits?: Partial<PluginLimits>;
  /** Workers that run it side by side (1 to 16, by default 1): each a whole plugin with hooks and memory of its own, which the requests are shared out among. */
  readonly threads?: number;
  /** What it needs beyond its walls; the operator grants it with `PLUGIN_<NAME>_PERMISSIONS`. */
  readonly permissions?: readonly Permission[];
  /** What other plugins may do with its tables. They find them in its schema: `SELECT ... FROM plugin_items.items`. */
  readonly grants?: readonly Grant[];
  /** Services of other plugins that it cannot do without: it starts when their providers run, and is `degraded` while one is down. */
  readonly requires?: readonly PluginServiceName[];
  /** Services that it uses when they are there. */
  readonly optional?: readonly PluginServiceName[];
  /** What it offers to other plugins while it runs, by name. A function is called before `init`, and does no work yet. */
  readonly services?: OfferedServices | ((ctx: PluginContext) => OfferedServices);
  /** Topics that it publishes, as far as there is something to say of them: `{ 'order.placed': { durable: true } }`. */
  readonly topics?: Readonly<Record<string, TopicDeclaration>>;
  /** What it does with the requests of other plugins, from the moment that it has been loaded; see `Interceptor`. */
  readonly interceptors?: readonly Interceptor<PluginContext>[];
  /** Prepares what the plugin needs, such as tables. Other plugins may not be there yet. */
  init?(ctx: PluginContext): void | Promise<void>;
  /** Registers routes, hooks and Fastify plugins. */
  routes?(app: PluginApp, ctx: PluginContext): void | Promise<void>;
  /** Begins the work; requests are admitted once this has succeeded. */
  start?(ctx: PluginContext): void | Promise<void>;
  /** Ends the work, when `init` has succeeded; no request is open any more. Services, events and the database are still there. */
  stop?(ctx: PluginContext): void | Promise<void>;
}

/** Gives a definition its type; a plain object as default export works as well. */
export function definePlugin(definition: PluginDefinition): PluginDefinition {
  return definition;
}

/** What a definition says of itself, as data: this is all that the kernel ever sees of it. */
export interface PluginManifest {
  readonly name: string;
  readonly version: string;
  readonly description: string;
  readonly mounts: readonly string[];
  readonly limits: PluginLimits;
  readonly threads: number;
  readonly permissions: readonly string[];
  readonly grants: readonly Grant[];
  readonly requires: readonly string[];
  readonly optional: readonly string[];
  /** What it offers, as data. */
  readonly services: ServiceContracts;
  readonly topics: Readonly<Record<string, TopicDeclaration>>;
  readonly interceptors: readonly InterceptorManifest[];
}

/** One route of a plugin as data, for the documentation. */
export interface RouteDescription {
  readonly method: string;
  /** Below the mount, in Fastify's syntax. */
  readonly url: string;
  /** The route's schema as JSON; empty when it has none. */
  readonly schema: Readonly<Record<string, unknown>>;
}

/** Words that follow `/plugins/` in the operator's own routes, and names with a meaning to JavaScript. */
const RESERVED_NAMES: ReadonlySet<string> = new Set([
  'load', 'start', 'stop', 'unload', 'restart', 'reload', 'status', 'events', 'dead-letters', 'audit', 'profile', 'heap', 'log', 'kernel', 'constructor', 'prototype',
]);

/** First segments of the kernel's own paths; no plugin can mount there. */
const RESERVED_SEGMENTS: ReadonlySet<string> = new Set(['plugins', 'health', 'docs', 'openapi.json', 'metrics', 'console']);

/** Whether no plugin can ever have this path. */
export function isKernelPath(path: string): boolean {
  const [, first = '', second = ''] = path.split('/');
  return first === 'plugins' ? pluginNameProblem(second) !== null : first === '' || RESERVED_SEGMENTS.has(first);
}

const NAME = new RegExp(`^[a-z][a-z0-9_-]{0,${PLUGIN_NAME_MAX_CHARACTERS - 1}}$`);
const MOUNT = /^(\/[A-Za-z0-9._~-]+)+$/;

/** Why this cannot be a plugin's name, or null when it can. */
export function pluginNameProblem(name: string): string | null {
  if (RESERVED_NAMES.has(name)) return 'it is a reserved word';
  if (name.length > PLUGIN_NAME_MAX_CHARACTERS) return `it has more than ${PLUGIN_NAME_MAX_CHARACTERS} characters`;
  return NAME.test(name) ? null : 'it has characters that are not allowed';
}

const LIMIT_RANGES: { readonly [K in keyof PluginLimits]: readonly [min: number, max: number] } = {
  heapMb: [16, 4_096],
  memoryMb: [17, 65_536],
  concurrency: [1, 10_000],
  queue: [0, 10_000],
  timeoutMs: [1, 3_600_000],
  bodyLimitBytes: [0, 1_073_741_824],
  hangTimeoutMs: [200, 600_000],
  replayWaitMs: [0, 60_000],
  drainTimeoutMs: [0, 60_000],
  connections: [1, 100],
  statementTimeoutMs: [1, 86_400_000],
  transactionIdleMs: [1, 86_400_000],
  loanMs: [1_000, 86_400_000],
};

/** Reads a default export of unknown shape. Returns its manifest, but for the services, which may need a context, or all that is wrong with it. */
export function readManifest(exported: unknown, folder: string): { readonly manifest: PluginManifest } | { readonly problems: readonly string[] } {
  if (typeof exported !== 'object' || exported === null) {
    return { problems: ['its plugin file has no default export; write `export default definePlugin({ ... })`'] };
  }
  const definition = exported as Record<string, unknown>;
  const problems: string[] = [];
  const { name, version, description = '', mounts = [], limits = {}, threads = 1, permissions = [], grants = [], requires = [], optional = [], services = {}, topics = {}, interceptors = [] } = definition;

  if (typeof name !== 'string') problems.push('`name` must be a string');
  else if (name !== folder) problems.push(`\`name\` is "${name}" but its folder is "${folder}"; they must be the same`);
  if (typeof version !== 'string' || version === '') problems.push('`version` must be a string such as "1.0.0"');
  if (typeof description !== 'string') problems.push('`description` must be a string');
  for (const hook of ['init', 'routes', 'start', 'stop']) {
    if (definition[hook] !== undefined && typeof definition[hook] !== 'function') problems.push(`\`${hook}\` must be a function`);
  }
  if (!isThreads(threads)) problems.push(`\`threads\` must be a whole number from 1 to ${THREADS_MAX}`);
  problems.push(...mountProblems(mounts), ...limitProblems(limits), ...permissionProblems('`permissions`', permissions), ...grantProblems(grants, name, pluginNameProblem), ...needProblems('`requires`', requires), ...needProblems('`optional`', optional));
  if (typeof services !== 'function') problems.push(...offerProblems(services));
  problems.push(...topicsProblems(topics));
  problems.push(...interceptorProblems(interceptors));
  if (problems.length > 0) return { problems };

  return {
    manifest: {
      name: folder,
      version: version as string,
      description: description as string,
      mounts: [`/plugins/${folder}`, ...(mounts as string[])],
      limits: withDefaults(limits as Partial<PluginLimits>),
      threads: threads as number,
      permissions: permissions as string[],
      grants: grants as Grant[],
      requires: requires as string[],
      optional: optional as string[],
      services: {},
      topics: readTopics(topics as Readonly<Record<string, TopicDeclaration>>),
      interceptors: interceptorManifests(interceptors as unknown[]),
    },
  };
}

/** Reads a manifest that comes from a worker, which may say anything: whose it is, and what it may have, is not for the worker to choose. Throws what is wrong with it. */
export function readClaim(claimed: unknown, name: string): PluginManifest {
  const { mounts, services } = (claimed ?? {}) as { mounts?: unknown; services?: unknown };
  const reading = readManifest({ ...(claimed as object), mounts: Array.isArray(mounts) ? mounts.slice(1) : mounts, services: {} }, name);
  if ('problems' in reading) throw new Error(reading.problems.join('; '));
  return { ...reading.manifest, services: readContracts(services) };
}

/** Whether a plugin can have so many workers. */
export function isThreads(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 1 && (value as number) <= THREADS_MAX;
}

/** What each worker has of what the plugin may use in all: at least one. */
export function shareOf(total: number, { threads }: Pick<PluginManifest, 'threads'>): number {
  return Math.max(1, Math.floor(total / threads));
}

function mountProblems(mounts: unknown): string[] {
  if (!Array.isArray(mounts)) return ['`mounts` must be an array of path prefixes'];
  if (mounts.length > MOUNTS_MAX) return [`\`mounts\` has more than ${MOUNTS_MAX} entries`];
  return mounts.flatMap((mount: unknown) => {
    if (typeof mount !== 'string' || !MOUNT.test(mount) || /\/\.{1,2}(\/|$)/.test(mount)) {
      return [`mount ${JSON.stringify(mount)} must be a path such as "/items", without a trailing slash`];
    }
    const segment = mount.split('/')[1] ?? '';
    return RESERVED_SEGMENTS.has(segment) ? [`mount "${mount}" lies under /${segment}, which belongs to the kernel`] : [];
  });
}

function withDefaults(limits: Partial<PluginLimits>): PluginLimits {
  return { ...PLUGIN_LIMITS, ...limits, memoryMb: limits.memoryMb ?? (limits.heapMb ?? PLUGIN_LIMITS.heapMb) + MEMORY_BESIDE_HEAP_MB };
}

function limitProblems(limits: unknown): string[] {
  if (typeof limits !== 'object' || limits === null) return ['`limits` must be an object'];
  const { heapMb, memoryMb } = withDefaults(limits as Partial<PluginLimits>);
  const tight = memoryMb <= heapMb ? ['`limits.memoryMb` must be more than `limits.heapMb`, which is part of it'] : [];
  return tight.concat(Object.entries(limits).flatMap(([key, value]: [string, unknown]) => {
    if (!Object.hasOwn(LIMIT_RANGES, key)) return [`\`limits.${key}\` is not a limit; there are ${Object.keys(LIMIT_RANGES).join(', ')}`];
    const [min, max] = LIMIT_RANGES[key as keyof PluginLimits];
    return Number.isInteger(value) && (value as number) >= min && (value as number) <= max ? [] : [`\`limits.${key}\` must be a whole number from ${min} to ${max}`];
  }));
}
