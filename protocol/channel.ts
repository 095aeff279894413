// A batched, closable port for frames, the same on both sides of a thread. Must not know what the frames mean.
import type { MessagePort, Transferable } from 'node:worker_threads';
import { CHANNEL_BATCH_MAX_FRAMES } from './limits.js';

export interface ChannelHandlers<In, Out = unknown> {
  /** Called for each frame in the order of sending; must not throw. */
  readonly onFrame: (frame: In) => void;
  /** Called once, when either side has closed or its thread has ended. */
  readonly onClose?: () => void;
  /** Called for a frame that cannot be cloned; the others of its batch are sent. Without this, such a frame is thrown. */
  readonly onUnsendable?: (frame: Out, error: Error) => void;
}

/**
 * Sends the first frame of a turn at once, so that a lone request does not wait, and gathers the rest of the turn into
 * one message, because a message costs some 25 µs in thread wake-ups and a frame within one about 1 µs.
 */
export class Channel<Out, In> {
  readonly #port: MessagePort;
  readonly #onUnsendable: ((frame: Out, error: Error) => void) | undefined;
  #queue: Out[] = [];
  /** For each queued frame, what moves with it. */
  #transfers: (readonly Transferable[] | undefined)[] = [];
  #flushing = false;
  #closed = false;

  constructor(port: MessagePort, handlers: ChannelHandlers<In, Out>) {
    this.#port = port;
    this.#onUnsendable = handlers.onUnsendable;
    port.on('message', (batch: readonly In[]) => {
      for (const frame of batch) {
        // A handler may close the channel in the middle of a batch; what follows belongs to nobody.
        if (this.#closed) return;
        handlers.onFrame(frame);
      }
    });
    port.once('close', () => {
      this.#closed = true;
      this.#queue = [];
      this.#transfers = [];
      handlers.onClose?.();
    });
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Sends a frame, now or with the rest of the turn; does nothing after the close. */
  send(frame: Out, transfer?: readonly Transferable[]): void {
    if (this.#closed) return;
    if (!this.#flushing) {
      this.#postOne(frame, transfer);
      this.#flushing = true;
      setImmediate(this.#flush);
      return;
    }
    this.#queue.push(frame);
    this.#transfers.push(transfer);
    if (this.#queue.length >= CHANNEL_BATCH_MAX_FRAMES) this.#post();
  }

  /** Sends what is still queued, then closes both sides. */
  close(): void {
    if (this.#closed) return;
    this.#post();
    this.#closed = true;
    this.#port.close();
  }

  readonly #flush = (): void => {
    this.#flushing = false;
    if (!this.#closed) this.#post();
  };

  #post(): void {
    if (this.#queue.length === 0) return;
    const queue = this.#queue;
    const transfers = this.#transfers;
    this.#queue = [];
    this.#transfers = [];
    try {
      this.#port.postMessage(queue, transfers.flatMap((transfer) => transfer ?? []));
    } catch {
      // Nothing of the batch has left. One by one, the frames that can be sent are.
      queue.forEach((frame, i) => this.#postOne(frame, transfers[i]));
    }
  }

  #postOne(frame: Out, transfer: readonly Transferable[] | undefined): void {
    try {
      this.#port.postMessage([frame], transfer);
    } catch (error) {
      if (this.#onUnsendable === undefined) throw error;
      this.#onUnsendable(frame, error as Error);
    }
  }
}
