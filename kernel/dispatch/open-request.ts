// What the kernel asks of every open request, one that is answered and one that becomes a tunnel, and how a host is told of either. Must not know what becomes of them.
import type { IncomingMessage } from 'node:http';
import type { TLSSocket } from 'node:tls';
import type { BulkheadError } from '../../protocol/errors.js';
import type { ChunkFrame, EndFrame, FlatHeaders, HintsFrame, KernelToHostFrame, RequestFrame, ResponseFrame } from '../../protocol/frames.js';

export type SendFrame = (frame: KernelToHostFrame, transfer?: readonly ArrayBuffer[]) => void;

/** Where a request goes: what the gateway found out about its path. */
export interface Target {
  readonly plugin: string;
  readonly mount: string;
  /** Path and query below the mount. */
  readonly url: string;
  readonly bodyLimitBytes: number;
}

export interface OpenRequest {
  readonly requestId: string;
  readonly method: string;
  readonly originalUrl: string;
  /** The number under which a host has it, or 0 while it waits. */
  readonly id: number;
  readonly over: boolean;
  /** Whether anything of its answer has left. */
  readonly answering: boolean;
  /** Whether it can be sent to another generation as if nothing had been. */
  readonly repeatable: boolean;
  /** Whether to do it twice is to do it once. */
  readonly idempotent: boolean;
  /** Whether it is open for as long as both sides like: that it was open when a generation died says nothing about the cause. */
  readonly lasting: boolean;
  /** In milliseconds of `performance.now()`; 0 until it is admitted. */
  deadline: number;
  /** Generations that have died with this request begun. */
  interruptions: number;
  /** Those of them in which it was the last one begun. */
  kills: number;
  /** Called once, when nothing more is to be done for it. */
  onOver: ((request: OpenRequest) => void) | null;

  /** Sends it to a host under this number. */
  begin(id: number, send: SendFrame): void;
  /** The host that had it is gone. */
  suspend(): void;
  /** The host takes it as a tunnel, or has nobody for that. */
  upgraded(accepted: boolean): void;
  hint(frame: HintsFrame): void;
  respond(frame: ResponseFrame): void;
  /** Returns whether the bytes are on their way to the client, and will be given back when they have left. */
  receive(frame: ChunkFrame): boolean;
  complete(frame: EndFrame): void;
  credit(bytes: number): void;
  /** The host gives it up. */
  giveUp(reason: string): void;
  /** Answers with an error instead of the host's answer, and tells the host that nobody waits any more. */
  fail(error: BulkheadError): void;
}

/** RFC 9110, 9.2.2. */
const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'TRACE']);

export function isIdempotent(method: string): boolean {
  return IDEMPOTENT.has(method);
}

/** A request as its host is told of it; `deadline` as `performance.now()` counts. */
export function requestFrame(id: number, req: IncomingMessage, requestId: string, deadline: number, { url, mount }: Target, headers: FlatHeaders, body: Uint8Array | null, streams: boolean): RequestFrame {
  const { socket } = req;
  return {
    kind: 'request',
    id,
    method: req.method ?? 'GET',
    url,
    originalUrl: req.url ?? '/',
    mount,
    httpVersion: req.httpVersion,
    headers,
    body,
    streams,
    requestId,
    remoteAddress: socket.remoteAddress ?? '',
    remotePort: socket.remotePort ?? 0,
    encrypted: (socket as TLSSocket).encrypted ?? false,
    remainingMs: deadline - performance.now(),
  };
}
