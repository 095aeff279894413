// Bytes on their way from a worker, in pieces, and a new one only while the kernel has room. Must not know what they belong to.
import { ownedBytes, type SendWindow } from '../../protocol/flow.js';
import { BODY_INLINE_MAX_BYTES, STREAM_PIECE_BYTES } from '../../protocol/limits.js';
import { giveBack, Slots } from '../../protocol/slots.js';

/** Of this worker. */
const slots = new Slots();

/** Sends a piece, and what of it moves to the kernel. Returns whether anybody still wants it. */
export type SendPiece = (data: Uint8Array, transfer: readonly ArrayBuffer[]) => boolean;

/** Calls back when all of the chunks have left; what nobody wants is dropped. */
export function sendChunks(chunks: readonly Buffer[], window: SendWindow, send: SendPiece, callback: () => void): void {
  const groups = gathered(chunks);
  const next = (): void => {
    const { done, value } = groups.next();
    if (done !== true) return sendPieces(value, window, send, next);
    // Not at once, so that what a turn writes besides is gathered: many small chunks would be a flood of frames.
    process.nextTick(callback);
  };
  next();
}

function sendPieces(chunk: Buffer, window: SendWindow, send: SendPiece, callback: () => void, from = 0): void {
  const piece = chunk.subarray(from, from + STREAM_PIECE_BYTES);
  const shared = slots.copy(piece);
  if (!(shared === null ? sendOwned(piece, send) : send(shared, []))) {
    giveBack(shared);
    return callback();
  }
  const open = window.take(piece.byteLength);
  const next = from + piece.byteLength;
  const resume = next < chunk.byteLength ? (): void => sendPieces(chunk, window, send, callback, next) : callback;
  if (open) resume();
  else window.whenOpen(resume);
}

function sendOwned(piece: Uint8Array, send: SendPiece): boolean {
  const owned = ownedBytes(piece);
  return send(owned, [owned.buffer]);
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
