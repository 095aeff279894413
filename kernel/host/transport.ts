// Drives the plugin's Fastify without a socket: frames in, frames out. Must not know the plugin.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { FastifyInstance } from 'fastify';
import type { CancelFrame, ChunkFrame, CreditFrame, EndFrame, HostToKernelFrame, RequestFrame, UpgradeFrame } from '../../protocol/frames.js';
import { InFlightTable } from '../../protocol/in-flight.js';
import type { StatusBlock } from '../../protocol/status-block.js';
import { HostRequest } from './http-request.js';
import { HostResponse } from './http-response.js';
import { TunnelSocket } from './tunnel-socket.js';

export type ExchangeFrame = RequestFrame | UpgradeFrame | ChunkFrame | EndFrame | CreditFrame | CancelFrame;

export class Transport {
  readonly #open = new InFlightTable<HostResponse | TunnelSocket>();
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
      case 'upgrade': return this.#upgrade(frame);
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

  #upgrade(frame: UpgradeFrame): void {
    const { id, body } = frame;
    const socket = new TunnelSocket(frame, this.#send, this.#forget);
    this.#open.add(id, socket);
    const { server } = this.#app!;
    const accepted = server.listenerCount('upgrade') > 0;
    this.#send({ kind: 'upgraded', id, accepted });
    // As in Node, where a server without such a listener ignores the wish.
    if (!accepted) return socket.abort();
    this.#status.lastRequest = id;
    const request = new HostRequest({ ...frame, kind: 'request', body: null, streams: false }, () => {});
    Object.defineProperties(request, { socket: { value: socket }, upgrade: { value: true } });
    socket.once('close', () => request.destroy()); // for `request.signal`
    server.emit('upgrade', request as unknown as IncomingMessage, socket, Buffer.from(body!));
  }
}
