// The head of an answer, and hints before it, on their way from a host to the client. Must not know the answer's body.
import { validateHeaderName, validateHeaderValue, type ServerResponse } from 'node:http';
import { REQUEST_ID_HEADER } from '../../protocol/errors.js';
import type { FlatHeaders, HintsFrame, ResponseFrame } from '../../protocol/frames.js';
import { EARLY_HINT_MAX_CHARACTERS } from '../../protocol/limits.js';

export interface AnswerHead {
  /** For `writeHead`. */
  readonly headers: string[];
  /** The length of the body that it promises, or null. */
  readonly length: number | null;
}

/** RFC 9110, 8.6; fifteen digits are a number that JavaScript has. */
const LENGTH = /^\d{1,15}$/;

/**
 * Takes out the header that only the real server can know, and adds the request's id. Without chunks, as to HEAD and to HTTP/1.0,
 * there are no trailers that could be announced. Throws when the length is not one number: the client and a proxy on its way might read another.
 */
export function readHead(flat: FlatHeaders, requestId: string, status: number, chunks: boolean): AnswerHead {
  const headers: string[] = [];
  let length: number | null = null;
  let named = false;
  for (let i = 0; i + 1 < flat.length; i += 2) {
    const name = flat[i]!.toLowerCase();
    if (name === 'transfer-encoding' || (name === 'trailer' && !chunks)) continue;
    if (name === 'content-length') {
      if (length !== null || !LENGTH.test(flat[i + 1]!)) throw new TypeError(`its content-length is not one number (${flat[i + 1]})`);
      length = Number(flat[i + 1]);
      if (status === 204) continue;
    } else if (name === REQUEST_ID_HEADER) named = true;
    headers.push(flat[i]!, flat[i + 1]!);
  }
  if (!named) headers.push(REQUEST_ID_HEADER, requestId);
  return { headers, length };
}

/** Throws when Node cannot send it. */
export function writeHead(res: ServerResponse, { dateless, statusMessage }: ResponseFrame, status: number, headers: FlatHeaders): void {
  if (dateless) res.sendDate = false;
  if (statusMessage === '') res.writeHead(status, headers as string[]);
  else res.writeHead(status, statusMessage, headers as string[]);
}

/** Fewer links than Node's own pattern takes, and none that makes it go back: it needs seconds for a wrong link of a hundred characters. */
const LINK = /^<[^<>\s]*>(?:; ?[\w-]+(?:=(?:"[^"=;\s]*"|[^"=;\s]+))?)*$/;

/** For `writeEarlyHints`, which on Node 20 lets line breaks pass. Throws when these are no hints. */
export function readHints(hints: HintsFrame['hints']): HintsFrame['hints'] {
  let characters = 0;
  for (const [name, values] of Object.entries(hints)) {
    validateHeaderName(name);
    for (const value of [values].flat()) {
      validateHeaderValue(name, value);
      if ((characters += name.length + value.length) > EARLY_HINT_MAX_CHARACTERS) throw new RangeError('hints are short');
      if (name === 'link' && !LINK.test(value)) throw new TypeError('a hint must have links such as "</style.css>; rel=preload"');
    }
  }
  return hints;
}

/** For `addTrailers`. */
export function pairs(flat: FlatHeaders): [string, string][] {
  return Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i]!, flat[2 * i + 1]!]);
}
