// Services as one host sees them: what its plugin offers, and its handles on those of others. Must not know which plugin is at the other end.
import { setTimeout as delay } from 'node:timers/promises';
import { ITSELF } from '../../protocol/contracts.js';
import { BulkheadError } from '../../protocol/errors.js';
import type { HostToKernelFrame, ServiceAcceptFrame, ServiceOpenedFrame } from '../../protocol/frames.js';
import { SERVICES_DRAIN_TIMEOUT_MS } from '../../protocol/service-limits.js';
import type { Services } from '../../protocol/services.js';
import { compileChecks } from './contract-checks.js';
import { Provision } from './provision.js';
import { RemoteService, ServiceCall, type Opened } from './remote-service.js';
import { revive } from './revive.js';
import type { Tasks } from './task.js';
import type { Load } from './warm-up.js';

type AnyFunction = (...args: unknown[]) => unknown;
type Opening = { readonly resolve: (opened: Opened) => void; readonly reject: (error: Error) => void };
type Call = (method: string, args: readonly unknown[]) => Promise<unknown>;

export interface HostServicesOptions {
  readonly plugin: string;
  readonly send: (frame: HostToKernelFrame) => void;
  readonly tasks: Tasks;
  /** Names in the plugin's `requires` and `optional`. */
  readonly declared: ReadonlySet<string>;
}

export class HostServices implements Services {
  readonly #options: HostServicesOptions;
  readonly #remotes = new Map<string, RemoteService>();
  readonly #handles = new Map<string, object>();
  readonly #opening = new Map<number, Opening>();
  #own: Readonly<Record<string, object>> = {};
  #offered: Readonly<Record<string, object>> = {};
  #provision: Provision | null = null;
  #lastRef = 0;

  constructor(options: HostServicesOptions) {
    this.#options = options;
  }

  /** Calls to others that wait, and calls of others that run. */
  get calls(): { readonly made: number; readonly served: number } {
    return { made: [...this.#remotes.values()].reduce((sum, { pending }) => sum + pending, 0), served: this.#provision?.running ?? 0 };
  }

  /** What every plugin has, and what this one offers. */
  equip(own: Readonly<Record<string, object>>, offered: Readonly<Record<string, object>>): void {
    this.#own = own;
    this.#offered = offered;
    // What its calls set going ends with them.
    if (Object.keys(offered).length > 0) this.#options.tasks.track();
  }

  /** Before the first call can come. Throws what is wrong with a schema. */
  async open(load: Load): Promise<void> {
    this.#provision = new Provision(this.#offered, await compileChecks(this.#offered, load), this.#options.tasks);
  }

  get(name: string, fallback?: object): never {
    const { plugin, declared, tasks } = this.#options;
    const own = Object.hasOwn(this.#own, name) ? this.#own[name] as Record<string, AnyFunction> : undefined;
    if (own === undefined && !declared.has(name)) throw new BulkheadError('SERVICE_FORBIDDEN', { name: plugin, service: name });
    tasks.track();
    if (fallback !== undefined && own === undefined) return handleOn(withFallback(name, this.#callOf(name), fallback)) as never;
    let handle = this.#handles.get(name);
    if (handle === undefined) {
      handle = handleOn(own === undefined ? this.#callOf(name) : async (method, args) => own[method]!(...args));
      this.#handles.set(name, handle);
    }
    return handle as never;
  }

  handle(frame: ServiceOpenedFrame | ServiceAcceptFrame): void {
    if (frame.kind === 'service-accept') return this.#provision?.accept(frame.service, frame.port);
    const opening = this.#opening.get(frame.ref);
    this.#opening.delete(frame.ref);
    if ('port' in frame) opening?.resolve(frame);
    else opening?.reject(revive(frame.error));
  }

  /** The plugin stops. Resolves when the calls of others that have begun are done, or after SERVICES_DRAIN_TIMEOUT_MS. */
  async leave(): Promise<void> {
    const patience = new AbortController();
    await Promise.race([this.#provision?.leave(), delay(SERVICES_DRAIN_TIMEOUT_MS, undefined, { signal: patience.signal }).catch(() => {})]);
    patience.abort();
  }

  #callOf(name: string): Call {
    let remote = this.#remotes.get(name);
    if (remote === undefined) this.#remotes.set(name, remote = new RemoteService(name, (wanted) => this.#open(wanted), this.#options.tasks));
    return (method, args) => remote.call(method, args);
  }

  #open(service: string): Promise<Opened> {
    const ref = ++this.#lastRef;
    // The kernel answers as soon as the provider is there or is known not to come back, and each call that waits has a deadline of its own.
    return new Promise((resolve, reject) => {
      this.#opening.set(ref, { resolve, reject });
      this.#options.send({ kind: 'service-open', ref, service });
    });
  }
}

/** What a plugin calls. */
function handleOn(call: Call): object {
  const methods = new Map<string, AnyFunction>();
  return new Proxy((...args: unknown[]) => call(ITSELF, args), {
    get: (_target, key) => {
      // No `then`, or the handle could not be returned from an async function.
      if (typeof key !== 'string' || key === 'then') return undefined;
      let method = methods.get(key);
      if (method === undefined) methods.set(key, method = (...args: unknown[]) => call(key, args));
      return method;
    },
  });
}

/** Asks the fallback while there is no provider. */
function withFallback(name: string, call: Call, fallback: object): Call {
  const either = async (method: string, args: readonly unknown[]): Promise<unknown> => {
    try {
      return await call(method, args);
    } catch (error) {
      const { code } = error as { code?: unknown };
      if (code !== 'SERVICE_UNAVAILABLE' && code !== 'SERVICE_UNKNOWN') throw error;
      const instead: unknown = method === ITSELF ? fallback : (fallback as Record<string, unknown>)[method];
      if (typeof instead !== 'function') throw new TypeError(`the fallback of the service "${name}" has no method "${method}"`, { cause: error });
      return (instead as AnyFunction).apply(fallback, [...args]);
    }
  };
  return (method, args) => ServiceCall.of(either(method, args));
}

