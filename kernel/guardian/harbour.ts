// The listening socket, and the connections that no kernel has taken yet: each is kept until one has. Must not know HTTP or processes.
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { HELD_CONNECTIONS_MAX, HELD_TIMEOUT_MS } from '../../protocol/guardian-limits.js';

/** Where connections go: a kernel, which says for each that it has taken it. */
export interface Berth {
  give(id: number, socket: Socket): void;
}

/** How often the time of the waiting is looked at: a wait of ten seconds may take a quarter more. */
const SWEEP_INTERVAL_MS = 250;

interface Visitor {
  readonly socket: Socket;
  /** Of `performance.now()`. */
  readonly since: number;
}

export class Harbour {
  readonly #server: Server;
  /** In order of arrival. Those that were given to the present kernel are among them until it has taken them. */
  readonly #waiting = new Map<number, Visitor>();
  readonly #turnAway: (socket: Socket) => void;
  #berth: Berth | null = null;
  #count = 0;
  #sweep: NodeJS.Timeout;

  /** `turnAway` answers a connection that no kernel gets, and closes it. */
  constructor(turnAway: (socket: Socket) => void) {
    this.#turnAway = turnAway;
    // Nothing is read on this side: the first byte is the kernel's.
    this.#server = createServer({ pauseOnConnect: true, noDelay: true }, (socket) => this.#arrive(socket));
    this.#sweep = setInterval(() => this.#expire(), SWEEP_INTERVAL_MS).unref();
  }

  /** Who gets connections now. */
  get berth(): Berth | null {
    return this.#berth;
  }

  /** Rejects when the port is taken. */
  async listen(host: string, port: number): Promise<AddressInfo> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ host, port }, () => {
        this.#server.off('error', reject);
        // A connection that could not be accepted, for want of descriptors say, is the client's loss and not the end of all.
        this.#server.on('error', () => {});
        resolve();
      });
    });
    return this.#server.address() as AddressInfo;
  }

  /** Gives all who wait, and all who come, to this kernel. */
  open(berth: Berth): void {
    this.#berth = berth;
    for (const [id, { socket }] of this.#waiting) berth.give(id, socket);
  }

  /** The kernel is gone: who comes waits for the next one, as does who was not taken. */
  hold(): void {
    this.#berth = null;
  }

  /** The kernel has the connection; this side of it goes. */
  taken(id: number): void {
    this.#waiting.get(id)?.socket.destroy();
    this.#waiting.delete(id);
  }

  /** No kernel is to be expected soon: turns away who waits and, until the next `open`, who comes. */
  shut(): void {
    this.#berth = { give: (id) => this.#dismiss(id) };
    this.open(this.#berth);
  }

  /** Accepts no more connections. */
  close(): void {
    clearInterval(this.#sweep);
    this.#server.close();
  }

  #arrive(socket: Socket): void {
    // Nobody reads from it here, so this is the end of a write to a client that has gone.
    socket.on('error', () => {});
    const id = (this.#count += 1);
    this.#waiting.set(id, { socket, since: performance.now() });
    if (this.#waiting.size > HELD_CONNECTIONS_MAX) this.#dismiss(id);
    else this.#berth?.give(id, socket);
  }

  #dismiss(id: number): void {
    const visitor = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (visitor !== undefined) this.#turnAway(visitor.socket);
  }

  #expire(): void {
    // What a kernel was given, it may be answering at this moment.
    if (this.#berth !== null) return;
    const now = performance.now();
    for (const [id, { since }] of this.#waiting) {
      if (now - since < HELD_TIMEOUT_MS) return;
      this.#dismiss(id);
    }
  }
}
