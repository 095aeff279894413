// A batched, closable port for frames, the same on both sides of a thread. Must not know what the frames mean.
import { MessagePort, receiveMessageOnPort, type Transferable } from 'node:worker_threads';
import { BusyPoll } from './busy-poll.js';
import { CHANNEL_BATCH_MAX_FRAMES, CHANNEL_REST_MAX_MESSAGES } from './limits.js';

export interface ChannelHandlers<In, Out = unknown> {
  /** Called for each frame in the order of sending; must not throw. */
  readonly onFrame: (frame: In) => void;
  /** Called once, when either side has closed or its thread has ended. */
  readonly onClose?: () => void;
  /** Called before the channel closes because the other side has sent what is no batch of frames: a plugin that got at its port. */
  readonly onGarbage?: () => void;
  /** Called for a frame that cannot be cloned; the others of its batch are sent. Without this, such a frame is thrown. */
  readonly onUnsendable?: (frame: Out, error: Error) => void;
}

/** Of this thread. */
const wakefulness = new BusyPoll();

/**
 * Gathers the frames of a turn of the event loop into few messages, because a message costs 10 to 25 µs in wake-ups and a frame within
 * one about 1 µs. After a turn with one frame the next one is sent at once, so that a lone request does not wait.
 */
export class Channel<Out, In> {
  readonly #port: MessagePort;
  readonly #handle: (batch: unknown) => void;
  readonly #onUnsendable: ((frame: Out, error: Error) => void) | undefined;
  #queue: Out[] = [];
  /** What moves with queued frames; most have nothing that does. */
  #transfers = new Map<Out, readonly Transferable[]>();
  /** Frames of this turn, and of the last one that had any. */
  #turn = 0;
  #lastTurn = 0;
  #closed = false;

  constructor(port: MessagePort, handlers: ChannelHandlers<In, Out>) {
    this.#port = port;
    this.#onUnsendable = handlers.onUnsendable;
    const refuse = (): void => {
      handlers.onGarbage?.();
      this.close();
    };
    this.#handle = (batch) => {
      wakefulness.received();
      if (!Array.isArray(batch)) return refuse();
      for (const frame of batch) {
        // A handler may close the channel in the middle of a batch; what follows belongs to nobody.
        if (this.#closed) return;
        if (typeof frame !== 'object' || frame === null) return refuse();
        handlers.onFrame(frame as In);
      }
    };
    port.on('message', this.#handle);
    port.once('close', () => {
      this.#closed = true;
      for (const transfer of this.#transfers.values()) letGo(transfer);
      this.#queue = [];
      this.#transfers.clear();
      handlers.onClose?.();
    });
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Sends a frame, now or with the rest of the turn. After the close it does nothing but close the ports that were to move, and returns false. */
  send(frame: Out, transfer?: readonly Transferable[]): boolean {
    if (this.#closed) {
      letGo(transfer);
      return false;
    }
    this.#turn += 1;
    if (this.#turn === 1) {
      setImmediate(this.#flush);
      if (this.#lastTurn <= 1) {
        this.#postOne(frame, transfer);
        wakefulness.sent();
        return true;
      }
    }
    this.#queue.push(frame);
    if (transfer !== undefined) this.#transfers.set(frame, transfer);
    if (this.#queue.length >= CHANNEL_BATCH_MAX_FRAMES) this.#post();
    return true;
  }

  /** Sends what is still queued at once: the thread may have no further turn. */
  flush(): void {
    if (!this.#closed) this.#post();
  }

  /** Handles now what the other side has sent before its end and nobody has read yet, up to CHANNEL_REST_MAX_MESSAGES: more could be a flood. */
  readRest(): void {
    for (let i = 0; i < CHANNEL_REST_MAX_MESSAGES && !this.#closed; i += 1) {
      const received = receiveMessageOnPort(this.#port) as { readonly message: unknown } | undefined;
      if (received === undefined) return;
      this.#handle(received.message);
    }
  }

  /** Sends what is still queued, then closes both sides. */
  close(): void {
    if (this.#closed) return;
    this.#post();
    this.#closed = true;
    this.#port.close();
  }

  readonly #flush = (): void => {
    this.#lastTurn = this.#turn;
    this.#turn = 0;
    this.flush();
  };

  #post(): void {
    if (this.#queue.length === 0) return;
    const queue = this.#queue;
    const transfers = this.#transfers;
    this.#queue = [];
    if (transfers.size > 0) this.#transfers = new Map();
    try {
      this.#port.postMessage(queue, transfers.size === 0 ? undefined : [...transfers.values()].flat());
    } catch {
      // Nothing of the batch has left. One by one, the frames that can be sent are.
      for (const frame of queue) this.#postOne(frame, transfers.get(frame));
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

/** Who has the other end of a port that never left would wait for an answer until the garbage collector finds this one. */
function letGo(transfer: readonly Transferable[] | undefined): void {
  for (const moved of transfer ?? []) if (moved instanceof MessagePort) moved.close();
}
