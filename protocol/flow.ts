// Credits: how the two ends of a byte stream keep the bytes under way bounded. Must not know what streams or over what.
import { STREAM_WINDOW_BYTES } from './limits.js';

/** The sender's side. One chunk may overdraw the window, so that no chunk needs to be cut; the next one waits. */
export class SendWindow {
  #available = STREAM_WINDOW_BYTES;
  #waiting: (() => void) | null = null;

  /** Accounts for bytes that were sent. Returns whether more may be sent at once. */
  take(bytes: number): boolean {
    this.#available -= bytes;
    return this.#available > 0;
  }

  get open(): boolean {
    return this.#available > 0;
  }

  /** Calls back once when the window is open: at once, or when credit arrives. */
  whenOpen(resume: () => void): void {
    if (this.open) resume();
    else this.#waiting = resume;
  }

  /** Accounts for credit from the receiver. Throws when it was not sent so much: what comes from a worker may be anything. */
  grant(bytes: number): void {
    if (!Number.isSafeInteger(bytes) || bytes < 1 || this.#available + bytes > STREAM_WINDOW_BYTES) throw new RangeError('it gave credit for bytes that it never got');
    this.#available += bytes;
    if (!this.open || this.#waiting === null) return;
    const resume = this.#waiting;
    this.#waiting = null;
    resume();
  }
}

/** The receiver's side: says when enough has been consumed to be worth a credit frame. */
export class ReceiveWindow {
  #owed = 0;
  #held = 0;
  /** Of what has been admitted, that for which the sender has no credit yet. */
  #uncredited = 0;

  /** Accounts for bytes of a sender that may not keep to its window. Throws when it had no credit left. */
  admit(bytes: number): void {
    if (this.#uncredited >= STREAM_WINDOW_BYTES) throw new RangeError('it sent more bytes than it had credit for');
    this.#uncredited += bytes;
  }

  /** Accounts for bytes that have arrived and wait for a reader. */
  hold(bytes: number): void {
    this.#held += bytes;
  }

  /** The reader asks for more than was held. Returns the credit to send now, or 0. */
  release(): number {
    const bytes = this.#held;
    this.#held = 0;
    return this.consume(bytes);
  }

  /** Accounts for consumed bytes. Returns the credit to send now, or 0. */
  consume(bytes: number): number {
    this.#owed += bytes;
    if (this.#owed < STREAM_WINDOW_BYTES / 2) return 0;
    const credit = this.#owed;
    this.#owed = 0;
    this.#uncredited -= credit;
    return credit;
  }
}

/**
 * A copy of the bytes that owns its memory, ready for a transfer list. Posting a view clones all of the memory below it,
 * which for a small Buffer is a pool of 8 KiB or more shared with strangers; transferring that pool would break them.
 */
export function ownedBytes(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes);
}

/** The same for bytes that nobody here looks at any more: a copy only when their memory is not all theirs. */
export function movedBytes(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return bytes.buffer.byteLength === bytes.byteLength ? (bytes as Uint8Array<ArrayBuffer>) : ownedBytes(bytes);
}
