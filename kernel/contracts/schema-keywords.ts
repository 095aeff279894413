// When one keyword of a JSON schema that has no schemas in it lets all values of a case through. Must not know other keywords than it is asked about.
import { constOf, listOf, own, same, typeOf, type Case, type Keywords, type Steps } from './schema-cases.js';

/** Keywords that allow and forbid nothing. */
export const ANNOTATIONS: ReadonlySet<string> = new Set(['$id', '$schema', '$comment', '$defs', 'definitions', 'title', 'description', 'default', 'examples', 'readOnly', 'writeOnly', 'deprecated']);

/** The type whose values a keyword is about; one that is not here is about all. */
const ABOUT: Readonly<Record<string, string>> = {
  minLength: 'string', maxLength: 'string', pattern: 'string', format: 'string',
  minimum: 'number', maximum: 'number', exclusiveMinimum: 'number', exclusiveMaximum: 'number', multipleOf: 'number',
  items: 'array', minItems: 'array', maxItems: 'array', uniqueItems: 'array', contains: 'array',
  required: 'object', properties: 'object', patternProperties: 'object', additionalProperties: 'object', minProperties: 'object', maxProperties: 'object', propertyNames: 'object',
};

export function isAbout(keyword: string, type: string): boolean {
  const about = own(ABOUT, keyword);
  return about === undefined || about === (type === 'integer' ? 'number' : type);
}

const CONDITION = ['if', 'then', 'else'];
const CONTAINED = ['contains', 'minContains', 'maxContains'];
/** Keywords whose meaning depends on others beside them: these are the same, or the keyword is not. */
const KIN: Readonly<Record<string, readonly string[]>> = {
  if: CONDITION, then: CONDITION, else: CONDITION, contains: CONTAINED, minContains: CONTAINED, maxContains: CONTAINED,
  unevaluatedProperties: ['unevaluatedProperties', 'properties', 'patternProperties', 'additionalProperties', 'allOf', 'anyOf', 'oneOf', 'not', ...CONDITION],
};

/** Whether the case has the keyword itself, with all that it depends on. Not to be understood is no breach while nothing changes. */
export function hasSame(keyword: string, wide: Keywords, narrow: Case, steps: Steps): boolean {
  const names = (own(KIN, keyword) ?? [keyword]) as readonly string[];
  return narrow.some((keywords) => names.every((name) => same(own(wide, name), own(keywords, name), steps)));
}

/** The bounds that are numbers, with their counterpart that excludes or includes the bound itself. */
const LOWER: Readonly<Record<string, string>> = { minimum: 'exclusiveMinimum', minimumTimestamp: 'exclusiveMinimumTimestamp' };
const UPPER: Readonly<Record<string, string>> = { maximum: 'exclusiveMaximum', maximumTimestamp: 'exclusiveMaximumTimestamp' };
const BOUNDS: ReadonlyMap<string, { readonly plain: string; readonly exclusive: string; readonly sign: 1 | -1 }> = new Map([LOWER, UPPER].flatMap((bounds, index) => (
  Object.entries(bounds).flatMap(([plain, exclusive]) => [plain, exclusive].map((name) => [name, { plain, exclusive, sign: index === 0 ? 1 : -1 }] as const))
)));

const LEAST = new Set(['minLength', 'minItems', 'minProperties', 'minByteLength']);
const MOST = new Set(['maxLength', 'maxItems', 'maxProperties', 'maxByteLength']);

/** Whether every value of the case passes the keyword; null when that is not known, and being the same has to do. */
export function passes(keyword: string, value: unknown, narrow: Case): boolean | null {
  if (keyword === 'uniqueItems') return value === false ? true : null;
  if (typeof value !== 'number') return null;
  if (BOUNDS.has(keyword)) return isWithin(keyword, value, narrow);
  if (LEAST.has(keyword)) return value <= 0 || leastOf(keyword, narrow) >= value;
  if (MOST.has(keyword)) return mostOf(keyword, narrow) <= value;
  return keyword === 'multipleOf' ? isMultiple(value, narrow) : null;
}

const numbersIn = (narrow: Case, keyword: string): number[] => narrow.map((keywords) => own(keywords, keyword)).filter((value) => typeof value === 'number');

function isWithin(keyword: string, value: number, narrow: Case): boolean {
  const { plain, exclusive, sign } = BOUNDS.get(keyword)!;
  const only = constOf(narrow);
  const included = [...numbersIn(narrow, plain), ...(typeof only === 'number' ? [only] : [])];
  if (numbersIn(narrow, exclusive).some((bound) => sign * bound >= sign * value)) return true;
  return included.some((bound) => (keyword === plain ? sign * bound >= sign * value : sign * bound > sign * value));
}

function leastOf(keyword: string, narrow: Case): number {
  const only = constOf(narrow);
  const known = numbersIn(narrow, keyword);
  // JSON Schema counts characters and TypeBox half of those beyond 16 bits: the lesser count is safe here, and the greater one below.
  if (keyword === 'minLength' && typeof only === 'string') known.push([...only].length);
  if (keyword === 'minItems' && Array.isArray(only)) known.push(only.length);
  if (keyword === 'minProperties') known.push(...narrow.map((keywords) => requiredOf(keywords).size));
  return Math.max(0, ...known);
}

export function mostOf(keyword: string, narrow: Case): number {
  const only = constOf(narrow);
  const known = numbersIn(narrow, keyword);
  if (keyword === 'maxLength' && typeof only === 'string') known.push(only.length);
  if (keyword === 'maxItems' && Array.isArray(only)) known.push(only.length);
  return Math.min(Infinity, ...known);
}

/** Of whole numbers alone, for the remainder of others is not exact. */
function isMultiple(value: number, narrow: Case): boolean | null {
  if (!Number.isSafeInteger(value) || value <= 0) return null;
  const only = constOf(narrow);
  const multiples = [...numbersIn(narrow, 'multipleOf'), ...(typeof only === 'number' ? [only] : []), ...(typeOf(narrow) === 'integer' ? [1] : [])];
  return multiples.some((multiple) => Number.isSafeInteger(multiple) && multiple % value === 0) ? true : null;
}

const required = new WeakMap<Keywords, ReadonlySet<unknown>>();

/** Read once, as it is asked for each property. */
export function requiredOf(keywords: Keywords): ReadonlySet<unknown> {
  const known = required.get(keywords) ?? new Set(listOf(own(keywords, 'required')));
  required.set(keywords, known);
  return known;
}

const members = new WeakMap<readonly unknown[], ReadonlySet<unknown>>();

/** Whether a value is among these, which are read once as well: an `enum` may be long. */
export function isAmong(value: unknown, values: readonly unknown[], steps: Steps): boolean {
  if (typeof value === 'object' && value !== null) return values.some((one) => same(one, value, steps, false));
  const known = members.get(values) ?? new Set(values);
  members.set(values, known);
  return known.has(value);
}
