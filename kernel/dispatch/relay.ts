// Bytes between a client's connection and frames, with credits in both directions. Must not know what the bytes are.
import type { Readable, Writable } from 'node:stream';
import type { ReceiveWindow, SendWindow } from '../../protocol/flow.js';

/** Sends on what the client sends, and lets it rest while the host has no room. `send` says whether anybody wants it: what nobody wants is read all the same. */
export function pump(source: Readable, window: SendWindow, send: (chunk: Buffer) => boolean): void {
  source.on('data', (chunk: Buffer) => {
    if (!send(chunk) || window.take(chunk.byteLength)) return;
    source.pause();
    window.whenOpen(() => source.resume());
  });
}

/**
 * Hands bytes of a host to the client, or what is `written` in their place. The credit for them follows what the client's connection has taken, so that a
 * slow client does not fill the kernel. Throws when these are no bytes, or more than the host had credit for.
 */
export function deliver(target: Writable, data: unknown, window: ReceiveWindow, grant: (bytes: number) => void, written = data): void {
  if (!(data instanceof Uint8Array)) throw new TypeError('it has no bytes');
  window.admit(data.byteLength);
  target.write(written, () => {
    const bytes = window.consume(data.byteLength);
    if (bytes > 0) grant(bytes);
  });
}
