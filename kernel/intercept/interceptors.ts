// The interceptors of all plugins in their order, and which of them one request passes. Must not know workers' lives, or what an interceptor says.
import { edited, readChanges, type HeaderEdit, type InterceptorManifest } from '../../protocol/interceptors.js';
import { compilePattern, fits, readPath, type PathPattern, type Readings } from '../../protocol/path-patterns.js';
import type { FlatHeaders } from '../../protocol/frames.js';
import type { Questions } from './questions.js';

/** The plugin that has declared an interceptor. */
export interface Interceptor {
  readonly name: string;
  readonly running: boolean;
  /** Those of its workers that serve. */
  readonly crew: readonly Questions[];
  /** Why nobody of it can be asked, and when that may be over. */
  readonly absence: { readonly reason: string; readonly retryAfterSeconds: number | undefined };
}

/** Of one interceptor since its plugin was loaded. */
export interface InterceptionCounts {
  asked: number;
  answered: number;
  failed: number;
}

/** One interceptor, ready to be asked. */
export interface Station {
  readonly owner: Interceptor;
  readonly index: number;
  readonly manifest: InterceptorManifest;
  readonly patterns: readonly PathPattern[];
  readonly methods: ReadonlySet<string>;
  /** The same for every answer; null when the worker is asked, or nothing is changed. */
  readonly mark: HeaderEdit | null;
  readonly counts: InterceptionCounts;
}

/** What one request has to pass. */
export interface Passage {
  /** Asked about the request, in this order. */
  readonly requests: readonly Station[];
  /** Asked about its answer, in this order, or with a mark for it. */
  readonly responses: readonly Station[];
  /** Whether anybody is asked about the answer. */
  readonly reviewed: boolean;
  /** Of all marks, for an answer that nobody is asked about. */
  readonly marks: readonly HeaderEdit[];
}

/** Whose request it is, under all paths that lead there. */
export interface Destination {
  readonly plugin: string;
  /** Prefixes of the plugin. */
  readonly mounts: readonly string[];
  /** The one that the request has come under. */
  readonly mount: string;
  readonly path: string;
  readonly method: string;
}

export interface InterceptorStatus extends InterceptorManifest, InterceptionCounts {}

export class Interceptors {
  readonly #declared = new Map<string, readonly Station[]>();
  /** Of all plugins that have any, in the order in which they are asked. */
  #row: readonly Station[] = [];
  /** By plugin, what its requests may have to pass, and that itself when it is the same for all of them. */
  readonly #routes = new Map<string, { readonly row: readonly Station[]; readonly always: Passage | null }>();
  /** Plugins of the boot of which it is not known yet what they intercept. */
  readonly #expected = new Set<string>();
  /** Resolves when nothing is expected any more. */
  whenComplete: Promise<void> = Promise.resolve();
  #onComplete: () => void = () => {};

  /** Whether it is known of every plugin of the boot what it intercepts. */
  get complete(): boolean {
    return this.#expected.size === 0;
  }

  /** Whether no request has to pass anything. */
  get none(): boolean {
    return this.#row.length === 0;
  }

  /** No request passes before each of these has been declared or given up. */
  expect(plugins: readonly string[]): void {
    for (const plugin of plugins) this.#expected.add(plugin);
    if (!this.complete) this.whenComplete = new Promise((resolve) => (this.#onComplete = resolve));
  }

  /** What it intercepts is known, or will not be. */
  settle(plugin: string): void {
    if (this.#expected.delete(plugin) && this.complete) this.#onComplete();
  }

  /** From now on, in place of what the plugin has declared before. */
  declare(owner: Interceptor, manifests: readonly InterceptorManifest[]): void {
    const present = this.#declared.get(owner.name) ?? [];
    const stations = manifests.map((manifest, index): Station => ({
      owner, index, manifest,
      patterns: manifest.paths.map(compilePattern),
      methods: new Set(manifest.methods.flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : [method]))),
      mark: typeof manifest.onResponse === 'object' ? readChanges(manifest.onResponse.headers) : null,
      // A restart of the same code counts on.
      counts: JSON.stringify(present[index]?.manifest) === JSON.stringify(manifest) ? present[index]!.counts : { asked: 0, answered: 0, failed: 0 },
    }));
    if (stations.length > 0) this.#declared.set(owner.name, stations);
    else this.#declared.delete(owner.name);
    this.refresh();
    this.settle(owner.name);
  }

  /** The plugin has been unloaded. */
  withdraw(plugin: string): void {
    if (this.#declared.delete(plugin)) this.refresh();
  }

  /** A plugin has begun to run, or has ceased to. */
  refresh(): void {
    this.#routes.clear();
    if (this.#declared.size === 0 && this.#row.length === 0) return;
    // What may be left out is left out for as long as nobody is there to be asked.
    const active = [...this.#declared.values()].flat().filter(({ owner, manifest }) => owner.running || (manifest.failMode === 'closed' && isAsked(manifest)));
    this.#row = active.sort((a, b) => a.manifest.order - b.manifest.order || (a.owner.name < b.owner.name ? -1 : a.owner.name > b.owner.name ? 1 : a.index - b.index));
  }

  /** What the request has to pass; null when there is nothing. */
  of(destination: Destination): Passage | null {
    let route = this.#routes.get(destination.plugin);
    if (route === undefined) {
      const row = this.#row.filter(({ owner }) => owner.name !== destination.plugin);
      route = { row, always: row.every(({ patterns, methods }) => patterns.length === 0 && methods.size === 0) ? passageOf(row) : null };
      this.#routes.set(destination.plugin, route);
    }
    if (route.always !== null || route.row.length === 0) return route.always;
    const { method } = destination;
    let paths: readonly Readings[] | null = null;
    return passageOf(route.row.filter((station) => {
      if (station.methods.size > 0 && !station.methods.has(method)) return false;
      return station.patterns.length === 0 || (paths ??= allPaths(destination)).some((readings) => station.patterns.some((pattern) => fits(pattern, readings)));
    }));
  }

  /** Whether the worker of this plugin is asked about requests of others. */
  isAsked(plugin: string): boolean {
    return (this.#declared.get(plugin) ?? []).some(({ manifest }) => isAsked(manifest));
  }

  statusOf(plugin: string): InterceptorStatus[] {
    return (this.#declared.get(plugin) ?? []).map(({ manifest, counts }) => ({ ...manifest, ...counts }));
  }
}

/** Headers with the marks of an answer. */
export function marked(headers: FlatHeaders, { marks }: Passage): FlatHeaders {
  return marks.reduce<FlatHeaders>(edited, headers);
}

function isAsked({ onRequest, onResponse }: InterceptorManifest): boolean {
  return onRequest || onResponse === 'ask';
}

function passageOf(row: readonly Station[]): Passage | null {
  if (row.length === 0) return null;
  const responses = row.filter(({ manifest, owner, mark }) => manifest.onResponse === 'ask' || (mark !== null && owner.running));
  return {
    requests: row.filter(({ manifest }) => manifest.onRequest),
    responses,
    reviewed: responses.some(({ mark }) => mark === null),
    marks: responses.flatMap(({ mark }) => mark ?? []),
  };
}

/** Under one mount as well as under another it is the same request: who guards one guards them all. */
function allPaths({ mounts, mount, path }: Destination): Readings[] {
  const below = path.slice(mount.length);
  return [readPath(path), ...mounts.filter((other) => other !== mount).map((other) => readPath(other + below))];
}
