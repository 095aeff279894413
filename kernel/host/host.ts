// Runs one plugin inside its worker: the control plane's calls, in order, and the context that the plugin gets. Must not know the kernel's side.
import { setTimeout as delay } from 'node:timers/promises';
import { pino, type Logger } from 'pino';
import { Channel } from '../../protocol/channel.js';
import { BulkheadError, toPlainError } from '../../protocol/errors.js';
import type { HostToKernelFrame, KernelToHostFrame } from '../../protocol/frames.js';
import type { HostApi, HostBirth, HostOrder } from '../../protocol/host-api.js';
import { HEARTBEAT_INTERVAL_MS, PLUGIN_LIMITS } from '../../protocol/limits.js';
import { readManifest, type PluginApp, type PluginContext, type PluginDefinition, type PluginManifest, type RouteDescription } from '../../protocol/plugin.js';
import { StatusBlock } from '../../protocol/status-block.js';
import { answerUnknownRoutes, createApp } from './app.js';
import { createLentPool, type LentPool } from './database-client.js';
import { HostEvents } from './events.js';
import { captureConsole, createHostLogger } from './log.js';
import { HostServices } from './services.js';
import { Transport } from './transport.js';
import { raiseWalls } from './walls.js';

/** What exists once the kernel has said which plugin this worker runs. */
interface Tenancy {
  readonly definition: PluginDefinition;
  readonly manifest: PluginManifest;
  readonly context: PluginContext;
  readonly log: Logger;
  readonly debug: boolean;
  readonly services: HostServices;
  readonly events: HostEvents;
  readonly database: LentPool;
  readonly stopping: AbortController;
}

/** For a plugin that is not there yet. */
const STAND_IN: PluginManifest = Object.freeze({ name: 'standby', version: '0.0.0', description: '', mounts: [], limits: PLUGIN_LIMITS, permissions: [] });

const STAND_IN_SCHEMA = { type: 'object', required: ['id'], properties: { id: { type: 'integer', minimum: 1 }, name: { type: 'string' } } } as const;
/** The first loads the code, the next ones let V8 see it again; more made no difference. */
const WARM_UP_ROUNDS = 3;

export class Host implements HostApi {
  /** Resolves when the plugin has stopped: the end of the worker's one task. */
  readonly finished: Promise<void>;
  readonly #channel: Channel<HostToKernelFrame, KernelToHostFrame>;
  readonly #status: StatusBlock;
  readonly #transport: Transport;
  #tenancy: Tenancy | null = null;
  #initialized = false;
  #app: PluginApp | null = null;
  #finish!: () => void;

  constructor(birth: HostBirth) {
    this.finished = new Promise((resolve) => (this.#finish = resolve));
    this.#status = new StatusBlock(birth.status);
    this.#channel = new Channel(birth.data, { onFrame: (frame) => this.#route(frame) });
    this.#transport = new Transport(this.#send, this.#status);
    this.#beat();
  }

  async ready(): Promise<void> {
    // Runs through what every plugin needs first, so that its code is loaded and compiled by then.
    for (let round = 0; round < WARM_UP_ROUNDS; round += 1) {
      const { app } = createApp(STAND_IN, pino({ level: 'silent' }), false);
      await app.register(async (scope) => {
        scope.post('/:id', { schema: { params: STAND_IN_SCHEMA, body: STAND_IN_SCHEMA, response: { 200: STAND_IN_SCHEMA } } }, async ({ params }) => params);
        answerUnknownRoutes(scope);
      });
      await app.ready();
      await app.close();
    }
  }

  async describe(order: HostOrder): Promise<PluginManifest> {
    Object.assign(process.env, order.environment);
    const log = createHostLogger({ plugin: order.name, generation: order.generation }, order.logLevel, (lines) => this.#send({ kind: 'log', lines }));
    captureConsole(log);
    raiseWalls(log);
    // The kernel hears of the end all the same, but without a stack, and of what is no Error not even what it was.
    process.on('uncaughtExceptionMonitor', (thrown: unknown) => {
      log.fatal({ err: thrown instanceof Error ? thrown : toPlainError(thrown) }, 'nobody caught this, and it ends the worker');
      this.#channel.flush();
    });
    const module = (await import(order.bundle)) as { default?: unknown };
    const reading = readManifest(module.default, order.name);
    if ('problems' in reading) throw new BulkheadError('PLUGIN_LOAD_FAILED', { name: order.name, reason: reading.problems.join('; ') });

    const { manifest } = reading;
    const stopping = new AbortController();
    const services = new HostServices(order.name, this.#send);
    const events = new HostEvents(this.#send, log);
    const database = createLentPool({ send: this.#send, connections: manifest.limits.connections, log });
    const context: PluginContext = Object.freeze({ name: order.name, folder: order.folder, config: order.config, log, services, events, signal: stopping.signal, get db() { return database.pool; } });
    this.#tenancy = { definition: module.default as PluginDefinition, manifest, context, log, debug: order.debug, services, events, database, stopping };
    return manifest;
  }

  async init(): Promise<void> {
    const { definition, context } = this.#tenant();
    await definition.init?.(context);
    this.#initialized = true;
  }

  async mount(): Promise<readonly RouteDescription[]> {
    const { definition, context, manifest, log, debug } = this.#tenant();
    const { app, routes } = createApp(manifest, log, debug);
    this.#app = app;
    await app.register(async (scope) => {
      await definition.routes?.(scope as typeof app, context);
      answerUnknownRoutes(scope as typeof app);
    });
    await app.ready();
    this.#transport.serve(app);
    return routes;
  }

  async start(): Promise<void> {
    const { definition, context } = this.#tenant();
    await definition.start?.(context);
  }

  async stop(): Promise<void> {
    try {
      this.#tenancy?.stopping.abort();
      if (this.#initialized) await this.#tenant().definition.stop?.(this.#tenant().context);
      await this.#app?.close(); // for the `onClose` hooks of the plugin and of what it has registered
      await this.#tenancy?.database.close();
    } finally {
      // The answer to this very call leaves before the worker does.
      void delay(0).then(this.#finish);
    }
  }

  readonly #send = (frame: HostToKernelFrame, transfer?: readonly ArrayBuffer[]): void => void this.#channel.send(frame, transfer);

  #tenant(): Tenancy {
    if (this.#tenancy === null) throw new Error('the kernel has not yet said which plugin this worker runs');
    return this.#tenancy;
  }

  #route(frame: KernelToHostFrame): void {
    this.#status.beat();
    switch (frame.kind) {
      case 'request': case 'chunk': case 'end': case 'credit': case 'cancel':
        return this.#transport.handle(frame);
      case 'lease-granted': case 'lease-data': case 'lease-credit': case 'lease-ended':
        return this.#tenant().database.handle(frame);
      case 'service-opened': case 'service-accept':
        return this.#tenant().services.handle(frame);
      case 'event':
        return void this.#tenant().events.handle(frame);
    }
  }

  #beat(): void {
    let expected = performance.now() + HEARTBEAT_INTERVAL_MS;
    setInterval(() => {
      const now = performance.now();
      this.#status.loopLagMs = Math.max(0, now - expected);
      expected = now + HEARTBEAT_INTERVAL_MS;
      const { heapUsed, external, arrayBuffers } = process.memoryUsage();
      this.#status.memory = { heapUsed, external, arrayBuffers };
      this.#status.beat();
    }, HEARTBEAT_INTERVAL_MS).unref();
  }
}

/** The control plane's surface: own methods only, and errors as plain objects, because comlink would keep just their text. */
export function hostApi(host: Host): HostApi {
  // What a hook sent, such as the services that it provides, leaves before the news that it has succeeded.
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  const plain = <A extends unknown[], R>(method: (...args: A) => Promise<R>, settled?: () => Promise<void>) => async (...args: A): Promise<R> => {
    try {
      const result = await method.apply(host, args);
      await settled?.();
      return result;
    } catch (error) {
      throw toPlainError(error);
    }
  };
  return Object.freeze({
    ready: plain(host.ready), describe: plain(host.describe), init: plain(host.init, turn), mount: plain(host.mount, turn), start: plain(host.start, turn), stop: plain(host.stop),
  });
}
