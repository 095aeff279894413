// Reads the framing of PostgreSQL's protocol as bytes pass by, to know when a connection is at rest. Must not know sockets, leases or what messages say.

/** Longest message, in bytes after its type: PostgreSQL refuses more (PQ_LARGE_MESSAGE_LIMIT), so a longer one is garbage. */
const MESSAGE_MAX_BYTES = 0x4000_0000;
/** One byte of type, four of length; the length counts itself. */
const HEADER_BYTES = 5;
const LENGTH_BYTES = 4;

const code = (type: string): number => type.charCodeAt(0);
const TERMINATE = code('X');
const READY_FOR_QUERY = code('Z');
const IDLE = code('I');
/** Query, Sync, FunctionCall: each is answered by exactly one ReadyForQuery, whatever fails in between. */
const QUESTIONS: ReadonlySet<number> = new Set([code('Q'), code('S'), code('F')]);
/** CopyData, CopyDone, CopyFail: part of a question asked before; the server drops them when there is none. */
const COPY_MESSAGES: ReadonlySet<number> = new Set([code('d'), code('c'), code('f')]);

/** Whether a question is being worked on, or else whether a transaction is open. */
export type Phase = 'work' | 'transaction' | 'rest';

/** Called once per message, when its header is there; for ReadyForQuery with its status, else with 0. */
export type OnMessage = (type: number, status: number) => void;

/** Follows one direction of a connection through chunks of any size, hopping from header to header. */
export class MessageScanner {
  readonly #onMessage: OnMessage;
  #type = 0;
  #length = 0;
  #headerBytes = 0;
  #bodyBytesLeft = 0;
  #broken = false;

  constructor(onMessage: OnMessage) {
    this.#onMessage = onMessage;
  }

  /** Whether the bytes so far cannot be PostgreSQL's protocol; nothing is read after that. */
  get broken(): boolean {
    return this.#broken;
  }

  /** Whether the bytes so far are whole messages. */
  get atBoundary(): boolean {
    return this.#headerBytes === 0 && this.#bodyBytesLeft === 0 && !this.#broken;
  }

  /** Reads a chunk up to its end, up to a Terminate message, or until broken. Returns how many bytes that were. */
  scan(chunk: Uint8Array): number {
    let at = 0;
    while (at < chunk.length && !this.#broken) {
      if (this.#bodyBytesLeft > 0) {
        if (this.#type === READY_FOR_QUERY) this.#onMessage(READY_FOR_QUERY, chunk[at]!);
        const hop = Math.min(this.#bodyBytesLeft, chunk.length - at);
        this.#bodyBytesLeft -= hop;
        at += hop;
        continue;
      }
      const byte = chunk[at]!;
      if (this.#headerBytes === 0) {
        if (byte === TERMINATE) return at;
        this.#type = byte;
        this.#length = 0;
      } else {
        this.#length = this.#length * 256 + byte;
      }
      at += 1;
      this.#headerBytes += 1;
      if (this.#headerBytes === HEADER_BYTES) this.#beginBody();
    }
    return at;
  }

  #beginBody(): void {
    const isReady = this.#type === READY_FOR_QUERY;
    this.#headerBytes = 0;
    this.#bodyBytesLeft = this.#length - LENGTH_BYTES;
    this.#broken = this.#bodyBytesLeft < 0 || this.#length > MESSAGE_MAX_BYTES || (isReady && this.#bodyBytesLeft !== 1);
    if (!this.#broken && !isReady) this.#onMessage(this.#type, 0);
  }
}

/**
 * Both directions of one authenticated connection. It errs on the safe side only: a Sync that the server ignores, because it
 * came in the middle of a COPY or of a failed batch, stays unanswered, and the connection counts as busy for ever.
 */
export class Conversation {
  #unanswered = 0;
  #answered = 0;
  /** False while a batch of the extended protocol lacks its Sync: the server may be inside an implicit transaction. */
  #synced = true;
  #status = IDLE;
  #surprised = false;

  readonly #questions = new MessageScanner((type) => {
    if (QUESTIONS.has(type)) {
      this.#unanswered += 1;
      this.#synced = true;
    } else if (!COPY_MESSAGES.has(type)) {
      this.#synced = false;
    }
  });

  readonly #answers = new MessageScanner((type, status) => {
    if (type !== READY_FOR_QUERY) return;
    this.#status = status;
    this.#answered += 1;
    if (this.#unanswered === 0) this.#surprised = true;
    else this.#unanswered -= 1;
  });

  /** Follows bytes for the server. Returns how many of them come before a Terminate message. */
  ask(chunk: Uint8Array): number {
    return this.#questions.scan(chunk);
  }

  /** Follows bytes from the server. Returns whether they answer a question to its end. */
  answer(chunk: Uint8Array): boolean {
    const before = this.#answered;
    this.#answers.scan(chunk);
    return this.#answered !== before;
  }

  get phase(): Phase {
    if (this.#unanswered > 0 || !this.#synced || !this.#questions.atBoundary) return 'work';
    return this.#status === IDLE ? 'rest' : 'transaction';
  }

  /** Whether what was asked is not PostgreSQL's protocol. */
  get garbled(): boolean {
    return this.#questions.broken;
  }

  /** Whether all is said: whole messages in both directions, every question answered, and no transaction open. */
  get atRest(): boolean {
    return this.#unanswered === 0 && this.#synced && this.#status === IDLE && !this.#surprised
      && this.#questions.atBoundary && this.#answers.atBoundary;
  }
}
