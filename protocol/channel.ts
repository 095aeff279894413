// A batched, closable port for frames, the same on both sides of a thread. Must not know what the frames mean.
import type { MessagePort, Transferable } from 'node:worker_threads';
import { CHANNEL_BATCH_MAX_FRAMES } from './limits.js';

export interface ChannelHandlers<In, Out = unknown> {
  /** Called for each frame in the order of sending; must not throw. */
  readonly onFrame: (frame: In) => void;
  /** Called once, when either side has closed or its thread has ended. */
  readonly onClose?: () => void;
  /** Called for a frame of a batch that cannot be cloned; without it the whole batch throws in the next turn. Only for frames without a transfer. */
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
  #transfer: Transferable[] = [];
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
      this.#transfer = [];
      handlers.onClose?.();
    });
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Sends a frame; does nothing after the close. Throws `DataCloneError` for the first frame of a turn that cannot be cloned; a later one goes to `onUnsendable`. */
  send(frame: Out, transfer?: readonly Transferable[]): void {
    if (this.#closed) return;
    if (!this.#flushing) {
      this.#port.postMessage([frame], transfer);
      this.#flushing = true;
      setImmediate(this.#flush);
      return;
    }
    this.#queue.push(frame);
    if (transfer !== undefined) this.#transfer.push(...transfer);
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
    const transfer = this.#transfer;
    this.#queue = [];
    this.#transfer = [];
    try {
      this.#port.postMessage(queue, transfer);
    } catch (error) {
      if (this.#onUnsendable === undefined || transfer.length > 0) throw error;
      for (const frame of queue) this.#postAlone(frame);
    }
  }

  /** One frame that cannot be cloned must not take the others of its batch with it. */
  #postAlone(frame: Out): void {
    try {
      this.#port.postMessage([frame]);
    } catch (error) {
      this.#onUnsendable?.(frame, error as Error);
    }
  }
}
