// How the kernel itself answers, with an error or what an interceptor says, on a raw response. Must not know why.
import { STATUS_CODES, type ServerResponse } from 'node:http';
import { REQUEST_ID_HEADER, type BulkheadError, type ErrorBody } from '../../protocol/errors.js';
import type { FlatHeaders } from '../../protocol/frames.js';
import { edited, type HeaderEdit, type Outcome } from '../../protocol/interceptors.js';

export type InterceptorsAnswer = Extract<Outcome, { kind: 'answer' }>;

export function errorBody(error: { readonly statusCode: number; readonly code: string; readonly message: string }, requestId: string): ErrorBody {
  return { statusCode: error.statusCode, code: error.code, error: STATUS_CODES[error.statusCode] ?? 'Error', message: error.message, requestId };
}

/** Answers with the error, or cuts the connection when an answer has begun: the client must not take half of one for the whole. */
export function answerError(res: ServerResponse, error: BulkheadError, requestId: string, marks: readonly HeaderEdit[] = []): void {
  if (res.writableEnded || res.destroyed) return;
  if (res.headersSent) {
    res.destroy();
    return;
  }
  const retry = error.retryAfterSeconds === undefined ? [] : ['retry-after', String(error.retryAfterSeconds)];
  const headers = ['content-type', 'application/json; charset=utf-8', ...retry];
  end(res, error.statusCode, headers, JSON.stringify(errorBody(error, requestId)), requestId, marks);
}

/** Answers in a plugin's place, when no answer has begun. */
export function answerInstead(res: ServerResponse, { statusCode, headers, body }: InterceptorsAnswer, requestId: string, marks: readonly HeaderEdit[] = []): void {
  end(res, statusCode, headers, body, requestId, marks);
}

function end(res: ServerResponse, statusCode: number, own: FlatHeaders, body: string | Uint8Array, requestId: string, marks: readonly HeaderEdit[]): void {
  // What a refused answer of a plugin has left behind would make this one fail as well.
  for (const name of res.getHeaderNames()) if (name !== 'connection') res.removeHeader(name);
  res.statusCode = statusCode;
  res.statusMessage = STATUS_CODES[statusCode] ?? '';
  const headers = marks.reduce<FlatHeaders>(edited, own);
  for (let i = 0; i < headers.length; i += 2) res.appendHeader(headers[i]!, headers[i + 1]!);
  res.setHeader(REQUEST_ID_HEADER, requestId);
  if (statusCode === 204 || statusCode === 304) {
    res.end();
    return;
  }
  res.setHeader('content-length', Buffer.byteLength(body));
  res.end(body);
}
