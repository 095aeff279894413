// Requests that ask to leave HTTP: into a tunnel to the plugin that has their path, or back among the ordinary ones. Must not know what plugins answer.
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { isKernelPath } from '../../protocol/plugin.js';
import { Tunnel } from '../dispatch/tunnel.js';
import { inspect } from '../intercept/inspection.js';
import type { Supervisor } from '../plugins/supervisor.js';
import type { Arrivals } from './arrivals.js';
import { destinationOf, pathOf, targetOf } from './gateway.js';
import type { IdOfRequest } from './request-id.js';

/** Of the names and values of a request Node may forget some when there are more. */
const RAW_HEADERS_WHOLE_MAX = 2_000;

/** A client's connection that ends says so with 'close' as well. */
const ignore = (): void => {};

export class Upgrades {
  readonly #supervisor: Supervisor;
  readonly #arrivals: Arrivals;
  readonly #idOf: IdOfRequest;
  readonly #closing: () => boolean;
  #server!: Server;
  /** True while Node reads a request again that is to be an ordinary one. */
  #ignoring = false;

  constructor(supervisor: Supervisor, arrivals: Arrivals, idOf: IdOfRequest, closing: () => boolean) {
    this.#supervisor = supervisor;
    this.#arrivals = arrivals;
    this.#idOf = idOf;
    this.#closing = closing;
  }

  /** From now on the server's requests with this wish come here. */
  attach(server: Server): void {
    this.#server = server.on('upgrade', this.#take);
  }

  /** Whether a plugin is asked about it. Not with a body: clients that would like HTTP/2 say so in any request, and want it answered. HTTP/1.0 has no such wish (RFC 9110, 7.8). */
  wanted(req: IncomingMessage): boolean {
    if (this.#ignoring || this.#closing()) return false;
    const { 'content-length': length = '0', 'transfer-encoding': encoding } = req.headers;
    if (req.httpVersion === '1.0' || encoding !== undefined || Number(length) > 0) return false;
    const path = pathOf(req);
    return this.#supervisor.mounts.resolve(path) !== undefined || (!this.#supervisor.booted && !isKernelPath(path));
  }

  /** Node's server has let go of the connection. */
  readonly #take = async (req: IncomingMessage, socket: Socket, head: Buffer): Promise<void> => {
    socket.on('error', ignore);
    await freed(socket);
    if (!this.wanted(req)) return this.#putBack(req, socket, head);
    const path = pathOf(req);
    const mounted = this.#arrivals.now(path) ?? (await this.#arrivals.of(path));
    if (socket.destroyed) return;
    if (mounted === undefined) return this.#putBack(req, socket, head);
    const tunnel = new Tunnel(req, socket, head, this.#idOf(req), targetOf(mounted, req), () => this.#putBack(req, socket, head));
    const passage = this.#supervisor.interceptors.of(destinationOf(mounted, req));
    const passes = passage === null || (await inspect(tunnel, passage, mounted.owner.record.limits.timeoutMs));
    if (passes && !tunnel.over) mounted.owner.gate.admit(tunnel);
  };

  /**
   * Gives the connection back to the server, to read the request once more and to ignore its wish, as a server may (RFC 9110, 7.8). Before
   * Node 22.21 and 24.9 a server that listens for such requests hands over all of them, and without their bodies.
   */
  #putBack({ method, url, httpVersion, rawHeaders }: IncomingMessage, socket: Socket, head: Buffer): void {
    if (rawHeaders.length >= RAW_HEADERS_WHOLE_MAX) {
      // One that is missing may have told of a body, which would be taken for the next request.
      socket.end('HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n\r\n', () => socket.destroy());
      return;
    }
    const lines = [`${method} ${url} HTTP/${httpVersion}`];
    for (let i = 0; i + 1 < rawHeaders.length; i += 2) lines.push(`${rawHeaders[i]}:${rawHeaders[i + 1]}`);
    // Not before its first parser has let go of it.
    setImmediate(() => {
      socket.off('error', ignore);
      // A client that has ended its side hears no more from Node's server in any case.
      if (socket.readableEnded) socket.destroy();
      if (!socket.destroyed) this.#readAgain(socket, Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), head]));
    });
  }

  /** All in one turn, in which nothing else is read: the server has no ears for wishes meanwhile. */
  #readAgain(socket: Socket, bytes: Buffer): void {
    this.#ignoring = true;
    this.#server.off('upgrade', this.#take);
    try {
      this.#server.emit('connection', socket);
      socket.emit('data', bytes);
    } finally {
      this.#server.on('upgrade', this.#take);
      this.#ignoring = false;
    }
  }
}

/** Resolves when nothing is left to be answered of what the client has asked for before, on the same connection and without waiting. */
async function freed(socket: Socket & { _httpMessage?: ServerResponse | null }): Promise<void> {
  // So Node calls the answer whose turn it is; the next one has its turn when this is told of its end.
  for (let present = socket._httpMessage; present != null; present = socket._httpMessage) await new Promise((resolve) => present!.once('close', resolve));
}
