// Memory that a host shares with the kernel for the bytes of answers, in slots that are used again and again. Must not know whose bytes they are.
import { SLOT_MIN_BYTES, SLOTS_MAX, STREAM_PIECE_BYTES } from './limits.js';

/** Before the slots there is a word for each: 1 while it is taken. */
const STATES_BYTES = SLOTS_MAX * Int32Array.BYTES_PER_ELEMENT;
const BYTES = STATES_BYTES + SLOTS_MAX * STREAM_PIECE_BYTES;
const FREE = 0;
const TAKEN = 1;

/** The host's side. Fresh memory for each piece costs four times as much as to copy it: the system clears its pages, and both threads collect it as garbage. */
export class Slots {
  #states: Int32Array<SharedArrayBuffer> | null = null;

  /** A copy of the bytes that the kernel will see when it is sent a view of it; null when they are too few to be worth it, too many, or all slots are taken. */
  copy(bytes: Uint8Array): Uint8Array<SharedArrayBuffer> | null {
    if (bytes.byteLength < SLOT_MIN_BYTES || bytes.byteLength > STREAM_PIECE_BYTES) return null;
    // Not before: most plugins never stream.
    this.#states ??= new Int32Array(new SharedArrayBuffer(BYTES), 0, SLOTS_MAX);
    // The lowest first, so that few of them are ever touched and cost memory.
    for (let slot = 0; slot < SLOTS_MAX; slot += 1) {
      if (Atomics.compareExchange(this.#states, slot, FREE, TAKEN) !== FREE) continue;
      const copy = new Uint8Array(this.#states.buffer, STATES_BYTES + slot * STREAM_PIECE_BYTES, bytes.byteLength);
      copy.set(bytes);
      return copy;
    }
    return null;
  }
}

/** The kernel's side: what it was sent is not needed any more. Does nothing when it is not in a slot; it may be anything. */
export function giveBack(data: unknown): void {
  if (!(data instanceof Uint8Array) || !(data.buffer instanceof SharedArrayBuffer) || data.buffer.byteLength !== BYTES) return;
  const slot = Math.floor((data.byteOffset - STATES_BYTES) / STREAM_PIECE_BYTES);
  if (slot >= 0 && slot < SLOTS_MAX) Atomics.store(new Int32Array(data.buffer, 0, SLOTS_MAX), slot, FREE);
}
