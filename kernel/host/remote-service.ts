// The consumer's end of one service: its calls on a direct port, and on the next one when the provider has died or left. Must not know which plugin is at the other end.
import type { MessagePort } from 'node:worker_threads';
import { Channel } from '../../protocol/channel.js';
import type { CallFrame, ConsumerFrame, ProviderFrame } from '../../protocol/call-frames.js';
import { BulkheadError, toPlainError } from '../../protocol/errors.js';
import { SERVICE_CALLS_MAX_PENDING, SERVICE_CALL_ATTEMPTS_MAX, SERVICE_CALL_TIMEOUT_MS, SERVICE_STREAM_IDLE_TIMEOUT_MS, SERVICE_SWEEP_INTERVAL_MS } from '../../protocol/service-limits.js';
import { movedWith } from '../../protocol/marks.js';
import { revive } from './revive.js';
import type { Tasks } from './task.js';
import { IncomingStream } from './value-streams.js';

/** A direct port, and the methods that may be called again on the next one. */
export interface Opened {
  readonly port: MessagePort;
  readonly idempotent: readonly string[];
}

interface PendingCall {
  readonly frame: Omit<CallFrame, 'remainingMs'>;
  readonly moved: readonly ArrayBuffer[];
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
  /** When it is given up here, as `performance.now()` counts. */
  deadline: number;
  /** When whoever has made it is given up himself, and this with him. */
  readonly wanted: number;
  /** Takes it away from the task that has made it, and from the signals that it was given. */
  leave: (() => void) | undefined;
  /** Where it has been sent to. */
  line: Line | null;
  /** Providers that have died with it. */
  attempts: number;
  /** Set when its result is a stream that has begun. */
  stream: IncomingStream | null;
}

/** A port that is open. */
interface Line {
  readonly channel: Channel<ConsumerFrame, ProviderFrame>;
  readonly idempotent: ReadonlySet<string>;
  /** Whether the provider has it; before that no call can have begun. */
  accepted: boolean;
  /** Calls on it that wait for their result. */
  calls: number;
  /** Whether the provider takes no more. */
  leaving: boolean;
}

/** A stream can be iterated at once, without awaiting the call. */
export class ServiceCall extends Promise<unknown> {
  static of(result: Promise<unknown>): ServiceCall {
    return new ServiceCall((resolve) => resolve(result));
  }

  static override get [Symbol.species](): PromiseConstructor {
    return Promise;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator {
    yield* (await this) as AsyncIterable<unknown>;
  }
}

export class RemoteService {
  readonly #name: string;
  readonly #open: (service: string) => Promise<Opened>;
  readonly #tasks: Tasks;
  readonly #pending = new Map<number, PendingCall>();
  /** For calls that are made now. */
  #line: Promise<Line> | Line | null = null;
  #lastId = 0;
  #sweep: NodeJS.Timeout | null = null;

  constructor(name: string, open: (service: string) => Promise<Opened>, tasks: Tasks) {
    this.#name = name;
    this.#open = open;
    this.#tasks = tasks;
  }

  /** Calls that wait for their result. */
  get pending(): number {
    return this.#pending.size;
  }

  call(method: string, given: readonly unknown[]): Promise<unknown> {
    if (this.#pending.size >= SERVICE_CALLS_MAX_PENDING) return ServiceCall.of(Promise.reject(this.#unavailable(`${SERVICE_CALLS_MAX_PENDING} calls are pending`)));
    return new ServiceCall((resolve, reject) => {
      const id = ++this.#lastId;
      const task = this.#tasks.current;
      const { args, signals, signal } = withoutSignals(given);
      const moved = args.flatMap(movedWith);
      const deadline = performance.now() + SERVICE_CALL_TIMEOUT_MS;
      const call: PendingCall = { frame: { kind: 'call', id, method, args, signals }, moved, resolve, reject, deadline, wanted: task?.deadline ?? Infinity, leave: undefined, line: null, attempts: 0, stream: null };
      if (signal?.aborted === true) return reject(signal.reason as Error);
      this.#pending.set(id, call);
      const giveUp = (error: Error): void => this.#giveUp(id, error);
      const forget = task?.onCancel(giveUp);
      if (signal === null) call.leave = forget;
      else {
        const onAbort = (): void => giveUp(signal.reason as Error);
        signal.addEventListener('abort', onAbort, { once: true });
        call.leave = () => [forget?.(), signal.removeEventListener('abort', onAbort)];
      }
      this.#sweep ??= setInterval(() => this.#sweepDeadlines(), SERVICE_SWEEP_INTERVAL_MS).unref();
      this.#dispatch(call);
    });
  }

  #dispatch(call: PendingCall): void {
    this.#line ??= this.#connect();
    if (!(this.#line instanceof Promise)) return this.#send(call, this.#line);
    this.#line.then((line) => this.#send(call, line), (error: Error) => this.#settle(call.frame.id)?.reject(error));
  }

  #send(call: PendingCall, line: Line): void {
    const { id } = call.frame;
    if (this.#pending.get(id) !== call) return; // given up already
    // It closed while this call was on its way here.
    if (line.channel.closed) {
      if (this.#line === line) this.#line = null;
      return this.#dispatch(call);
    }
    call.line = line;
    line.calls += 1;
    line.channel.send({ ...call.frame, remainingMs: Math.min(call.deadline, call.wanted) - performance.now() }, call.moved.length > 0 ? call.moved : undefined);
  }

  async #connect(): Promise<Line> {
    try {
      const { port, idempotent } = await this.#open(this.#name);
      const line: Line = {
        idempotent: new Set(idempotent),
        accepted: false,
        calls: 0,
        leaving: false,
        channel: new Channel<ConsumerFrame, ProviderFrame>(port, {
          onFrame: (frame) => this.#receive(frame, line),
          onUnsendable: (frame, error) => this.#settle(frame.id)?.reject(error),
          onClose: () => this.#onClose(line),
        }),
      };
      this.#line = line;
      return line;
    } catch (error) {
      this.#line = null;
      throw error;
    }
  }

  #receive(frame: ProviderFrame, line: Line): void {
    if (frame.kind === 'accepted') {
      line.accepted = true;
      return;
    }
    // What is made from now on is for the next generation; what has begun ends here.
    if (frame.kind === 'leaving') {
      if (this.#line === line) this.#line = null;
      line.leaving = true;
      return endUnused(line);
    }
    const call = this.#pending.get(frame.id);
    if (call?.line !== line) return;
    switch (frame.kind) {
      case 'result':
        call.stream?.end(null);
        return this.#settle(frame.id)!.resolve(frame.value);
      case 'stream': return this.#begin(call);
      case 'value': return call.stream?.push(frame.value);
      case 'end':
        this.#settle(frame.id);
        return call.stream?.end(null);
      case 'error': return this.#fail(this.#settle(frame.id)!, revive(toPlainError(frame.error)));
    }
  }

  #begin(call: PendingCall): void {
    const { id } = call.frame;
    call.stream = new IncomingStream({
      credit: (values) => void call.line?.channel.send({ kind: 'credit', id, values }),
      close: () => this.#giveUp(id, new Error('nobody reads it any more')),
      onWait: (waits) => { call.deadline = performance.now() + (waits ? SERVICE_CALL_TIMEOUT_MS : SERVICE_STREAM_IDLE_TIMEOUT_MS); },
    });
    call.deadline = performance.now() + SERVICE_STREAM_IDLE_TIMEOUT_MS;
    call.resolve(call.stream);
  }

  /** The provider is gone. What may be done twice, and what has never begun, is done by the next. */
  #onClose(line: Line): void {
    if (this.#line === line) this.#line = null;
    for (const call of [...this.#pending.values()]) {
      if (call.line !== line) continue;
      const { id, method } = call.frame;
      if (line.accepted) call.attempts += 1;
      const again = call.moved.length === 0 && (!line.accepted || (line.idempotent.has(method) && call.stream === null && call.attempts < SERVICE_CALL_ATTEMPTS_MAX));
      call.line = null;
      if (again) this.#dispatch(call);
      else this.#fail(this.#settle(id)!, this.#unavailable('its plugin went away during the call'));
    }
  }

  /** Nobody waits for the outcome any more; the provider hears of it. */
  #giveUp(id: number, error: Error): void {
    const call = this.#settle(id);
    if (call === undefined) return;
    this.#fail(call, error);
    call.line?.channel.send({ kind: 'cancel', id });
  }

  #fail(call: PendingCall, error: Error): void {
    if (call.stream === null) call.reject(error);
    else call.stream.end(error);
  }

  #settle(id: number): PendingCall | undefined {
    const call = this.#pending.get(id);
    if (call === undefined) return undefined;
    call.leave?.();
    this.#pending.delete(id);
    const { line } = call;
    if (line !== null) {
      line.calls -= 1;
      // Who gives the call up has a word for the provider first.
      if (line.leaving) queueMicrotask(() => endUnused(line));
    }
    return call;
  }

  #sweepDeadlines(): void {
    if (this.#pending.size === 0) {
      clearInterval(this.#sweep!);
      this.#sweep = null;
      return;
    }
    const now = performance.now();
    for (const [id, { deadline }] of this.#pending) {
      if (deadline <= now) this.#giveUp(id, this.#unavailable(`it did not answer within ${SERVICE_CALL_TIMEOUT_MS} ms`));
    }
  }

  #unavailable(reason: string): Error {
    return new BulkheadError('SERVICE_UNAVAILABLE', { service: this.#name, reason });
  }
}

/** So a provider that leaves knows that nothing is on its way any more. */
function endUnused({ leaving, calls, channel }: Line): void {
  if (leaving && calls === 0) channel.close();
}

/** An AbortSignal cannot cross: the provider gets the call's own in its place, and the call ends with it. */
function withoutSignals(given: readonly unknown[]): { readonly args: readonly unknown[]; readonly signals: readonly number[] | null; readonly signal: AbortSignal | null } {
  if (!given.some(isSignal)) return { args: given, signals: null, signal: null };
  const signals = given.flatMap((arg, place) => (isSignal(arg) ? [place] : []));
  return { args: given.map((arg) => (isSignal(arg) ? null : arg)), signals, signal: signals.length === 1 ? (given[signals[0]!] as AbortSignal) : AbortSignal.any(given.filter(isSignal)) };
}

const isSignal = (value: unknown): value is AbortSignal => value instanceof AbortSignal;
