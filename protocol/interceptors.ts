// What a plugin may do with the requests of other plugins: interceptors as it declares them, as data in its manifest, and their outcomes. Must not know who asks them, or plugins' names.
import { validateHeaderName, validateHeaderValue } from 'node:http';
import type { FlatHeaders } from './frames.js';
import {
  INTERCEPTOR_ANSWER_MAX_BYTES, INTERCEPTOR_HEADERS_MAX, INTERCEPTOR_HEADERS_MAX_CHARACTERS, INTERCEPTOR_ORDER_MAX, INTERCEPTOR_PATH_MAX_CHARACTERS,
  INTERCEPTOR_PATHS_MAX, INTERCEPTOR_TIMEOUT_MAX_MS, INTERCEPTOR_TIMEOUT_MS, INTERCEPTORS_MAX,
} from './interceptor-limits.js';
import { patternProblem } from './path-patterns.js';

/** By name: what the header is from now on, a list for one in several lines, or null to take it away. */
export type HeaderChanges = Readonly<Record<string, string | readonly string[] | null>>;
type Headers = Readonly<Record<string, string | string[] | undefined>>;

/** A request of another plugin. */
export interface InterceptedRequest {
  readonly method: string;
  /** Path and query as the client sent them. To decide by path, declare `paths`: those fit however it is written. */
  readonly url: string;
  /** By lower-cased name, repetitions joined as Node does. */
  readonly headers: Headers;
  readonly requestId: string;
  readonly remoteAddress: string;
  /** Who is to answer it. */
  readonly plugin: string;
}

export interface InterceptedResponse { readonly statusCode: number; readonly headers: Headers }

/** Sent in the plugin's place. */
export interface InterceptorAnswer {
  /** 200 to 599. */
  readonly statusCode: number;
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  /** At most INTERCEPTOR_ANSWER_MAX_BYTES; an object is sent as JSON. */
  readonly body?: string | Uint8Array | object;
}

type Maybe<T> = T | void | Promise<T | void>;

export interface Interceptor<Context> {
  /** Such as `/items`, `/users/*` (one segment), `/items/**` (that and all below it); by default all. One fits under every mount of the plugin that answers, and however the path is written. */
  readonly paths?: readonly string[];
  /** By default all; `GET` means `HEAD` as well. */
  readonly methods?: readonly string[];
  /** The smaller the sooner, from -1000 to 1000, by default 0; among equals by the plugin's name. */
  readonly order?: number;
  /** Of each question, in milliseconds (1 to 10,000). */
  readonly timeoutMs?: number;
  /** When it is not there, too slow or fails: `open` goes on without it, `closed` refuses with `INTERCEPTOR_FAILED`. */
  readonly failMode: 'open' | 'closed';
  /** Returns nothing to let the request go on, changes of its headers, or an answer. */
  onRequest?(request: InterceptedRequest, ctx: Context): Maybe<{ readonly headers: HeaderChanges } | { readonly answer: InterceptorAnswer }>;
  /** Changes of the answer's headers; a plain object is the same for every answer, and costs no question to the worker. */
  readonly onResponse?: { readonly headers: HeaderChanges } | ((request: InterceptedRequest, response: InterceptedResponse, ctx: Context) => Maybe<{ readonly headers: HeaderChanges }>);
}

/** An interceptor as data. */
export interface InterceptorManifest {
  readonly paths: readonly string[];
  /** Empty for all. */
  readonly methods: readonly string[];
  readonly order: number;
  readonly timeoutMs: number;
  readonly failMode: 'open' | 'closed';
  readonly onRequest: boolean;
  readonly onResponse: 'none' | 'ask' | { readonly headers: HeaderChanges };
}

/** Changes as they travel: the names that lose what they have, and the lines that are there instead. */
export interface HeaderEdit { readonly names: readonly string[]; readonly lines: FlatHeaders }
/** What an interceptor says of one request or answer. */
export type Outcome =
  | { readonly kind: 'continue'; readonly edit: HeaderEdit | null }
  | { readonly kind: 'answer'; readonly statusCode: number; readonly headers: FlatHeaders; readonly body: string | Uint8Array }
  | { readonly kind: 'failed'; readonly reason: string };

/** Belong to the connection, to the body's length, or to the kernel: to change them would let others read another message than was sent. */
const UNTOUCHABLE: ReadonlySet<string> = new Set([
  'connection', 'content-length', 'expect', 'host', 'http2-settings', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'x-request-id', '__proto__',
]);

const METHOD = /^[A-Z][A-Z-]{0,31}$/;

/** What is wrong with the `interceptors` of a definition, or of the manifest that was made of it. */
export function interceptorProblems(list: unknown): string[] {
  if (!Array.isArray(list)) return ['`interceptors` must be an array such as [{ paths: ["/items/**"], failMode: "closed", onRequest() {} }]'];
  if (list.length > INTERCEPTORS_MAX) return [`\`interceptors\` has more than ${INTERCEPTORS_MAX} entries`];
  return list.flatMap((one: unknown, i) => problemsOf(one).map((problem) => `\`interceptors[${i}]${problem}`));
}

function problemsOf(one: unknown): string[] {
  const { paths = [], methods = [], order = 0, timeoutMs = INTERCEPTOR_TIMEOUT_MS, failMode, onRequest, onResponse } = (one ?? {}) as Partial<Record<keyof Interceptor<never>, unknown>>;
  const problems: string[] = [];
  const texts = (list: unknown): list is string[] => Array.isArray(list) && list.length <= INTERCEPTOR_PATHS_MAX && list.every((text) => typeof text === 'string');
  if (!texts(paths)) problems.push(`.paths\` must be a list of at most ${INTERCEPTOR_PATHS_MAX} paths`);
  else for (const path of paths) {
    const problem = patternProblem(path);
    if (problem !== null) problems.push(`.paths\` has ${JSON.stringify(path.slice(0, INTERCEPTOR_PATH_MAX_CHARACTERS))}: ${problem}`);
  }
  if (!texts(methods) || !methods.every((method) => METHOD.test(method))) problems.push('.methods` must be a list such as ["POST", "PUT"]');
  if (!isWhole(order, -INTERCEPTOR_ORDER_MAX, INTERCEPTOR_ORDER_MAX)) problems.push(`.order\` must be a whole number from ${-INTERCEPTOR_ORDER_MAX} to ${INTERCEPTOR_ORDER_MAX}`);
  if (!isWhole(timeoutMs, 1, INTERCEPTOR_TIMEOUT_MAX_MS)) problems.push(`.timeoutMs\` must be a whole number from 1 to ${INTERCEPTOR_TIMEOUT_MAX_MS}`);
  if (failMode !== 'open' && failMode !== 'closed') problems.push('.failMode` must be "open" or "closed"');
  if (onRequest !== undefined && typeof onRequest !== 'function' && typeof onRequest !== 'boolean') problems.push('.onRequest` must be a function');
  if (typeof onResponse === 'object') {
    try {
      readChanges((onResponse as { headers?: unknown } | null)?.headers);
    } catch (error) {
      problems.push(`.onResponse\` cannot be: ${(error as Error).message}`);
    }
  } else if (![undefined, 'none', 'ask'].includes(onResponse as undefined) && typeof onResponse !== 'function') problems.push('.onResponse` must be a function or { headers: { ... } }');
  if (!onRequest && (onResponse === undefined || onResponse === 'none')) problems.push('` has neither `onRequest` nor `onResponse`');
  return problems;
}

/** Of a list without problems. */
export function interceptorManifests(list: readonly unknown[]): InterceptorManifest[] {
  return (list as Interceptor<never>[]).map(({ paths = [], methods = [], order = 0, timeoutMs = INTERCEPTOR_TIMEOUT_MS, failMode, onRequest, onResponse }) => ({
    paths: [...paths], methods: [...methods], order, timeoutMs, failMode,
    onRequest: Boolean(onRequest),
    onResponse: typeof onResponse === 'object' ? { headers: { ...onResponse.headers } } : typeof onResponse === 'function' || (onResponse as unknown) === 'ask' ? 'ask' : 'none',
  }));
}

/** Reads changes of unknown shape. Throws a sentence on what is none. */
export function readChanges(changes: unknown): HeaderEdit {
  if (typeof changes !== 'object' || changes === null || Array.isArray(changes)) throw new TypeError('`headers` must be an object such as { "x-user": "ada", "x-secret": null }');
  const names: string[] = [];
  const lines: string[] = [];
  for (const [name, value] of Object.entries(changes as Record<string, unknown>)) {
    names.push(name.toLowerCase());
    if (value !== null) for (const one of [value].flat()) lines.push(name, one as string);
  }
  return readEdit({ names, lines });
}

/** The same once more, of what comes from a worker. */
export function readEdit(edit: unknown): HeaderEdit {
  const { names, lines } = (edit ?? {}) as Partial<Record<keyof HeaderEdit, unknown>>;
  if (!Array.isArray(names) || !Array.isArray(lines) || names.length > INTERCEPTOR_HEADERS_MAX || lines.length > 2 * INTERCEPTOR_HEADERS_MAX || lines.length % 2 !== 0) throw new RangeError(`at most ${INTERCEPTOR_HEADERS_MAX} headers can be changed`);
  let characters = 0;
  for (const name of names as unknown[]) characters += checkName(name);
  for (let i = 0; i < lines.length; i += 2) {
    const [name, value] = [lines[i] as unknown, lines[i + 1] as unknown];
    characters += checkName(name);
    if (typeof value !== 'string') throw new TypeError(`the header ${String(name)} must be text, a list of texts, or null`);
    validateHeaderValue(name as string, value);
    characters += value.length;
  }
  if (characters > INTERCEPTOR_HEADERS_MAX_CHARACTERS) throw new RangeError(`headers of more than ${INTERCEPTOR_HEADERS_MAX_CHARACTERS} characters`);
  return { names: [...(names as string[])], lines: [...(lines as string[])] };
}

function checkName(name: unknown): number {
  if (typeof name !== 'string') throw new TypeError('the name of a header must be text');
  validateHeaderName(name);
  if (UNTOUCHABLE.has(name.toLowerCase())) throw new TypeError(`the header ${name} is not for interceptors to change`);
  return name.length;
}

/** Reads an outcome that comes from a worker. Throws on what is none. */
export function readOutcome(outcome: unknown): Outcome {
  const { kind, edit, statusCode, headers, body, reason } = (outcome ?? {}) as Record<string, unknown>;
  if (kind === 'failed' && typeof reason === 'string') return { kind, reason: reason.slice(0, INTERCEPTOR_PATH_MAX_CHARACTERS) };
  if (kind === 'continue') return { kind, edit: edit === null ? null : readEdit(edit) };
  if (kind !== 'answer') throw new TypeError('there is no such outcome');
  if (!isWhole(statusCode, 200, 599)) throw new RangeError(`${String(statusCode)} is no status from 200 to 599`);
  if (typeof body !== 'string' && !(body instanceof Uint8Array && body.buffer instanceof ArrayBuffer)) throw new TypeError('a body is text or bytes');
  if (Buffer.byteLength(body) > INTERCEPTOR_ANSWER_MAX_BYTES) throw new RangeError(`a body has at most ${INTERCEPTOR_ANSWER_MAX_BYTES} bytes`);
  return { kind, statusCode: statusCode as number, headers: readEdit({ names: [], lines: headers }).lines, body };
}

/** Headers after a change. */
export function edited(flat: FlatHeaders, { names, lines }: HeaderEdit): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < flat.length; i += 2) if (!names.includes(flat[i]!.toLowerCase())) kept.push(flat[i]!, flat[i + 1]!);
  kept.push(...lines);
  return kept;
}

function isWhole(value: unknown, min: number, max: number): boolean {
  return Number.isInteger(value) && (value as number) >= min && (value as number) <= max;
}
