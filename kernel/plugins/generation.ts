// One numbered life of a plugin's worker: a Piscina pool of one thread that runs one long task, whose promise is that life. Must not know restarts, requests or mounts.
import { MessageChannel, MessagePort, type Transferable, type Worker } from 'node:worker_threads';
import { fileURLToPath } from 'node:url';
import { Piscina } from 'piscina';
import { Channel } from '../../protocol/channel.js';
import { toPlainError, type PlainError } from '../../protocol/errors.js';
import type { HostToKernelFrame, KernelToHostFrame } from '../../protocol/frames.js';
import type { HostApi, HostBirth, HostOrder } from '../../protocol/host-api.js';
import type { Death, DeathKind } from '../../protocol/lifecycle.js';
import { BOOT_TIMEOUT_MS, CAUSE_MAX_CHARACTERS, HOOK_TIMEOUT_MS, HOST_HEAP_MB, PORT_CLOSED_GRACE_MS, STOP_TIMEOUT_MS, TERMINATE_TIMEOUT_MS, WORKER_YOUNG_GENERATION_MB } from '../../protocol/limits.js';
import { packForHost, unpackAtKernel, type PackedForHost, type PackedForKernel } from '../../protocol/packing.js';
import type { PluginManifest, RouteDescription } from '../../protocol/plugin.js';
import { StatusBlock } from '../../protocol/status-block.js';
import { Control } from './control.js';
import { takeHeapMark } from './heap-mark.js';
import type { Build } from './standby.js';
import { execArgv } from './walls.js';
import { within } from './within.js';

const HOST_ENTRY = fileURLToPath(new URL('../host/entry.cjs', import.meta.url));

/** What the worker is to a plugin, once it has one. */
export interface Command {
  readonly number: number;
  readonly onFrame: (frame: HostToKernelFrame) => void;
  /** Called once, at once when the life ends; the thread itself may still be on its way out. */
  readonly onDeath: (death: Death) => void;
}

export class Generation {
  readonly build: Build;
  /** Old generation that the worker really has, in MiB: a little more than its build says, and different for each. */
  readonly heapLimitMb: number;
  /** Absolute path of the folder that the worker may read. */
  readonly berth: string;
  readonly status = new StatusBlock();
  /** Resolves when the thread is gone, or when it has been waited for long enough. */
  readonly gone: Promise<void>;
  readonly #pool: Piscina<HostBirth, void>;
  readonly #worker: Worker;
  readonly #exited: Promise<void>;
  readonly #channel: Channel<PackedForHost, PackedForKernel>;
  readonly #control: Control<HostApi>;
  readonly #killSwitch = new AbortController();
  #command: Command | null = null;
  #verdict: { readonly kind: DeathKind; readonly cause: string; readonly request: string | null } | null = null;
  /** Why the thread was ended by force although it had been asked to stop. */
  #stopFailure: Error | null = null;
  #death: Death | null = null;

  /** Boots a worker, which waits for its plugin. */
  constructor(build: Build, berth: string) {
    this.build = build;
    this.berth = berth;
    const mark = takeHeapMark();
    this.heapLimitMb = build.heapMb + HOST_HEAP_MB + mark.extraMb;
    const control = new MessageChannel();
    const data = new MessageChannel();
    this.#control = new Control<HostApi>(control.port1);
    this.#channel = new Channel(data.port1, {
      onFrame: (frame) => this.#command?.onFrame(unpackAtKernel(frame)),
      onGarbage: () => this.kill('crashed', 'it sent what is no frame'),
      // Nothing of the kernel's own is like that, and who misses a frame can only begin anew.
      onUnsendable: (_frame, error) => this.kill('crashed', `it was to get what cannot be sent: ${error.message}`),
      // Most often because the thread is ending, and then Piscina knows why.
      onClose: () => setTimeout(() => this.alive && this.kill('crashed', 'it closed its port to the kernel'), PORT_CLOSED_GRACE_MS).unref(),
    });
    this.#pool = new Piscina<HostBirth, void>({
      filename: HOST_ENTRY,
      minThreads: 0,
      maxThreads: 1,
      // The default would block the worker's event loop between tasks, and with one long task only cost.
      atomics: 'disabled',
      recordTiming: false,
      trackUnmanagedFds: false,
      // Explicit, so that nothing of the kernel's environment and command line reaches a plugin.
      env: {},
      execArgv: execArgv(berth, build.granted),
      argv: [],
      resourceLimits: { maxOldGenerationSizeMb: this.heapLimitMb, maxYoungGenerationSizeMb: WORKER_YOUNG_GENERATION_MB },
    });
    const birth: HostBirth = { control: control.port2, data: data.port2, status: this.status.buffer };
    const life = guarded(() => this.#pool.run(birth, { transferList: [control.port2, data.port2], signal: this.#killSwitch.signal }), () => this.kill('crashed', 'it sent what is no frame'));
    // The thread exists from now on. Piscina forgets it the moment it ends a task by force, and leaves a task that was not yet
    // handed to a worker waiting for ever when that worker dies during its boot.
    this.#worker = this.#pool.threads[0]!;
    this.#exited = new Promise((resolve) => this.#worker.once('exit', (code) => {
      mark.release();
      resolve();
      // Piscina, which knows the cause of any later end, gets to tell it first.
      setImmediate(() => this.kill('crashed', `its worker exited with code ${code} while it booted`));
    }));
    // A plugin may throw anything, also nothing.
    this.#pool.on('error', (thrown: unknown) => this.crash(thrown));
    this.gone = life.then(() => this.#end(null), (thrown: unknown) => this.#end(toPlainError(thrown)));
  }

  /** Gives the worker to a plugin, once. */
  assign(command: Command): void {
    this.#command = command;
    const death = this.#death;
    // It has ended unnoticed, while it was nobody's.
    if (death !== null) queueMicrotask(() => command.onDeath({ ...death, generation: command.number }));
  }

  get alive(): boolean {
    return this.#death === null;
  }

  /** Node's number of the worker thread, or null before it runs and after it ended. */
  get threadId(): number | null {
    return this.#worker.threadId < 0 ? null : this.#worker.threadId;
  }

  /**
   * Its memory in bytes, asked past its event loop, which may stand still. Null where Node cannot tell (before 22.16), or when it has ended.
   */
  async measure(): Promise<number | null> {
    const worker = this.#worker as Worker & { getHeapStatistics?(): Promise<{ readonly used_heap_size: number; readonly external_memory: number }> };
    const statistics = await worker.getHeapStatistics?.().catch(() => null);
    return statistics == null ? null : statistics.used_heap_size + statistics.external_memory;
  }

  /** Returns false when the worker has ended, which may be seen here before it is known to be a death. */
  send(frame: KernelToHostFrame, transfer?: readonly Transferable[]): boolean {
    return this.#channel.send(packForHost(frame), transfer);
  }

  /** Resolves when the host is loaded and warm. */
  ready(): Promise<void> {
    return this.#control.call('its boot', BOOT_TIMEOUT_MS, (host) => host.ready());
  }

  enlist(order: HostOrder): Promise<void> {
    return this.#control.call('its boot', BOOT_TIMEOUT_MS, (host) => host.enlist(order));
  }

  describe(): Promise<PluginManifest> {
    return this.#control.call('its import', BOOT_TIMEOUT_MS, (host) => host.describe());
  }

  init(): Promise<void> {
    return this.#control.call('init()', HOOK_TIMEOUT_MS, (host) => host.init());
  }

  mount(): Promise<readonly RouteDescription[]> {
    return this.#control.call('routes()', HOOK_TIMEOUT_MS, (host) => host.mount());
  }

  start(): Promise<void> {
    return this.#control.call('start()', HOOK_TIMEOUT_MS, (host) => host.start());
  }

  /** Runs the plugin's `stop` and resolves when the thread is gone; what `stop` throws is thrown after that. */
  async stop(): Promise<void> {
    this.#verdict ??= { kind: 'stopped', cause: 'stopped as asked', request: null };
    await this.#control.call('stop()', STOP_TIMEOUT_MS, (host) => host.stop()).catch((error: Error) => {
      // The end of the thread may be seen before its last word: then it has ended, which is all that was asked.
      if (!this.alive) return;
      this.#stopFailure = error;
      this.#killSwitch.abort();
    });
    await this.gone;
    if (this.#stopFailure !== null) throw this.#stopFailure;
  }

  /** It is ending by itself, of this, which may be anything. */
  crash(thrown: unknown): void {
    const { kind, cause } = causeOf(toPlainError(thrown));
    this.kill(kind, cause);
  }

  /** Ends the thread, whatever it does. */
  kill(kind: DeathKind, cause: string, request: string | null = null): void {
    if (this.#verdict === null) this.#verdict = { kind, cause, request };
    else if (this.alive) this.#stopFailure ??= new Error(cause);
    // What it has sent and nobody has read yet could be a flood.
    this.#channel.close();
    this.#killSwitch.abort();
  }

  async #end(error: PlainError | null): Promise<void> {
    if (this.#verdict?.kind === 'stopped' && error !== null && !this.#killSwitch.signal.aborted) this.#stopFailure = new Error(causeOf(error).cause);
    this.#death = { ...(this.#verdict ?? { ...causeOf(error), request: null }), generation: this.#command?.number ?? 0, at: Date.now() };
    this.#control.close(this.#death.cause);
    // Answers that it has given are given, and its last words say what it died of.
    this.#channel.readRest();
    this.#command?.onDeath(this.#death);
    this.#channel.close();
    void this.#pool.destroy();
    // A worker that sits in native code ends only when that does.
    await within(this.#exited, TERMINATE_TIMEOUT_MS);
  }
}

/**
 * Piscina takes apart what comes on its port without a look, which for `null` throws in the kernel's thread. A plugin can get at the other
 * end, so the listeners that are set while `begin` runs get objects only.
 */
function guarded<T>(begin: () => T, onGarbage: () => void): T {
  const { prototype } = MessagePort;
  const { on } = prototype;
  prototype.on = function (this: MessagePort, event: string, listener: (value: unknown) => void) {
    return on.call(this, event as 'message', (value) => (event !== 'message' || (typeof value === 'object' && value !== null) ? listener(value) : onGarbage()));
  } as typeof on;
  try {
    return begin();
  } finally {
    Reflect.deleteProperty(prototype, 'on');
  }
}

function causeOf(error: PlainError | null): { readonly kind: DeathKind; readonly cause: string } {
  if (error === null) return { kind: 'crashed', cause: 'its host ended without being asked' };
  if (error.code === 'ERR_WORKER_OUT_OF_MEMORY') return { kind: 'out-of-memory', cause: 'it used up its heap' };
  const exit = /^worker exited with code: (\d+)$/.exec(error.message);
  if (exit !== null) return { kind: 'crashed', cause: `it called process.exit(${exit[1]})` };
  // Node cannot bring every object over; the host has logged it before its end.
  if (error.message === '[object Object]') return { kind: 'crashed', cause: 'it threw something that is no Error; the log has it' };
  return { kind: 'crashed', cause: `${error.name}: ${error.message}`.slice(0, CAUSE_MAX_CHARACTERS) };
}
