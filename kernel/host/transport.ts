// Drives the plugin's Fastify without a socket: frames in, frames out. Must not know the plugin.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { FastifyInstance } from 'fastify';
import { ERRORS } from '../../protocol/errors.js';
import type { CancelFrame, ChunkFrame, CreditFrame, EndFrame, HostToKernelFrame, RequestFrame, UpgradeFrame } from '../../protocol/frames.js';
import { InFlightTable } from '../../protocol/in-flight.js';
import type { StatusBlock } from '../../protocol/status-block.js';
import { HostRequest } from './http-request.js';
import { HostResponse } from './http-response.js';
import type { Tasks } from './task.js';
import { TunnelSocket } from './tunnel-socket.js';

export type ExchangeFrame = RequestFrame | UpgradeFrame | ChunkFrame | EndFrame | CreditFrame | CancelFrame;

/** What the kernel says of a cancelled exchange, as a sentence: the client's doing, or the code of what it has answered itself. */
function causeOf(reason: string): string {
  if (reason === 'PLUGIN_TIMEOUT') return 'the request was given up: it was not answered in time';
  return `the request was given up: ${reason in ERRORS ? `its answer is ${reason}` : reason}`;
}

function advance(exchange: HostResponse | TunnelSocket, frame: ChunkFrame | EndFrame | CreditFrame): void {
  switch (frame.kind) {
    case 'chunk': return exchange.req.receive(frame.data);
    case 'end': return exchange.req.finish(frame.trailers);
    case 'credit': return exchange.grant(frame.bytes);
  }
}

export class Transport {
  readonly #open = new InFlightTable<HostResponse | TunnelSocket>();
  readonly #send: (frame: HostToKernelFrame, transfer?: readonly ArrayBuffer[]) => void;
  readonly #status: StatusBlock;
  #app: FastifyInstance | null = null;
  #tasks: Tasks | null = null;

  constructor(send: (frame: HostToKernelFrame, transfer?: readonly ArrayBuffer[]) => void, status: StatusBlock) {
    this.#send = send;
    this.#status = status;
  }

  /** Requests are routed to this instance, which must be ready; each has a task of these. */
  serve(app: FastifyInstance, tasks: Tasks): void {
    this.#app = app;
    this.#tasks = tasks;
  }

  handle(frame: ExchangeFrame): void {
    if (frame.kind === 'request') return this.#begin(frame);
    if (frame.kind === 'upgrade') return this.#upgrade(frame);
    const exchange = this.#open.get(frame.id);
    if (exchange === undefined) return; // it is over
    if (frame.kind === 'cancel') return this.#cancel(exchange, frame);
    // Who hears of it does so in the middle of its request.
    this.#tasks!.run(exchange.req.task, advance, exchange, frame);
  }

  #cancel(exchange: HostResponse | TunnelSocket, { reason }: CancelFrame): void {
    // First, because what the handler begins when it hears of it is there to clean up.
    exchange.req.task?.cancel(causeOf(reason));
    exchange.abort(reason);
  }

  readonly #forget = (id: number): void => this.#open.delete(id);

  #begin(frame: RequestFrame): void {
    // Before any code of the plugin runs, so that the kernel can tell a request that was begun from one that only waited.
    this.#status.lastRequest = frame.id;
    const request = new HostRequest(frame, (bytes) => this.#send({ kind: 'credit', id: frame.id, bytes }));
    const response = new HostResponse(request, this.#send, this.#forget);
    this.#open.add(frame.id, response);
    request.task = this.#tasks!.begin(frame.remainingMs);
    this.#tasks!.run(request.task, this.#app!.routing, request as unknown as IncomingMessage, response as unknown as ServerResponse);
  }

  #upgrade(frame: UpgradeFrame): void {
    const { id, body } = frame;
    const socket = new TunnelSocket(frame, (answer, transfer) => {
      // What a tunnel's messages set going is not the handshake's, and outlives a client that says something and leaves.
      if (answer.kind === 'chunk') {
        socket.task?.freeOfDeadline();
        socket.task = null;
      }
      this.#send(answer, transfer);
    }, this.#forget);
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
    request.task = socket.task = this.#tasks!.begin(frame.remainingMs);
    this.#tasks!.run(request.task, () => server.emit('upgrade', request as unknown as IncomingMessage, socket, Buffer.from(body!)));
  }
}
