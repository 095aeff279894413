// One lease: the bytes between a PostgreSQL socket and a host that may send anything, for as long as the plugin's limits allow. Must not know the pool or other leases.
import type { Socket } from 'node:net';
import type { Transferable } from 'node:worker_threads';
import type { PoolClient } from 'pg';
import type { Logger } from 'pino';
import { LOAN_RECALLED_REST_MS } from '../../protocol/database-limits.js';
import { BulkheadError, type PlainError } from '../../protocol/errors.js';
import { movedBytes, ReceiveWindow, SendWindow } from '../../protocol/flow.js';
import type { LeaseCreditFrame, LeaseDataFrame, LeaseEndedFrame, LeaseGrantedFrame, LeaseRecallFrame } from '../../protocol/frames.js';
import { processIdOf, socketOf } from './hang-up.js';
import { LoanClock, type LoanLimits } from './loan-clock.js';
import { databaseUnavailable } from './pool.js';
import { Conversation } from './wire.js';

export type SendLease = (frame: LeaseGrantedFrame | LeaseDataFrame | LeaseCreditFrame | LeaseRecallFrame | LeaseEndedFrame, transfer?: readonly Transferable[]) => void;

export interface LoanOptions {
  /** The host's number for it. */
  readonly lease: number;
  readonly limits: LoanLimits;
  /** Sends a frame to the host; does nothing once the host is gone. */
  readonly send: SendLease;
  readonly log: Pick<Logger, 'warn'>;
  readonly onOver: () => void;
}

export class Loan {
  /** Resolves when its place in the pool is free; never rejects. */
  settled: Promise<void> = Promise.resolve();
  readonly #lease: number;
  readonly #send: SendLease;
  readonly #log: Pick<Logger, 'warn'>;
  readonly #onOver: () => void;
  readonly #talk = new Conversation();
  readonly #clock: LoanClock;
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
  #recalled = false;

  constructor({ lease, limits, send, log, onOver }: LoanOptions) {
    this.#lease = lease;
    this.#clock = new LoanClock(limits);
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

  /** Lent, and nobody has asked for it back. */
  get held(): boolean {
    return this.lent && !this.#recalled;
  }

  /** Whether a statement may be running on it. */
  get busy(): boolean {
    return this.#talk.phase === 'work';
  }

  /** Since when nothing has been said on it, in milliseconds of the clock; infinite while something is. */
  get restingSince(): number {
    return this.#clock.restingSince;
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
    this.#clock.begin();
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
    this.#clock.note(this.#talk.phase);
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

  /** Asks the host for the connection as soon as nobody in the plugin has it. */
  recall(): void {
    if (this.#recalled || !this.lent || this.#over) return;
    this.#recalled = true;
    this.#send({ kind: 'lease-recall', lease: this.#lease });
  }

  /** Takes the connection away when what is said on it takes too long, and asks for it back when it was lent for long enough. `wanted` is whether somebody waits for one. */
  look(wanted: boolean): void {
    if (!this.lent || this.#over) return;
    const overdue = this.#clock.overdue();
    if (overdue !== null) return this.blame(overdue);
    if (this.#clock.old) this.recall();
    // At rest it is as good for the next one as if it had been given back.
    if (this.#recalled && wanted && this.#clock.restedFor > LOAN_RECALLED_REST_MS) this.end(new BulkheadError('DATABASE_BUSY', { reason: 'another plugin waited for this connection, and nothing was asked on it' }));
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
  end(error: BulkheadError | null, crowded = false): void {
    if (this.#over) return;
    this.#over = true;
    this.#onOver();
    const socket = this.#socket;
    if (socket !== null) {
      socket.off('data', this.#onData).off('drain', this.#onDrain).off('close', this.#onClose);
      if (this.clean) for (const listener of this.#pgListeners) socket.on('data', listener);
      socket.resume();
    }
    if (error !== null) this.#tell(error, crowded);
    this.#finish();
  }

  #tell({ name, message, code, statusCode }: BulkheadError, crowded = false): void {
    const error: PlainError = { name, message, code, statusCode };
    this.#send({ kind: 'lease-ended', lease: this.#lease, error, crowded });
  }

  readonly #onData = (chunk: Buffer): void => {
    const { byteLength } = chunk;
    const answered = this.#talk.answer(chunk);
    this.#clock.note(this.#talk.phase, answered);
    const data = movedBytes(chunk);
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
