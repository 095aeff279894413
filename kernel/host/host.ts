// Runs one plugin inside its worker: the control plane's calls, in order, and the context that the plugin gets. Must not know the kernel's side.
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { Channel } from '../../protocol/channel.js';
import { toPlainError } from '../../protocol/errors.js';
import type { HostToKernelFrame, KernelToHostFrame } from '../../protocol/frames.js';
import type { HostApi, HostBirth, HostOrder } from '../../protocol/host-api.js';
import { exchangeOf, packForKernel, unpackAtHost, type PackedForHost, type PackedForKernel } from '../../protocol/packing.js';
import type { PluginApp, PluginManifest, RouteDescription } from '../../protocol/plugin.js';
import { StatusBlock } from '../../protocol/status-block.js';
import { createApp } from './app.js';
import { Heartbeat } from './heartbeat.js';
import { captureConsole, createHostLogger } from './log.js';
import { collectWhenQuiet } from './quiet.js';
import { collectReceived } from './received.js';
import { tolerateGivenUpWork } from './task.js';
import { createTenancy, type Tenancy } from './tenancy.js';
import { Transport } from './transport.js';
import { raiseWalls } from './walls.js';
import { warmUp, type Load } from './warm-up.js';

export class Host implements HostApi {
  /** Resolves when the plugin has stopped: the end of the worker's one task. */
  readonly finished: Promise<void>;
  readonly #load: Load;
  readonly #channel: Channel<PackedForKernel, PackedForHost>;
  readonly #status: StatusBlock;
  readonly #heartbeat: Heartbeat;
  readonly #transport: Transport;
  /** Says that there was work, after which memory is given back later. */
  readonly #disturb: () => void;
  /** Counts what came with frames. */
  readonly #received = collectReceived();
  #enlisted: { readonly order: HostOrder; readonly log: Logger } | null = null;
  #tenancy: Tenancy | null = null;
  #initialized = false;
  #app: PluginApp | null = null;
  #finish!: () => void;

  constructor(birth: HostBirth, load: Load) {
    this.#load = load;
    this.finished = new Promise((resolve) => (this.#finish = resolve));
    this.#status = new StatusBlock(birth.status);
    this.#heartbeat = new Heartbeat(this.#status);
    this.#channel = new Channel(birth.data, {
      onFrame: (frame) => this.#route(unpackAtHost(frame)),
      onUnsendable: (frame, error) => {
        const answered = exchangeOf(frame);
        if (answered === null) throw error;
        this.#send({ kind: 'cancel', id: answered, reason: error.message });
      },
    });
    this.#transport = new Transport(this.#send, this.#status);
    this.#disturb = collectWhenQuiet(this.#status);
  }

  ready(): Promise<void> {
    return warmUp(this.#load);
  }

  async enlist(order: HostOrder): Promise<void> {
    this.#heartbeat.start(); // not before: nobody looks at a standby
    Object.assign(process.env, order.environment);
    const log = createHostLogger({ plugin: order.name, generation: order.generation }, order.logLevel, (lines) => this.#send({ kind: 'log', lines }));
    captureConsole(log);
    raiseWalls(log);
    // The kernel hears of the end all the same, but without a stack, and of what is no Error not even what it was.
    process.on('uncaughtExceptionMonitor', (thrown: unknown) => {
      // Then it is the plugin's to handle.
      if (process.listenerCount('uncaughtException') > 0 || process.hasUncaughtExceptionCaptureCallback()) return;
      const error = toPlainError(thrown);
      log.fatal({ err: thrown instanceof Error ? thrown : error }, 'nobody caught this, and it ends the worker');
      this.#send({ kind: 'fatal', error });
      this.#channel.flush();
    });
    tolerateGivenUpWork(log);
    this.#enlisted = { order, log };
  }

  async describe(): Promise<PluginManifest> {
    const { order, log } = this.#enlisted!;
    const module = (await this.#load(order.bundle)) as { default?: unknown };
    this.#tenancy = createTenancy(module.default, order, log, this.#status, this.#send);
    await this.#tenancy.services.open(this.#load);
    return this.#tenancy.manifest;
  }

  async init(): Promise<void> {
    const { definition, context } = this.#tenant();
    await definition.init?.(context);
    this.#initialized = true;
  }

  async mount(): Promise<readonly RouteDescription[]> {
    const tenancy = this.#tenant();
    const { app, routes } = await createApp(tenancy);
    this.#app = app;
    this.#transport.serve(app, tenancy.tasks);
    this.#disturb();
    return routes;
  }

  async start(): Promise<void> {
    const { definition, context } = this.#tenant();
    await definition.start?.(context);
  }

  async stop(): Promise<void> {
    try {
      await this.#tenancy?.services.leave();
      this.#tenancy?.stopping.abort();
      if (this.#initialized) await this.#tenant().definition.stop?.(this.#tenant().context);
      await this.#app?.close(); // for the `onClose` hooks of the plugin and of what it has registered
      await this.#tenancy?.database.close();
    } finally {
      // The answer to this very call leaves before the worker does.
      void delay(0).then(this.#finish);
    }
  }

  readonly #send = (frame: HostToKernelFrame, transfer?: readonly ArrayBuffer[]): void => void this.#channel.send(packForKernel(frame), transfer);

  #tenant(): Tenancy {
    if (this.#tenancy === null) throw new Error('the kernel has not yet said which plugin this worker runs');
    return this.#tenancy;
  }

  #route(frame: KernelToHostFrame): void {
    this.#heartbeat.stir();
    this.#received(bytesIn(frame));
    switch (frame.kind) {
      case 'request': case 'upgrade': case 'chunk': case 'end': case 'credit': case 'cancel':
        return this.#transport.handle(frame);
      case 'lease-granted': case 'lease-data': case 'lease-credit': case 'lease-recall': case 'lease-ended':
        return this.#tenant().database.handle(frame);
      case 'inspect': case 'inspect-cancel':
        return void this.#tenant().interception.handle(frame);
      case 'service-opened': case 'service-accept':
        return this.#tenant().services.handle(frame);
      case 'event': case 'durable-event': case 'event-answer':
        return this.#tenant().events.handle(frame);
    }
  }
}

/** In memory of its own, which has come with the frame. */
function bytesIn(frame: KernelToHostFrame): number {
  switch (frame.kind) {
    case 'request': return frame.body?.byteLength ?? 0;
    case 'chunk': case 'lease-data': return frame.data.byteLength;
    case 'event': case 'durable-event': return frame.payload.byteLength;
    default: return 0;
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
    ready: plain(host.ready), enlist: plain(host.enlist), describe: plain(host.describe), init: plain(host.init, turn), mount: plain(host.mount, turn), start: plain(host.start, turn), stop: plain(host.stop),
  });
}
