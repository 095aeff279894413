// Everything that one generation holds in the kernel, opened together and flooded together: worker, requests, connections, services, events. Must not know restarts or verbs.
import type { Logger } from 'pino';
import type { HostToKernelFrame, KernelToHostFrame } from '../../protocol/frames.js';
import type { HostOrder } from '../../protocol/host-api.js';
import type { Death } from '../../protocol/lifecycle.js';
import { BOOT_HANG_TIMEOUT_MS, BOOT_UNRESPONSIVE_AFTER_MS, FRAMES_AT_ONCE_MAX, FRAMES_AT_ONCE_MS, FRAMES_PER_SECOND_MAX, PLUGIN_LIMITS, UNRESPONSIVE_AFTER_MS } from '../../protocol/limits.js';
import { readClaim, shareOf, type PluginManifest, type RouteDescription } from '../../protocol/plugin.js';
import { Rate } from '../../protocol/rate.js';
import type { Database } from '../database/pool.js';
import { Lending } from '../database/lending.js';
import type { Scopes } from '../database/scopes.js';
import { Dispatcher, type RequestCounts } from '../dispatch/dispatcher.js';
import type { OpenRequest } from '../dispatch/open-request.js';
import type { Orphan } from '../dispatch/replay.js';
import type { DurableEvents } from '../services/durable-events.js';
import { Questions } from '../intercept/questions.js';
import type { EventBus } from '../services/event-bus.js';
import { EventParty, type EventCounts } from '../services/event-party.js';
import type { Party, ServiceRegistry } from '../services/registry.js';
import type { Generation } from './generation.js';
import type { Watchdog, Watched } from './watchdog.js';
import { within } from './within.js';

/** What all compartments share. */
export interface Ship {
  readonly log: Logger;
  readonly writeLines: (lines: string) => void;
  readonly database: Database;
  readonly scopes: Scopes;
  readonly services: ServiceRegistry;
  readonly events: EventBus;
  readonly durable: DurableEvents;
  readonly watchdog: Watchdog;
  /** Told whose code a thread runs. Node gives no number twice. */
  readonly onThread: (threadId: number, occupant: Occupant) => void;
}

export interface Occupant {
  readonly plugin: string;
  readonly generation: number;
  /** No other live worker has this old generation, in MiB. */
  readonly heapLimitMb: number;
}

export interface CompartmentOptions {
  /** A worker without a plugin yet. */
  readonly generation: Generation;
  readonly order: HostOrder;
  readonly counts: RequestCounts;
  readonly events: EventCounts;
  /** Called once, when all that the generation held has been taken back; `orphans` are its unanswered requests. Its thread may still be ending. */
  readonly onDeath: (death: Death, orphans: readonly Orphan[]) => void;
}

export class Compartment {
  readonly generation: Generation;
  readonly #ship: Ship;
  readonly #options: CompartmentOptions;
  readonly #party: Party;
  readonly #events: EventParty;
  readonly #log: Logger;
  readonly questions = new Questions((frame) => this.#send(frame));
  #dispatcher: Dispatcher | null = null;
  #lending: Lending | null = null;
  readonly #watched: Watched;
  #limits = PLUGIN_LIMITS;
  #silentMs = 0;
  /** Services that its plugin has declared that it uses. */
  #declared: ReadonlySet<string> = new Set();
  readonly #frames = new Rate(FRAMES_PER_SECOND_MAX);
  readonly #burst = new Rate(FRAMES_AT_ONCE_MAX, undefined, FRAMES_AT_ONCE_MS);

  constructor(ship: Ship, options: CompartmentOptions) {
    this.#ship = ship;
    this.#options = options;
    const { name, generation } = options.order;
    this.#log = ship.log.child({ plugin: name, generation });
    this.generation = options.generation;
    this.generation.assign({ number: generation, onFrame: (frame) => this.#receive(frame), onDeath: (death) => this.#flood(death) });
    this.#party = { plugin: name, declares: (service) => this.#declared.has(service), send: this.#send };
    this.#events = new EventParty({ plugin: name, bus: ship.events, durable: ship.durable, send: this.#send, counts: options.events, log: this.#log });
    this.#watched = this.#watchedBy();
    const { threadId, heapLimitMb } = this.generation;
    if (threadId !== null) ship.onThread(threadId, { plugin: name, generation, heapLimitMb });
  }

  /** Of its generation. */
  get number(): number {
    return this.#options.order.generation;
  }

  /** Set by the first look at the manifest. */
  get dispatcher(): Dispatcher | null {
    return this.#dispatcher;
  }

  get unresponsive(): boolean {
    return this.#ship.watchdog.silent(this.#watched);
  }

  /** Connections lent to the generation. */
  get leases(): number {
    return this.#lending?.count ?? 0;
  }

  get services(): readonly string[] {
    return this.#ship.services.namesOf(this.#party);
  }

  /** Tells the worker whose it is. */
  enlist(): Promise<void> {
    if (this.generation.alive) this.#ship.watchdog.watch(this.#watched);
    return this.generation.enlist(this.#options.order);
  }

  /** Imports the plugin, whose files must be there. */
  async describe(): Promise<PluginManifest> {
    const manifest = readClaim(await this.generation.describe(), this.#options.order.name);
    const { name, limits } = manifest;
    const { database, scopes } = this.#ship;
    this.#dispatcher = new Dispatcher(name, limits, this.#send, this.#options.counts);
    this.#lending = new Lending({ database, scope: () => scopes.of(name), onRefused: () => scopes.forget(name), plugin: name, quota: shareOf(limits.connections, manifest), limits, send: this.#send, log: this.#log });
    this.#events.declare(manifest.topics);
    this.#limits = limits;
    this.#declared = new Set([...manifest.requires, ...manifest.optional]);
    this.#watched.hangTimeoutMs = Math.max(BOOT_HANG_TIMEOUT_MS, limits.hangTimeoutMs);
    this.#watched.memoryMaxBytes = limits.memoryMb * 2 ** 20;
    return manifest;
  }

  init(): Promise<void> {
    return this.generation.init();
  }

  async mount(): Promise<readonly RouteDescription[]> {
    const routes = await this.generation.mount();
    // Not before: an import and the compilation of schemas hold the loop by right. What they held it for is not counted.
    this.#watched.hangTimeoutMs = this.#limits.hangTimeoutMs;
    this.#watched.unresponsiveAfterMs = UNRESPONSIVE_AFTER_MS;
    if (this.generation.alive) this.#ship.watchdog.watch(this.#watched);
    return routes;
  }

  start(): Promise<void> {
    return this.generation.start();
  }

  /** Its services are there for others. */
  offer(): void {
    if (this.generation.alive) this.#ship.services.open(this.#party);
  }

  /** Lets open requests finish, then the plugin's `stop`, then ends the thread. What `stop` throws is thrown when all is over. */
  async stop(): Promise<void> {
    this.#ship.services.close(this.#party);
    const settled = Promise.all([this.#dispatcher?.drained(), this.questions.drained(), this.#events.drained()]);
    await within(Promise.race([settled, this.generation.gone]), this.#limits.drainTimeoutMs);
    await this.generation.stop();
  }

  /** One path for every death: give up the requests, revoke services and events, take the connections back. */
  #flood(death: Death): void {
    this.#ship.watchdog.unwatch(this.#watched);
    const request = death.request ?? this.#begunRequest();
    const orphans = this.#dispatcher?.abandon(death, this.generation.status.lastRequest, this.#silentMs) ?? [];
    this.questions.abandon();
    this.#ship.services.revoke(this.#party);
    this.#events.leave(death.kind === 'stopped' ? null : death.cause);
    void this.#lending?.revokeAll();
    this.#options.onDeath({ ...death, request }, orphans);
  }

  readonly #send = (frame: KernelToHostFrame, transfer?: Parameters<Generation['send']>[1]): boolean => {
    if (frame.kind === 'request' || frame.kind === 'upgrade' || frame.kind === 'inspect') this.#ship.watchdog.hurry();
    return this.generation.send(frame, transfer);
  };

  /** What comes from a worker may be anything; a frame that cannot be handled ends its generation and not the kernel. */
  #receive(frame: HostToKernelFrame): void {
    const now = performance.now(); // once for both, because every frame comes through here
    if (!this.#burst.admit(now)) return this.generation.kill('crashed', `it sent more than ${FRAMES_AT_ONCE_MAX} frames at once`);
    if (!this.#frames.admit(now)) return this.generation.kill('crashed', `it sent more than ${FRAMES_PER_SECOND_MAX} frames in a second`);
    try {
      this.#route(frame);
    } catch (error) {
      this.generation.kill('crashed', `it sent a ${String(frame?.kind)} frame that cannot be handled: ${(error as Error).message}`);
    }
  }

  #route(frame: HostToKernelFrame): void {
    switch (frame.kind) {
      case 'hints': case 'response': case 'upgraded': case 'chunk': case 'end': case 'credit': case 'cancel':
        return this.#dispatcher?.handle(frame);
      case 'lease-open': case 'lease-data': case 'lease-credit': case 'lease-return':
        return this.#lending?.handle(frame);
      case 'inspected': return this.questions.handle(frame);
      case 'log': return this.#ship.writeLines(text(frame.lines));
      case 'fatal': return this.generation.crash(frame.error);
      case 'service-open': return this.#ship.services.connect(this.#party, number(frame.ref), text(frame.service));
      case 'subscribe': case 'unsubscribe': case 'publish': case 'event-store': case 'event-forget': case 'events-taken': case 'event-handled':
        return this.#events.handle(frame);
      default: throw new TypeError('there is no such kind');
    }
  }

  #watchedBy(): Watched {
    const mib = (bytes: number): number => Math.round(bytes / 2 ** 20);
    return {
      status: this.generation.status,
      busy: () => (this.#dispatcher?.inFlight ?? 0) + this.questions.pending > 0,
      measure: () => this.generation.measure(),
      unresponsiveAfterMs: BOOT_UNRESPONSIVE_AFTER_MS,
      hangTimeoutMs: BOOT_HANG_TIMEOUT_MS,
      memoryMaxBytes: PLUGIN_LIMITS.memoryMb * 2 ** 20,
      onUnresponsive: (silentMs) => this.#log.warn({ silentMs, request: this.#begunRequest(), requestId: this.#begun()?.requestId ?? null }, 'unresponsive: its event loop stands still'),
      onHang: (silentMs) => {
        this.#silentMs = silentMs;
        const request = this.#begunRequest();
        this.generation.kill('unresponsive', `its event loop stood still for ${silentMs} ms${request === null ? '' : ` in ${request}`}`, request);
      },
      onMemoryWarning: (bytes, maxBytes) => this.#log.warn({ bytes, maxBytes }, `it uses ${mib(bytes)} MiB of memory and is ended at ${mib(maxBytes)}`),
      onMemoryExceeded: (bytes, maxBytes) => this.generation.kill('out-of-memory', `it used ${mib(bytes)} MiB of memory, and ${mib(maxBytes)} are its limit`, this.#begunRequest()),
    };
  }

  #begun(): OpenRequest | null {
    return this.#dispatcher?.begun(this.generation.status.lastRequest) ?? null;
  }

  #begunRequest(): string | null {
    const exchange = this.#begun();
    return exchange === null ? null : `${exchange.method} ${exchange.originalUrl}`;
  }
}

// What is passed on is what it must be: anything else might not even be sendable.

function text(value: unknown): string {
  if (typeof value !== 'string') throw new TypeError('it has something else where text belongs');
  return value;
}

function number(value: unknown): number {
  if (!Number.isSafeInteger(value)) throw new TypeError('it has something else where a number belongs');
  return value as number;
}
