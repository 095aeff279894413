// How frames travel: as they are, but for the two that every request needs. Those are arrays, because to clone an object costs as much for each name in it as for its value. Must not know how frames are sent.
import type { HostToKernelFrame, KernelToHostFrame, RequestFrame, ResponseFrame } from './frames.js';

/** What a `RequestFrame` has, in a fixed order. */
type PackedRequest = readonly [
  id: number, method: string, url: string, originalUrl: string, mount: string, httpVersion: string, headers: RequestFrame['headers'], body: RequestFrame['body'],
  streams: boolean, requestId: string, remoteAddress: string, remotePort: number, encrypted: boolean, remainingMs: number,
];
/** What a `ResponseFrame` has, in a fixed order. */
type PackedResponse = readonly [id: number, statusCode: number, statusMessage: string, headers: ResponseFrame['headers'], body: ResponseFrame['body'], streams: boolean, dateless: boolean];

export type PackedForHost = Exclude<KernelToHostFrame, RequestFrame> | PackedRequest;
export type PackedForKernel = Exclude<HostToKernelFrame, ResponseFrame> | PackedResponse;

export function packForHost(frame: KernelToHostFrame): PackedForHost {
  if (frame.kind !== 'request') return frame;
  return [
    frame.id, frame.method, frame.url, frame.originalUrl, frame.mount, frame.httpVersion, frame.headers, frame.body,
    frame.streams, frame.requestId, frame.remoteAddress, frame.remotePort, frame.encrypted, frame.remainingMs,
  ];
}

export function unpackAtHost(packed: PackedForHost): KernelToHostFrame {
  if (!isArray(packed)) return packed;
  return {
    kind: 'request', id: packed[0], method: packed[1], url: packed[2], originalUrl: packed[3], mount: packed[4], httpVersion: packed[5], headers: packed[6], body: packed[7],
    streams: packed[8], requestId: packed[9], remoteAddress: packed[10], remotePort: packed[11], encrypted: packed[12], remainingMs: packed[13],
  };
}

export function packForKernel(frame: HostToKernelFrame): PackedForKernel {
  if (frame.kind !== 'response') return frame;
  return [frame.id, frame.statusCode, frame.statusMessage, frame.headers, frame.body, frame.streams, frame.dateless];
}

/** The exchange that a packed frame answers, or null when it is no answer. */
export function exchangeOf(packed: PackedForKernel): number | null {
  return isArray(packed) ? packed[0] : null;
}

/** What comes from a worker may be anything, and so may what this returns. */
export function unpackAtKernel(packed: PackedForKernel): HostToKernelFrame {
  if (!isArray(packed)) return packed;
  return { kind: 'response', id: packed[0], statusCode: packed[1], statusMessage: packed[2], headers: packed[3], body: packed[4], streams: packed[5], dateless: packed[6] };
}

const isArray: (value: unknown) => value is readonly unknown[] = Array.isArray;
