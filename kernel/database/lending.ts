// Lends the kernel's connections to one generation of a plugin and takes them back, whatever its worker does. Must not know what is asked on them.
import type { Socket } from 'node:net';
import type { Transferable } from 'node:worker_threads';
import type { PoolClient } from 'pg';
import type { Logger } from 'pino';
import { BulkheadError, type PlainError } from '../../protocol/errors.js';
import { ownedBytes, ReceiveWindow, SendWindow } from '../../protocol/flow.js';
import type {
  LeaseCreditFrame, LeaseDataFrame, LeaseEndedFrame, LeaseGrantedFrame, LeaseOpenFrame, LeaseReturnFrame,
} from '../../protocol/frames.js';
import { databaseUnavailable, processIdOf, socketOf, type Database } from './pool.js';
import { Conversation } from './wire.js';

type SendLease = (frame: LeaseGrantedFrame | LeaseDataFrame | LeaseCreditFrame | LeaseEndedFrame, transfer?: readonly Transferable[]) => void;

export interface LendingOptions {
  readonly database: Database;
  /** Name of the plugin; its connections show up as `bulkhead/<plugin>` in `pg_stat_activity`. */
  readonly plugin: string;
  /** Most leases at one time. */
  readonly quota: number;
  /** Sends a frame to the host; does nothing once the host is gone. */
  readonly send: SendLease;
  readonly log: Pick<Logger, 'warn'>;
}

export class Lending {
  readonly #options: LendingOptions;
  /** By the host's numbers: asked for or lent, and not over. */
  readonly #loans = new Map<number, Loan>();
  /** Loans that wait until a connection of an earlier one, given back or thrown away, has left its place. */
  readonly #queue = new Set<Loan>();
  /** Places that this plugin takes up in the pool, counting connections that are still being cleaned or ended. */
  #places = 0;
  #revoked = false;

  constructor(options: LendingOptions) {
    this.#options = options;
  }

  /** Leases that the host has asked for and that are not over. */
  get count(): number {
    return this.#loans.size;
  }

  /** Takes any frame of these kinds, whatever is in it; at worst the lease that it names ends. Never throws. */
  handle(frame: LeaseOpenFrame | LeaseDataFrame | LeaseCreditFrame | LeaseReturnFrame): void {
    if (this.#revoked || !Number.isSafeInteger(frame.lease)) return;
    const loan = this.#loans.get(frame.lease);
    // What a host sent before it heard that its lease is over belongs to nobody.
    if (loan === undefined) return frame.kind === 'lease-open' ? this.#open(frame.lease) : undefined;
    switch (frame.kind) {
      case 'lease-open': return loan.blame('it opened the same lease twice');
      case 'lease-data': return loan.write(frame.data);
      case 'lease-credit': return loan.credit(frame.bytes);
      case 'lease-return': return loan.end(null);
    }
  }

  /**
   * The generation is dead: ends every lent connection and cancels what runs on it, so that PostgreSQL rolls back and lets go
   * of locks. Resolves when the server has, within a second. Connections that are still being opened go to the pool. Never rejects.
   */
  async revokeAll(): Promise<void> {
    this.#revoked = true;
    const lent = [...this.#loans.values()].filter((loan) => loan.lent);
    for (const loan of [...this.#loans.values()]) loan.revoke();
    await Promise.all(lent.map((loan) => loan.settled));
  }

  #open(lease: number): void {
    const { quota, send, log } = this.#options;
    const loan = new Loan(lease, send, log, () => {
      this.#queue.delete(loan);
      if (this.#loans.get(lease) === loan) this.#loans.delete(lease);
    });
    if (this.#loans.size >= quota) return loan.end(new BulkheadError('DATABASE_UNAVAILABLE', { reason: `the plugin has all of its ${quota} connections open already` }));
    this.#loans.set(lease, loan);
    if (this.#places < quota) loan.settled = this.#serve(loan);
    else this.#queue.add(loan);
  }

  /** One loan from the pool and back to it. */
  async #serve(loan: Loan): Promise<void> {
    const { database, plugin } = this.#options;
    this.#places += 1;
    let client: PoolClient | null = null;
    try {
      client = await database.connect();
      // One round trip per loan, not per query. It also finds out here, and not in the plugin, whether the connection is still alive.
      if (!loan.over) await client.query(`SET application_name TO ${client.escapeLiteral(`bulkhead/${plugin}`)}`);
      await loan.use(client);
      if (loan.clean) {
        await client.query('DISCARD ALL');
        client.release();
      } else {
        await database.discard(client);
      }
    } catch (error) {
      // There was no connection, or it died under one of the kernel's own two statements.
      client?.release(true);
      loan.end(databaseUnavailable(error));
    } finally {
      this.#places -= 1;
      const [next] = this.#queue;
      if (next !== undefined) {
        this.#queue.delete(next);
        next.settled = this.#serve(next);
      }
    }
  }
}

/** One lease: the bytes between a PostgreSQL socket and a host that may send anything. */
class Loan {
  /** Resolves when its place in the pool is free; never rejects. */
  settled: Promise<void> = Promise.resolve();
  readonly #lease: number;
  readonly #send: SendLease;
  readonly #log: Pick<Logger, 'warn'>;
  readonly #onOver: () => void;
  readonly #talk = new Conversation();
  /** What the host may still send, as the host sees it. */
  readonly #allowance = new SendWindow();
  readonly #drained = new ReceiveWindow();
  readonly #window = new SendWindow();
  /** Bytes handed to the socket since it last had nothing to do. */
  #draining = 0;
  #socket: Socket | null = null;
  #pgListeners: ((chunk: Buffer) => void)[] = [];
  #finish: () => void = () => {};
  #over = false;
  #revoked = false;

  constructor(lease: number, send: SendLease, log: Pick<Logger, 'warn'>, onOver: () => void) {
    this.#lease = lease;
    this.#send = send;
    this.#log = log;
    this.#onOver = onOver;
  }

  get over(): boolean {
    return this.#over;
  }

  get lent(): boolean {
    return this.#socket !== null;
  }

  /** Whether the next borrower cannot be harmed by what this one left unfinished. */
  get clean(): boolean {
    return this.#socket === null || (!this.#revoked && this.#talk.atRest);
  }

  /** Relays until the loan is over, from either side. */
  async use(client: PoolClient): Promise<void> {
    if (this.#over) return;
    const finished = new Promise<void>((resolve) => (this.#finish = resolve));
    const socket = (this.#socket = socketOf(client));
    this.#pgListeners = socket.listeners('data') as ((chunk: Buffer) => void)[];
    socket.removeAllListeners('data');
    socket.on('data', this.#onData).on('drain', this.#onDrain).on('close', this.#onClose);
    this.#send({ kind: 'lease-granted', lease: this.#lease, processId: processIdOf(client) });
    await finished;
  }

  /** The host's bytes for the server. */
  write(data: unknown): void {
    const socket = this.#socket;
    if (socket === null) return;
    // Shared memory could change after it was read here.
    if (!(data instanceof Uint8Array) || !(data.buffer instanceof ArrayBuffer)) return this.blame('it sent something else than bytes');
    if (!this.#allowance.open) return this.blame('it sent more bytes than it had credit for');
    this.#allowance.take(data.byteLength);
    const bytes = this.#talk.ask(data);
    if (this.#talk.garbled) return this.blame('it sent bytes that are not PostgreSQL\'s protocol');
    this.#draining += bytes;
    if (bytes === 0 || socket.write(bytes < data.byteLength ? data.subarray(0, bytes) : data)) this.#onDrain();
    // The host's client says goodbye: to the kernel, which keeps the connection.
    if (bytes < data.byteLength) this.end(null);
  }

  /** The host has room for more of the server's bytes. */
  credit(bytes: number): void {
    if (this.#socket === null) return;
    try {
      this.#window.grant(bytes);
    } catch (error) {
      this.blame((error as Error).message);
    }
  }

  blame(what: string): void {
    this.#log.warn({ lease: this.#lease }, `a database connection was taken away from the plugin: ${what}`);
    this.revoke();
    this.#tell(new BulkheadError('DATABASE_UNAVAILABLE', { reason: `the plugin lost the connection because ${what}` }));
  }

  /** Ends the loan without trust in what was said on it. */
  revoke(): void {
    this.#revoked = true;
    this.end(null);
  }

  /** Stops the relay at once; the host hears of an error, as long as it has not ended the lease itself. */
  end(error: BulkheadError | null): void {
    if (this.#over) return;
    this.#over = true;
    this.#onOver();
    const socket = this.#socket;
    if (socket !== null) {
      socket.off('data', this.#onData).off('drain', this.#onDrain).off('close', this.#onClose);
      if (this.clean) for (const listener of this.#pgListeners) socket.on('data', listener);
      socket.resume();
    }
    if (error !== null) this.#tell(error);
    this.#finish();
  }

  #tell({ name, message, code, statusCode }: BulkheadError): void {
    const error: PlainError = { name, message, code, statusCode };
    this.#send({ kind: 'lease-ended', lease: this.#lease, error });
  }

  readonly #onData = (chunk: Buffer): void => {
    const { byteLength } = chunk;
    this.#talk.answer(chunk);
    const data = chunk.buffer.byteLength === byteLength ? (chunk as Uint8Array<ArrayBuffer>) : ownedBytes(chunk);
    this.#send({ kind: 'lease-data', lease: this.#lease, data }, [data.buffer]);
    if (this.#window.take(byteLength)) return;
    this.#socket?.pause();
    this.#window.whenOpen(() => this.#socket?.resume());
  };

  readonly #onDrain = (): void => {
    const credit = this.#drained.consume(this.#draining);
    this.#draining = 0;
    if (credit === 0) return;
    this.#allowance.grant(credit);
    this.#send({ kind: 'lease-credit', lease: this.#lease, bytes: credit });
  };

  readonly #onClose = (): void => this.end(databaseUnavailable(new Error('the server closed the connection')));
}
