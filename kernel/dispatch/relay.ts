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

/** Hands bytes to the client. The credit for them follows what its connection has taken, so that a slow client does not fill the kernel. */
export function deliver(target: Writable, data: Uint8Array, window: ReceiveWindow, grant: (bytes: number) => void): void {
  target.write(data, () => {
    const bytes = window.consume(data.byteLength);
    if (bytes > 0) grant(bytes);
  });
}
