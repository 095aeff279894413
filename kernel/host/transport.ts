// Drives the plugin's Fastify without a socket: frames in, frames out. Must not know the plugin.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { FastifyInstance } from 'fastify';
import type { CancelFrame, ChunkFrame, CreditFrame, EndFrame, HostToKernelFrame, RequestFrame } from '../../protocol/frames.js';
import { InFlightTable } from '../../protocol/in-flight.js';
import type { StatusBlock } from '../../protocol/status-block.js';
import { HostRequest } from './http-request.js';
import { HostResponse } from './http-response.js';

export type ExchangeFrame = RequestFrame | ChunkFrame | EndFrame | CreditFrame | CancelFrame;

export class Transport {
  readonly #open = new InFlightTable<HostResponse>();
  readonly #send: (frame: HostToKernelFrame, transfer?: readonly ArrayBuffer[]) => void;
  readonly #status: StatusBlock;
  #app: FastifyInstance | null = null;

  constructor(send: (frame: HostToKernelFrame, transfer?: readonly ArrayBuffer[]) => void, status: StatusBlock) {
    this.#send = send;
    this.#status = status;
  }

  /** Requests are routed to this instance, which must be ready. */
  serve(app: FastifyInstance): void {
    this.#app = app;
  }

  handle(frame: ExchangeFrame): void {
    switch (frame.kind) {
      case 'request': return this.#begin(frame);
      case 'chunk': return this.#open.get(frame.id)?.req.receive(frame.data);
      case 'end': return this.#open.get(frame.id)?.req.finish(frame.trailers);
      case 'credit': return this.#open.get(frame.id)?.grant(frame.bytes);
      case 'cancel': return this.#open.get(frame.id)?.abort(frame.reason);
    }
  }

  readonly #forget = (id: number): void => this.#open.delete(id);

  #begin(frame: RequestFrame): void {
    // Before any code of the plugin runs, so that the kernel can tell a request that was begun from one that only waited.
    this.#status.lastRequest = frame.id;
    const request = new HostRequest(frame, (bytes) => this.#send({ kind: 'credit', id: frame.id, bytes }));
    const response = new HostResponse(request, this.#send, this.#forget);
    this.#open.add(frame.id, response);
    this.#app!.routing(request as unknown as IncomingMessage, response as unknown as ServerResponse);
  }
}
