// Bytes on their way from a worker, in pieces of the size of a frame and no more than the kernel has room for. Must not know what they belong to.
import { ownedBytes, type SendWindow } from '../../protocol/flow.js';
import { BODY_INLINE_MAX_BYTES } from '../../protocol/limits.js';

/** Calls back when all of the chunks have left. `send` says whether anybody still wants them; the rest is dropped when not. */
export function sendChunks(chunks: readonly Buffer[], window: SendWindow, send: (piece: Uint8Array<ArrayBuffer>) => boolean, callback: () => void): void {
  const groups = gathered(chunks);
  const next = (): void => {
    const { done, value } = groups.next();
    if (done !== true) return sendPieces(value, window, send, next);
    // Not at once, so that what a turn writes besides is gathered: many small chunks would be a flood of frames.
    process.nextTick(callback);
  };
  next();
}

function sendPieces(chunk: Buffer, window: SendWindow, send: (piece: Uint8Array<ArrayBuffer>) => boolean, callback: () => void, from = 0): void {
  const piece = ownedBytes(chunk.subarray(from, from + BODY_INLINE_MAX_BYTES));
  const { byteLength } = piece; // which it loses on its way
  if (!send(piece)) return callback();
  const open = window.take(byteLength);
  const next = from + byteLength;
  const resume = next < chunk.byteLength ? (): void => sendPieces(chunk, window, send, callback, next) : callback;
  if (open) resume();
  else window.whenOpen(resume);
}

/** Small neighbours leave as one piece: a frame costs more than to copy them together. */
function* gathered(chunks: readonly Buffer[]): Generator<Buffer> {
  let group: Buffer[] = [];
  let bytes = 0;
  for (const chunk of chunks) {
    if (bytes > 0 && bytes + chunk.byteLength > BODY_INLINE_MAX_BYTES) {
      yield group.length === 1 ? group[0]! : Buffer.concat(group);
      group = [];
      bytes = 0;
    }
    group.push(chunk);
    bytes += chunk.byteLength;
  }
  yield group.length === 1 ? group[0]! : Buffer.concat(group);
}
