// What a JSON schema says of the properties and items of its values. Must not know what they are compared with.
import { isObject, own, type Case, type Keywords } from './schema-cases.js';

/** The pattern of a TypeBox `Record` with any names. It leaves out those with line breaks, which nobody gives. */
export const EVERY_NAME = '^(.*)$';

const NOTHING: Keywords = {};
const names = new WeakMap<Keywords, readonly string[]>();

/** The names in an object, and none in what is no object. Read once, as it is asked for each property. */
export function namesIn(value: unknown): readonly string[] {
  const object = isObject(value) ? value : NOTHING;
  const known = names.get(object) ?? Object.keys(object);
  names.set(object, known);
  return known;
}

export function namesOf(narrow: Case): Set<string> {
  return new Set(narrow.flatMap((keywords) => namesIn(own(keywords, 'properties'))));
}

/** What holds for a property of that name; null when it is never there. */
export function propertyOf(narrow: Case, name: string): unknown[] | null {
  const schemas: unknown[] = [];
  let possible = false;
  let named = false;
  for (const keywords of narrow) {
    const properties = own(keywords, 'properties');
    if (isObject(properties) && Object.hasOwn(properties, name)) {
      named = possible = true;
      schemas.push(properties[name]);
    }
    const patterns = own(keywords, 'patternProperties');
    const every = own(patterns, EVERY_NAME);
    if (every !== undefined) schemas.push(every);
    const further = own(keywords, 'additionalProperties');
    const undecided = namesIn(patterns).length > 0;
    possible ||= undecided || further !== undefined;
    if (own(properties, name) !== undefined || undecided || further === undefined) {
      named ||= isObject(properties);
      continue;
    }
    if (further === false) return null;
    schemas.push(further);
  }
  return named && !possible ? null : schemas;
}

/** What holds for all properties without a name but for those of these patterns; null when there are none. */
export function furtherOf(narrow: Case, except: ReadonlySet<string>): unknown[] | null {
  const schemas: unknown[] = [];
  for (const keywords of narrow) {
    const patterns = own(keywords, 'patternProperties');
    const every = own(patterns, EVERY_NAME);
    const further = own(keywords, 'additionalProperties') ?? true;
    const others = namesIn(patterns).filter((pattern) => !except.has(pattern)).map((pattern) => own(patterns, pattern));
    if (every !== undefined) schemas.push(every);
    else if (others.length > 0) schemas.push({ anyOf: [...others, further] });
    else if (further === false) return null;
    else schemas.push(further);
  }
  return schemas;
}

const tupleOf = (keywords: Keywords): readonly unknown[] | null => {
  const items = own(keywords, 'items');
  return Array.isArray(items) ? items : null;
};

export const tupleLengthOf = (keywords: Keywords): number => tupleOf(keywords)?.length ?? 0;

/** What holds for the item at that place. */
export function itemsOf(narrow: Case, place: number): unknown[] {
  return narrow.map((keywords) => {
    const tuple = tupleOf(keywords);
    if (tuple === null) return own(keywords, 'items');
    return place < tuple.length ? tuple[place] : own(keywords, 'additionalItems');
  }).filter((schema) => schema !== undefined);
}
