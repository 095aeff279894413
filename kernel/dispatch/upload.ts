// The body of one request on its way from the client to a host: read whole when it is small, else passed on in chunks. Must not know the answer.
import type { IncomingMessage } from 'node:http';
import { movedBytes, SendWindow } from '../../protocol/flow.js';
import { BODY_INLINE_MAX_BYTES } from '../../protocol/limits.js';
import type { SendFrame } from './open-request.js';
import { pump } from './relay.js';

/** Where the chunks of a body go now. */
export interface UploadTo {
  readonly id: number;
  readonly send: SendFrame | null;
  /** Whether nobody wants more of it. */
  readonly over: boolean;
}

export class Upload {
  readonly #req: IncomingMessage;
  readonly #limitBytes: number;
  readonly #to: UploadTo;
  readonly #onTooLarge: () => void;
  readonly #window = new SendWindow();
  /** Whole, when it was small. */
  body: Uint8Array | null = null;
  streams = false;
  /** Whether anything of a streamed body has left: it cannot be sent again. */
  left = false;
  #pumping = false;

  constructor(req: IncomingMessage, limitBytes: number, to: UploadTo, onTooLarge: () => void) {
    this.#req = req;
    this.#limitBytes = limitBytes;
    this.#to = to;
    this.#onTooLarge = onTooLarge;
  }

  /** Reads a small body whole, so that it can travel with the request; leaves a large one for the stream. Null when there is nothing to wait for. */
  prepare(): Promise<void> | null {
    const { 'content-length': length, 'transfer-encoding': encoding } = this.#req.headers;
    const declared = Number(length ?? 0);
    if (declared > this.#limitBytes) this.#onTooLarge();
    else if (encoding !== undefined || declared > BODY_INLINE_MAX_BYTES) this.streams = true;
    else if (declared > 0) return this.#read(declared);
    return null;
  }

  /** With events, because to iterate over a stream costs as much as all the rest of a small request. */
  #read(declared: number): Promise<void> {
    const body = new Uint8Array(declared);
    let filled = 0;
    return new Promise((resolve) => {
      this.#req.on('data', (chunk: Buffer) => {
        body.set(chunk, filled);
        filled += chunk.byteLength;
      });
      this.#req.once('end', () => {
        this.body = body;
        resolve();
      });
      this.#req.once('close', resolve); // the client went away, which the answer hears as well
    });
  }

  /** A host has the request. */
  begin(): void {
    if (!this.streams) return;
    if (this.#pumping) this.#req.resume();
    else this.#pump();
  }

  suspend(): void {
    if (this.#pumping) this.#req.pause();
  }

  credit(bytes: number): void {
    this.#window.grant(bytes);
  }

  /** Nobody wants the rest of the body, but the client must get rid of it, or its connection stands still. */
  discard(): void {
    if (this.streams) this.#req.resume();
  }

  #pump(): void {
    this.#pumping = true;
    let received = 0;
    pump(this.#req, this.#window, (chunk) => {
      received += chunk.byteLength;
      if (!this.#to.over && received > this.#limitBytes) this.#onTooLarge();
      if (this.#to.over) return false;
      this.left = true;
      const data = movedBytes(chunk);
      this.#to.send?.({ kind: 'chunk', id: this.#to.id, data }, [data.buffer]);
      return true;
    });
    this.#req.once('end', () => {
      this.left = true;
      if (!this.#to.over) this.#to.send?.({ kind: 'end', id: this.#to.id, trailers: this.#req.rawTrailers });
    });
    this.#req.once('error', () => {}); // the client went away; 'close' of the response says so
  }
}
