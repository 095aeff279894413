// How the values of a schema are called in a sentence. Must not know what the sentence says of them.
import { COMPATIBILITY_TEXT_MAX_CHARACTERS } from '../../protocol/service-limits.js';
import { constOf, typeOf, type Case } from './schema-cases.js';

export const cut = (text: string): string => (text.length > COMPATIBILITY_TEXT_MAX_CHARACTERS ? `${text.slice(0, COMPATIBILITY_TEXT_MAX_CHARACTERS)}…` : text);

export function shown(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(cut(value));
  if (typeof value !== 'object' || value === null) return String(value);
  return Array.isArray(value) ? 'a certain array' : 'a certain object';
}

export function itsType(narrow: Case): string {
  const type = typeOf(narrow);
  if (type === null) return 'anything';
  if (type === 'null' || type === 'undefined') return type;
  return `${/^[aeiou]/i.test(type) ? 'an' : 'a'} ${cut(type)}`;
}

export function anyOfItsType(narrow: Case): string {
  const type = typeOf(narrow);
  return type === null || constOf(narrow) !== undefined ? itsType(narrow) : `any ${cut(type)}`;
}
