// Patterns of paths such as `/items/**`, and whether a request's path fits one however it is written. Must not know who asks, or regular expressions of plugins.

import { INTERCEPTOR_PATH_MAX_CHARACTERS } from './interceptor-limits.js';

/** More segments than any pattern has. */
const SEGMENTS_READ_MAX = INTERCEPTOR_PATH_MAX_CHARACTERS / 2 + 2;

/** One that fits paths of whole segments: literal ones, `*` for any one, and at the end `**` for any rest, also none. */
export interface PathPattern {
  /** Lower-cased; `*` stands for any one. */
  readonly segments: readonly string[];
  /** Whether more may follow. */
  readonly open: boolean;
}

/** The ways in which a path can be read, each as its segments. */
export type Readings = readonly (readonly string[])[];

/** A segment of a pattern has no wildcard within it, and nothing that a path could hide something behind. */
const SEGMENT = /^[^\s*/?#;%\\\p{Cc}]+$/u;

/** Why this cannot be a pattern, or null when it can. */
export function patternProblem(pattern: string): string | null {
  if (pattern.length > INTERCEPTOR_PATH_MAX_CHARACTERS) return `it has more than ${INTERCEPTOR_PATH_MAX_CHARACTERS} characters`;
  if (!pattern.startsWith('/')) return 'it must begin with "/"';
  const segments = pattern.slice(1).split('/');
  const literal = segments.at(-1) === '**' ? segments.slice(0, -1) : segments;
  const wrong = literal.find((segment) => segment !== '*' && (!SEGMENT.test(segment) || segment === '.' || segment === '..'));
  if (wrong === undefined) return null;
  return wrong === '**' ? '"**" must be its end' : `${JSON.stringify(wrong)} is no segment; write plain text, "*" for any one segment, or "**" at the end for any rest`;
}

/** Of a pattern without a problem. */
export function compilePattern(pattern: string): PathPattern {
  const segments = pattern.toLowerCase().slice(1).split('/');
  const open = segments.at(-1) === '**';
  return { segments: open ? segments.slice(0, -1) : segments, open };
}

/** Whether the pattern fits one of the readings. Takes no longer than the pattern has segments. */
export function fits({ segments, open }: PathPattern, readings: Readings): boolean {
  return readings.some((path) => (open ? path.length >= segments.length : path.length === segments.length)
    && segments.every((segment, i) => segment === '*' || segment === path[i]));
}

/**
 * Reads a path, perhaps with its query, in every way in which the router of a plugin or its handler might: as it is written, and with all that can be written in two ways taken
 * away, which is capital letters, encodings, empty segments, dots, backslashes and parameters after ";". A guard holds when one of them fits, so one reading too many is safe and one too few is a hole.
 */
export function readPath(target: string): Readings {
  const end = target.search(/[?#]/);
  const path = (end === -1 ? target : target.slice(0, end)).toLowerCase();
  const plain = path.slice(1).split('/', SEGMENTS_READ_MAX);
  if (!/[%;\\]|\/\/|\/\.|\/$/.test(path)) return [plain];
  const decode = decoderOf(path);
  return [plain.map(decode), simplified(decode(path), false), simplified(decode(path), true)];
}

/** `lean` takes parameters, dots and a second query away as well. */
function simplified(path: string, lean: boolean): string[] {
  const kept: string[] = [];
  const end = lean ? path.search(/[?#]/) : -1; // written as %3F or %23
  for (const segment of (end === -1 ? path : path.slice(0, end)).replaceAll('\\', '/').split('/')) {
    const name = lean && segment.includes(';') ? segment.slice(0, segment.indexOf(';')) : segment;
    if (name === '' || (lean && name === '.')) continue;
    if (lean && name === '..') kept.pop();
    else if (kept.push(name) > SEGMENTS_READ_MAX && !lean) break;
  }
  return kept;
}

const asIs = (text: string): string => text;
const decodeUtf8 = (text: string): string => (text.includes('%') ? decodeURIComponent(text).toLowerCase() : text);
const decodeAscii = (text: string): string => text.replace(/%[0-7][0-9a-f]/g, (code) => String.fromCharCode(Number.parseInt(code.slice(1), 16))).toLowerCase();

/** For the path and its parts: once, as routers do. What is no UTF-8 reaches no route; its ASCII is read all the same, and tried as a whole only, because each failure is dear. */
function decoderOf(path: string): (text: string) => string {
  if (!path.includes('%')) return asIs;
  try {
    decodeURIComponent(path);
    return decodeUtf8;
  } catch {
    return decodeAscii;
  }
}
