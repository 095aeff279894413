// Bytes between a client's connection and frames, with credits in both directions. Must not know what the bytes are.
import type { Readable, Writable } from 'node:stream';
import { ReceiveWindow, type SendWindow } from '../../protocol/flow.js';
import { giveBack } from '../../protocol/slots.js';

/** Sends on what the client sends, and lets it rest while the host has no room. `send` says whether anybody wants it: what nobody wants is read all the same. */
export function pump(source: Readable, window: SendWindow, send: (chunk: Buffer) => boolean): void {
  source.on('data', (chunk: Buffer) => {
    const { byteLength } = chunk; // which it loses on its way
    if (!send(chunk) || window.take(byteLength)) return;
    source.pause();
    window.whenOpen(() => source.resume());
  });
}

/** Bytes of a host on their way to one client. */
export class Delivery {
  readonly #target: Writable;
  readonly #grant: (bytes: number) => void;
  readonly #window = new ReceiveWindow();
  /** What the client's connection has not taken yet. */
  readonly #waiting = new Set<Uint8Array>();
  /** What is not for the client yet. */
  #held: Uint8Array[] = [];

  /** Credit for the host follows what the client's connection has taken, so that a slow client does not fill the kernel. */
  constructor(target: Writable, grant: (bytes: number) => void) {
    this.#target = target;
    this.#grant = grant;
  }

  /** Hands on the bytes, or what is `written` in their place. Throws when they are more than the host had credit for. */
  write(data: Uint8Array, written = data): void {
    this.#window.admit(data.byteLength);
    this.#pass(data, written);
  }

  /** Keeps the bytes until `release` or `discard`. Throws when they are more than the host had credit for: it gets none for them meanwhile. */
  hold(data: Uint8Array): void {
    this.#window.admit(data.byteLength);
    this.#held.push(data);
  }

  release(): void {
    const held = this.#held;
    this.#held = [];
    for (const data of held) this.#pass(data, data);
  }

  /** They are for nobody. */
  discard(): void {
    for (const data of this.#held) giveBack(data);
    this.#held = [];
  }

  #pass(data: Uint8Array, written: Uint8Array): void {
    this.#waiting.add(data);
    this.#target.write(written, () => {
      this.#done(data);
      const bytes = this.#window.consume(data.byteLength);
      if (bytes > 0) this.#grant(bytes);
    });
  }

  /** The connection is closed, and takes nothing more; of all that was written to it Node does not say so. */
  close(): void {
    for (const data of this.#waiting) this.#done(data);
  }

  #done(data: Uint8Array): void {
    if (this.#waiting.delete(data)) giveBack(data);
  }
}
