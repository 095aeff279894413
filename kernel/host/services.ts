// Services between plugins as one host sees them: what it provides, what it uses, over direct ports. Must not know which plugin is at the other end.
import type { MessagePort } from 'node:worker_threads';
import { Channel } from '../../protocol/channel.js';
import { BulkheadError, toPlainError, type PlainError } from '../../protocol/errors.js';
import type { CallCancelFrame, CallFrame, HostToKernelFrame, ReplyFrame, ServiceAcceptFrame, ServiceOpenedFrame } from '../../protocol/frames.js';
import { SERVICE_CALL_TIMEOUT_MS, SERVICE_CALLS_MAX_PENDING } from '../../protocol/limits.js';
import type { Services } from '../../protocol/services.js';
import type { Task, Tasks } from './task.js';

type Callable = (...args: unknown[]) => unknown;
type Send = (frame: HostToKernelFrame) => void;
type Opening = { readonly resolve: (port: MessagePort) => void; readonly reject: (error: Error) => void };

function revive(plain: PlainError): Error {
  return Object.assign(new Error(plain.message), { name: plain.name, code: plain.code, statusCode: plain.statusCode });
}

interface PendingCall {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
  /** Takes it away from the task that has made it. */
  readonly leave: (() => void) | undefined;
  /** What it has left over, once it has. */
  channel: Consumption | null;
}

type Consumption = Channel<CallFrame | CallCancelFrame, ReplyFrame>;

/** The consumer's end: one port to one provider, opened by the first call and again after the provider's death. */
class RemoteService {
  readonly #name: string;
  readonly #open: (service: string) => Promise<MessagePort>;
  readonly #tasks: Tasks;
  readonly #pending = new Map<number, PendingCall>();
  #channel: Promise<Consumption> | null = null;
  #lastId = 0;

  constructor(name: string, open: (service: string) => Promise<MessagePort>, tasks: Tasks) {
    this.#name = name;
    this.#open = open;
    this.#tasks = tasks;
  }

  call(method: string | null, args: readonly unknown[]): Promise<unknown> {
    if (this.#pending.size >= SERVICE_CALLS_MAX_PENDING) return Promise.reject(this.#unavailable(`${SERVICE_CALLS_MAX_PENDING} calls are pending`));
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#giveUp(id, this.#unavailable(`it did not answer within ${SERVICE_CALL_TIMEOUT_MS} ms`)), SERVICE_CALL_TIMEOUT_MS);
      const leave = this.#tasks.current?.onCancel((error) => this.#giveUp(id, error));
      const call: PendingCall = { resolve, reject, timer, leave, channel: null };
      this.#pending.set(id, call);
      this.#channel ??= this.#connect();
      this.#channel.then((channel) => {
        if (!this.#pending.has(id)) return; // given up already
        call.channel = channel;
        channel.send({ kind: 'call', id, method, args });
      }, (error: Error) => this.#settle(id)?.reject(error));
    });
  }

  async #connect(): Promise<Consumption> {
    try {
      const port = await this.#open(this.#name);
      return new Channel(port, {
        onFrame: (frame) => {
          const call = this.#settle(frame.id);
          if (frame.kind === 'result') call?.resolve(frame.value);
          else call?.reject(revive(toPlainError(frame.error)));
        },
        onUnsendable: (frame, error) => this.#settle(frame.id)?.reject(error),
        onClose: () => {
          this.#channel = null;
          for (const id of [...this.#pending.keys()]) this.#settle(id)?.reject(this.#unavailable('its plugin went away during the call'));
        },
      });
    } catch (error) {
      this.#channel = null;
      throw error;
    }
  }

  /** Nobody waits for the outcome any more; the provider hears of it. */
  #giveUp(id: number, error: Error): void {
    const call = this.#settle(id);
    call?.reject(error);
    call?.channel?.send({ kind: 'cancel', id });
  }

  #settle(id: number): PendingCall | undefined {
    const call = this.#pending.get(id);
    if (call === undefined) return undefined;
    clearTimeout(call.timer);
    call.leave?.();
    this.#pending.delete(id);
    return call;
  }

  #unavailable(reason: string): Error {
    return new BulkheadError('SERVICE_UNAVAILABLE', { service: this.#name, reason });
  }
}

export class HostServices implements Services {
  readonly #plugin: string;
  readonly #send: Send;
  readonly #tasks: Tasks;
  readonly #provided = new Map<string, object>();
  readonly #remotes = new Map<string, object>();
  readonly #opening = new Map<number, Opening>();
  #lastRef = 0;

  constructor(plugin: string, send: Send, tasks: Tasks) {
    this.#plugin = plugin;
    this.#send = send;
    this.#tasks = tasks;
  }

  provide(name: string, service: object): void {
    this.#tasks.track();
    if (this.#provided.has(name)) throw new BulkheadError('PLUGIN_CONFLICT', { name: this.#plugin, reason: `it provides the service "${name}" already` });
    this.#provided.set(name, service);
    this.#send({ kind: 'provide', service: name });
  }

  get(name: string): never {
    this.#tasks.track();
    let remote = this.#remotes.get(name);
    if (remote === undefined) {
      const service = new RemoteService(name, (wanted) => this.#open(wanted), this.#tasks);
      remote = new Proxy((...args: unknown[]) => service.call(null, args), {
        // No `then`, or the handle could not be returned from an async function.
        get: (_target, key) => (typeof key === 'string' && key !== 'then' ? (...args: unknown[]) => service.call(key, args) : undefined),
      });
      this.#remotes.set(name, remote);
    }
    return remote as never;
  }

  handle(frame: ServiceOpenedFrame | ServiceAcceptFrame): void {
    if (frame.kind === 'service-accept') return this.#accept(frame.service, frame.port);
    const opening = this.#opening.get(frame.ref);
    this.#opening.delete(frame.ref);
    if ('port' in frame) opening?.resolve(frame.port);
    else opening?.reject(revive(frame.error));
  }

  #open(service: string): Promise<MessagePort> {
    const ref = ++this.#lastRef;
    // The kernel answers at once, and its death is ours: this needs no deadline.
    return new Promise((resolve, reject) => {
      this.#opening.set(ref, { resolve, reject });
      this.#send({ kind: 'service-open', ref, service });
    });
  }

  #accept(name: string, port: MessagePort): void {
    const service = this.#provided.get(name);
    const running = new Map<number, Task>();
    const channel = new Channel<ReplyFrame, CallFrame | CallCancelFrame>(port, {
      onFrame: (frame) => {
        const { id } = frame;
        // The other end is another plugin's, and may send anything.
        if (!Number.isSafeInteger(id)) return;
        if (frame.kind === 'cancel') return running.get(id)?.cancel('the call was given up: nobody waits for its result any more');
        const task = this.#tasks.begin();
        if (task !== null) running.set(id, task);
        const reply = (answer: ReplyFrame): void => {
          if (running.get(id) === task) running.delete(id);
          channel.send(answer);
        };
        void this.#tasks.run(task, invoke, service, frame.method, frame.args).then(
          (value) => reply({ kind: 'result', id, value }),
          (error: unknown) => reply({ kind: 'error', id, error: toPlainError(error) }),
        );
      },
      onUnsendable: ({ id }, error) => channel.send({ kind: 'error', id, error: toPlainError(error) }),
      onClose: () => {
        for (const task of running.values()) task.cancel('the call was given up: the plugin that has made it went away');
      },
    });
  }
}

async function invoke(service: object | undefined, method: string | null, args: readonly unknown[]): Promise<unknown> {
  const target: unknown = method === null ? service : method in Object.prototype ? undefined : (service as Record<string, unknown> | undefined)?.[method];
  if (typeof target !== 'function') throw new TypeError(method === null ? 'the service is an object; call one of its methods' : `the service has no method "${method}"`);
  return (target as Callable).apply(method === null ? undefined : service, [...args]);
}
