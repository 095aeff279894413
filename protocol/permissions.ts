// What a plugin may do beyond its walls when its manifest asks for it and the operator grants it. Must not know how Node enforces it.
import { PERMISSIONS_MAX } from './limits.js';

/** Words that stand alone. */
const SWITCHES = ['network', 'child-process', 'worker', 'addons', 'wasi'] as const;
const PATH = /^(read|write):(\/[^*\0]*)$/;

/** `network` (enforced from Node 25 on), `child-process`, `worker`, `addons`, `wasi`, `read:/path` or `write:/path` (a folder means all below it). */
export type Permission = (typeof SWITCHES)[number] | `read:/${string}` | `write:/${string}`;

/** What is wrong with a list of permissions; `where` begins each sentence. */
export function permissionProblems(where: string, list: unknown): string[] {
  if (!Array.isArray(list)) return [`${where} must be a list of permissions`];
  if (list.length > PERMISSIONS_MAX) return [`${where} has more than ${PERMISSIONS_MAX} entries`];
  return list.flatMap((entry: unknown) =>
    typeof entry === 'string' && ((SWITCHES as readonly string[]).includes(entry) || (PATH.test(entry) && !/\/\.{1,2}(\/|$)/.test(entry)))
      ? [] : [`${where} has ${JSON.stringify(entry)}, which is no permission; there are ${SWITCHES.join(', ')}, read:/path and write:/path`]);
}

/** Those that were asked for and not granted. A path is granted by itself or by a folder above it. */
export function missingPermissions(asked: readonly string[], granted: readonly string[]): string[] {
  return asked.filter((permission) => !granted.some((grant) => permission === grant || (grant.includes(':') && permission.startsWith(`${grant.replace(/\/$/, '')}/`))));
}
