// The connection of one request, as far as handlers look at it; there is no real one in the worker. Must not know frames.
import { EventEmitter } from 'node:events';

export interface Peer {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly encrypted: boolean;
}

/** It lives as long as its request: the client's next one, on the same real connection, has another. */
export class HostSocket extends EventEmitter {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly remoteFamily: string;
  readonly encrypted: boolean;
  destroyed = false;
  timeout = 0;
  readonly #onTimeout: () => void;
  readonly #cut: (error?: Error) => void;
  #timer: NodeJS.Timeout | null = null;

  /** `onTimeout` is called when a handler's own timeout has passed in silence, `cut` to give up the answer. */
  constructor({ remoteAddress, remotePort, encrypted }: Peer, onTimeout: () => void, cut: (error?: Error) => void) {
    super();
    this.remoteAddress = remoteAddress;
    this.remotePort = remotePort;
    this.remoteFamily = remoteAddress.includes(':') ? 'IPv6' : 'IPv4';
    this.encrypted = encrypted;
    this.#onTimeout = onTimeout;
    this.#cut = cut;
  }

  get readable(): boolean {
    return !this.destroyed;
  }

  get writable(): boolean {
    return !this.destroyed;
  }

  /** 0 is none, as in Node. The kernel's deadline holds all the same. */
  setTimeout(ms: number, callback?: () => void): this {
    if (callback !== undefined) this.once('timeout', callback);
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.timeout = ms;
    this.#timer = ms > 0 && !this.destroyed ? setTimeout(() => this.expire(), ms).unref() : null;
    return this;
  }

  /** Bytes have passed. */
  refresh(): void {
    this.#timer?.refresh();
  }

  /** A timeout has passed: the handler's own, or the kernel's deadline. */
  expire(): void {
    this.#onTimeout();
    this.emit('timeout');
  }

  /** The request is over. */
  close(): void {
    if (this.destroyed) return;
    this.setTimeout(0);
    this.destroyed = true;
    this.emit('close', false);
  }

  destroy(error?: Error): this {
    this.#cut(error);
    return this;
  }

  // The real connection is the kernel's, which has set these already.
  setNoDelay(): this { return this; }
  setKeepAlive(): this { return this; }
  ref(): this { return this; }
  unref(): this { return this; }
}
