// The clients' connections of a server that does not listen itself: takes them over from whoever accepted them, and ends them. Must not know requests.
import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/** How often connections that have become idle are looked for at the end: an answer in between costs its connection no more than this. */
const CLOSE_POLL_MS = 20;

export class Connections {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  constructor(server: Server) {
    this.#server = server;
    // Node begins to keep time and count of a server's connections when it hears this, and this server will hear it from nobody else.
    server.emit('listening');
  }

  accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    // As a server's own: a client may end its side and still wait for the answer.
    socket.allowHalfOpen = true;
    this.#server.emit('connection', socket);
    // Whoever accepted it may have paused it, to leave the first byte to this server.
    socket.resume();
  }

  /** Closes connections as their answers have left, and after `timeoutMs` all that there are. The server refuses requests already. */
  async close(timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (this.#sockets.size > 0 && performance.now() < deadline) {
      // Node takes a connection for idle when its answer was given to the system's hands, which may not have taken it yet.
      if ([...this.#sockets].every(({ writableLength }) => writableLength === 0)) this.#server.closeIdleConnections();
      await delay(CLOSE_POLL_MS);
    }
    // One that has never asked for anything counts as busy for a minute.
    for (const socket of this.#sockets) socket.destroy();
  }
}
