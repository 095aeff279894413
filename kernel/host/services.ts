// Services between plugins as one host sees them: what it provides, what it uses, over direct ports. Must not know which plugin is at the other end.
import type { MessagePort } from 'node:worker_threads';
import { Channel } from '../../protocol/channel.js';
import { BulkheadError, toPlainError, type PlainError } from '../../protocol/errors.js';
import type { CallFrame, HostToKernelFrame, ReplyFrame, ServiceAcceptFrame, ServiceOpenedFrame } from '../../protocol/frames.js';
import { SERVICE_CALL_TIMEOUT_MS, SERVICE_CALLS_MAX_PENDING } from '../../protocol/limits.js';
import type { Services } from '../../protocol/services.js';

type Callable = (...args: unknown[]) => unknown;
type Send = (frame: HostToKernelFrame) => void;
type Opening = { readonly resolve: (port: MessagePort) => void; readonly reject: (error: Error) => void };

function revive(plain: PlainError): Error {
  return Object.assign(new Error(plain.message), { name: plain.name, code: plain.code, statusCode: plain.statusCode });
}

/** The consumer's end: one port to one provider, opened by the first call and again after the provider's death. */
class RemoteService {
  readonly #name: string;
  readonly #open: (service: string) => Promise<MessagePort>;
  readonly #pending = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void; timer: NodeJS.Timeout }>();
  #channel: Promise<Channel<CallFrame, ReplyFrame>> | null = null;
  #calls = 0;
  #lastId = 0;

  constructor(name: string, open: (service: string) => Promise<MessagePort>) {
    this.#name = name;
    this.#open = open;
  }

  async call(method: string | null, args: readonly unknown[]): Promise<unknown> {
    if (this.#calls >= SERVICE_CALLS_MAX_PENDING) throw this.#unavailable(`${SERVICE_CALLS_MAX_PENDING} calls are pending`);
    this.#calls += 1;
    try {
      this.#channel ??= this.#connect();
      return await this.#callOver(await this.#channel, method, args);
    } finally {
      this.#calls -= 1;
    }
  }

  #callOver(channel: Channel<CallFrame, ReplyFrame>, method: string | null, args: readonly unknown[]): Promise<unknown> {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(this.#unavailable(`it did not answer within ${SERVICE_CALL_TIMEOUT_MS} ms`));
      }, SERVICE_CALL_TIMEOUT_MS);
      this.#pending.set(id, { resolve, reject, timer });
      channel.send({ kind: 'call', id, method, args });
    });
  }

  async #connect(): Promise<Channel<CallFrame, ReplyFrame>> {
    try {
      const port = await this.#open(this.#name);
      return new Channel<CallFrame, ReplyFrame>(port, {
        onFrame: (frame) => {
          const call = this.#settle(frame.id);
          if (frame.kind === 'result') call?.resolve(frame.value);
          else call?.reject(revive(frame.error));
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

  #settle(id: number): { resolve: (value: unknown) => void; reject: (error: Error) => void } | undefined {
    const call = this.#pending.get(id);
    if (call === undefined) return undefined;
    clearTimeout(call.timer);
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
  readonly #provided = new Map<string, object>();
  readonly #remotes = new Map<string, object>();
  readonly #opening = new Map<number, Opening>();
  #lastRef = 0;

  constructor(plugin: string, send: Send) {
    this.#plugin = plugin;
    this.#send = send;
  }

  provide(name: string, service: object): void {
    if (this.#provided.has(name)) throw new BulkheadError('PLUGIN_CONFLICT', { name: this.#plugin, reason: `it provides the service "${name}" already` });
    this.#provided.set(name, service);
    this.#send({ kind: 'provide', service: name });
  }

  get(name: string): never {
    let remote = this.#remotes.get(name);
    if (remote === undefined) {
      const service = new RemoteService(name, (wanted) => this.#open(wanted));
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
    const channel = new Channel<ReplyFrame, CallFrame>(port, {
      onFrame: ({ id, method, args }) => void invoke(service, method, args).then(
        (value) => channel.send({ kind: 'result', id, value }),
        (error: unknown) => channel.send({ kind: 'error', id, error: toPlainError(error) }),
      ),
      onUnsendable: ({ id }, error) => channel.send({ kind: 'error', id, error: toPlainError(error) }),
    });
  }
}

async function invoke(service: object | undefined, method: string | null, args: readonly unknown[]): Promise<unknown> {
  const target: unknown = method === null ? service : method in Object.prototype ? undefined : (service as Record<string, unknown> | undefined)?.[method];
  if (typeof target !== 'function') throw new TypeError(method === null ? 'the service is an object; call one of its methods' : `the service has no method "${method}"`);
  return (target as Callable).apply(method === null ? undefined : service, [...args]);
}
