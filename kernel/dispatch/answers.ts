// How the kernel itself answers with an error, on a raw response. Must not know why.
import { STATUS_CODES, type ServerResponse } from 'node:http';
import { REQUEST_ID_HEADER, type BulkheadError, type ErrorBody } from '../../protocol/errors.js';

export function errorBody(error: { readonly statusCode: number; readonly code: string; readonly message: string }, requestId: string): ErrorBody {
  return { statusCode: error.statusCode, code: error.code, error: STATUS_CODES[error.statusCode] ?? 'Error', message: error.message, requestId };
}

/** Answers with the error, or cuts the connection when an answer has begun: the client must not take half of one for the whole. */
export function answerError(res: ServerResponse, error: BulkheadError, requestId: string): void {
  if (res.writableEnded || res.destroyed) return;
  if (res.headersSent) {
    res.destroy();
    return;
  }
  const body = JSON.stringify(errorBody(error, requestId));
  // What a refused answer of a plugin has left behind would make this one fail as well.
  for (const name of res.getHeaderNames()) if (name !== 'connection') res.removeHeader(name);
  res.statusCode = error.statusCode;
  res.statusMessage = STATUS_CODES[error.statusCode] ?? '';
  res.setHeader('content-type', 'application/json; charset=utf-8');
  res.setHeader('content-length', Buffer.byteLength(body));
  res.setHeader(REQUEST_ID_HEADER, requestId);
  if (error.retryAfterSeconds !== undefined) res.setHeader('retry-after', error.retryAfterSeconds);
  res.end(body);
}
