// The forms in which Node takes headers and trailers, and what it refuses. Must not know which answer they belong to.
import { validateHeaderName, validateHeaderValue } from 'node:http';

export type HeaderValue = number | string | readonly string[];
export type HeaderPair = readonly [name: string, value: HeaderValue];

/** What `writeHead` takes: an object, names and values in turn, or pairs. A name may come several times in the last two. */
export function headerPairs(headers: unknown): HeaderPair[] {
  if (typeof headers !== 'object' || headers === null) return [];
  if (!Array.isArray(headers)) return Object.entries(headers as Record<string, HeaderValue>);
  const flat = (Array.isArray(headers[0]) ? headers.flat() : headers) as HeaderValue[];
  if (flat.length % 2 !== 0) throw Object.assign(new TypeError('a list of headers has names and values in turn'), { code: 'ERR_INVALID_ARG_VALUE' });
  return Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i] as string, flat[2 * i + 1]!]);
}

/** Names and values in turn, each value in a line of its own. */
export function flatHeaders(pairs: Iterable<HeaderPair>): string[] {
  const flat: string[] = [];
  for (const [name, value] of pairs) {
    if (Array.isArray(value)) for (const one of value as readonly unknown[]) flat.push(name, String(one));
    else flat.push(name, String(value));
  }
  return flat;
}

/** What `addTrailers` takes: an object or pairs. */
export function flatTrailers(trailers: Readonly<Record<string, HeaderValue>> | readonly HeaderPair[]): string[] {
  const flat = flatHeaders(Array.isArray(trailers) ? trailers as readonly HeaderPair[] : Object.entries(trailers));
  for (let i = 0; i < flat.length; i += 2) {
    validateHeaderName(flat[i]!);
    validateHeaderValue(flat[i]!, flat[i + 1]!);
  }
  return flat;
}

/** What `writeEarlyHints` takes, as data. */
export function hintsOf(hints: Readonly<Record<string, unknown>>): Record<string, string | string[]> {
  return Object.fromEntries(Object.entries(hints).map(([name, value]) => [name, Array.isArray(value) ? value.map(String) : String(value)]));
}

/** Throws as Node does for a status that HTTP cannot carry; '404' is 404. */
export function statusCodeOf(status: number): number {
  const code = status | 0;
  if (code < 100 || code > 999) throw Object.assign(new RangeError(`Invalid status code: ${status}`), { code: 'ERR_HTTP_INVALID_STATUS_CODE' });
  return code;
}
