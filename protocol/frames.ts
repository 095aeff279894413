// The data plane: every frame that travels between the kernel and a host, as plain cloneable data. Must not know how frames are sent or handled.
import type { MessagePort } from 'node:worker_threads';
import type { PlainError } from './errors.js';
import type { EventFrameToHost, EventFrameToKernel } from './event-frames.js';
import type { Outcome } from './interceptors.js';

/** Header names and values in turn, in the order and case of the wire, as Node's `rawHeaders`. */
export type FlatHeaders = readonly string[];

/** A request begins. `id` is unique within the generation and grows by one. */
export interface RequestFrame {
  readonly kind: 'request';
  readonly id: number;
  readonly method: string;
  /** Path and query below the mount, always with a leading slash. */
  readonly url: string;
  /** Path and query as the client sent them. */
  readonly originalUrl: string;
  /** The prefix under which the plugin was reached, without a trailing slash. */
  readonly mount: string;
  readonly httpVersion: string;
  readonly headers: FlatHeaders;
  /** The whole body; null when there is none or when it follows in chunks. */
  readonly body: Uint8Array | null;
  /** True when `chunk` frames and an `end` frame follow. */
  readonly streams: boolean;
  readonly requestId: string;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly encrypted: boolean;
  /** Time until the answer must have begun, in milliseconds. */
  readonly remainingMs: number;
}

/** A request that asks to leave HTTP, for WebSocket or any other protocol: a tunnel, when somebody in the worker takes it. Its body is what came with the head, `streams` is true. */
export interface UpgradeFrame extends Omit<RequestFrame, 'kind'> { readonly kind: 'upgrade' }
/** Whether there is somebody; then bytes follow both ways, the answer's head among them. Else it is to come again as an ordinary request. */
export interface UpgradedFrame { readonly kind: 'upgraded'; readonly id: number; readonly accepted: boolean }

/** The head of an answer, with the whole body unless it streams. */
export interface ResponseFrame {
  readonly kind: 'response';
  readonly id: number;
  readonly statusCode: number;
  /** Empty for the standard text of the status. */
  readonly statusMessage: string;
  readonly headers: FlatHeaders;
  readonly body: string | Uint8Array | null;
  readonly streams: boolean;
  /** The answer shall have no `Date` of the kernel's. */
  readonly dateless: boolean;
}

/** What the client of exchange `id` may fetch while it waits for the answer, as Node's `writeEarlyHints` takes it. */
export interface HintsFrame { readonly kind: 'hints'; readonly id: number; readonly hints: Readonly<Record<string, string | string[]>> }
/** Bytes of the body of exchange `id`: of the request when sent by the kernel, of the answer when sent by the host. Of a tunnel: its bytes. */
export interface ChunkFrame { readonly kind: 'chunk'; readonly id: number; readonly data: Uint8Array }
/** The body of exchange `id` is complete, with what follows a body in chunks. */
export interface EndFrame { readonly kind: 'end'; readonly id: number; readonly trailers: FlatHeaders }
/** The receiver of the body of exchange `id` has room for so many more bytes. */
export interface CreditFrame { readonly kind: 'credit'; readonly id: number; readonly bytes: number }
/** Exchange `id` is over before its end: the client went away, the deadline passed, or the handler destroyed its answer. */
export interface CancelFrame { readonly kind: 'cancel'; readonly id: number; readonly reason: string }

/** What does the plugin's interceptor `index` say of this request of another plugin, or of the head of its answer? */
export interface InspectFrame {
  readonly kind: 'inspect';
  /** Unique within the generation and grows by one. */
  readonly id: number;
  readonly index: number;
  readonly method: string;
  readonly url: string;
  readonly headers: FlatHeaders;
  readonly requestId: string;
  readonly remoteAddress: string;
  /** Who is to answer. */
  readonly plugin: string;
  /** Null while there is no answer. */
  readonly response: { readonly statusCode: number; readonly headers: FlatHeaders } | null;
}
/** Nobody waits for the outcome of `id` any more. */
export interface InspectCancelFrame { readonly kind: 'inspect-cancel'; readonly id: number; readonly reason: string }
export interface InspectedFrame { readonly kind: 'inspected'; readonly id: number; readonly outcome: Outcome }

/** The host asks for a database connection under a number of its own choice. */
export interface LeaseOpenFrame { readonly kind: 'lease-open'; readonly lease: number }
/** The connection is lent and idle. `processId` is that of its PostgreSQL backend. */
export interface LeaseGrantedFrame { readonly kind: 'lease-granted'; readonly lease: number; readonly processId: number }
/** Bytes of the PostgreSQL protocol, in either direction. */
export interface LeaseDataFrame { readonly kind: 'lease-data'; readonly lease: number; readonly data: Uint8Array }
/** Others wait for a connection: the host gives this one back as soon as nobody there has it. */
export interface LeaseRecallFrame { readonly kind: 'lease-recall'; readonly lease: number }
export interface LeaseCreditFrame { readonly kind: 'lease-credit'; readonly lease: number; readonly bytes: number }
/** The host gives the connection back. */
export interface LeaseReturnFrame { readonly kind: 'lease-return'; readonly lease: number }
/** The lease was refused or has ended by the kernel's or the server's doing. */
export interface LeaseEndedFrame { readonly kind: 'lease-ended'; readonly lease: number; readonly error: PlainError; readonly crowded?: boolean }

/** The host wants a direct port to the provider of `service`; `ref` is its own number for the answer. */
export interface ServiceOpenFrame { readonly kind: 'service-open'; readonly ref: number; readonly service: string }
/** The consumer's end of a direct port with the methods that may be called again, or the reason why there is none. */
export type ServiceOpenedFrame =
  | { readonly kind: 'service-opened'; readonly ref: number; readonly port: MessagePort; readonly idempotent: readonly string[] }
  | { readonly kind: 'service-opened'; readonly ref: number; readonly error: PlainError };
/** The provider's end of a direct port. */
export interface ServiceAcceptFrame { readonly kind: 'service-accept'; readonly service: string; readonly port: MessagePort }

/** Lines of pino JSON, each with its line feed. */
export interface LogFrame { readonly kind: 'log'; readonly lines: string }

/** Nobody has caught this, and the worker is about to end of it: the last frame, sent because the end of a thread takes Node some milliseconds to make known. */
export interface FatalFrame { readonly kind: 'fatal'; readonly error: PlainError }

export type KernelToHostFrame =
  | RequestFrame | UpgradeFrame | ChunkFrame | EndFrame | CreditFrame | CancelFrame
  | LeaseGrantedFrame | LeaseDataFrame | LeaseCreditFrame | LeaseRecallFrame | LeaseEndedFrame
  | InspectFrame | InspectCancelFrame
  | ServiceOpenedFrame | ServiceAcceptFrame
  | EventFrameToHost;

export type HostToKernelFrame =
  | HintsFrame | ResponseFrame | UpgradedFrame | ChunkFrame | EndFrame | CreditFrame | CancelFrame
  | LeaseOpenFrame | LeaseDataFrame | LeaseCreditFrame | LeaseReturnFrame
  | InspectedFrame
  | ServiceOpenFrame
  | EventFrameToKernel
  | LogFrame | FatalFrame;
