// Whether every value of one JSON schema is a value of another, and what is in the way if not. Must not know which of the two is older.
import { COMPATIBILITY_DEPTH_MAX, COMPATIBILITY_OBSTACLES_MAX } from '../../protocol/service-limits.js';
import { constOf, isImpossible, isJsonType, isObject, listOf, own, SchemaReader, typeOf, type Case, type Keywords, type Steps } from './schema-cases.js';
import { ANNOTATIONS, hasSame, isAbout, isAmong, mostOf, passes, requiredOf } from './schema-keywords.js';
import { EVERY_NAME, furtherOf, itemsOf, namesIn, namesOf, propertyOf, tupleLengthOf } from './schema-members.js';
import { anyOfItsType, cut, itsType, shown } from './schema-words.js';

/** What keeps the narrow schema from being part of the wide one. */
export type Obstacle = { readonly at: string } & (
  /** A property that the wide one requires, and the narrow one knows or not. */
  | { readonly kind: 'missing'; readonly name: string; readonly known: boolean }
  /** Values that only the narrow one allows: a type, one value, or `any` of a type. */
  | { readonly kind: 'values'; readonly what: string }
  /** A property, or when it has no name any other one, that only the narrow one allows. */
  | { readonly kind: 'further'; readonly name: string | null }
  /** What the keyword says in the wide one and, if it does, in the narrow one. */
  | { readonly kind: 'keyword'; readonly keyword: string; readonly wide: unknown; readonly narrow: unknown }
);

type Rule = (wide: Keywords, value: unknown, narrow: Case, at: string) => void;

/**
 * One comparison of two whole schemas. It errs on one side only: what it does not understand is an obstacle, unless it is the same in both. With one exception: a property that an object's schema does not name,
 * without a word on further ones, is taken never to be there. Strictly it may be there with any value, and no property could ever be added to a schema, nor an optional one be left out.
 */
class Inclusion {
  #obstacles: Obstacle[] = [];
  #depth = 0;
  readonly #steps: Steps;
  readonly #wide: SchemaReader;
  readonly #narrow: SchemaReader;
  /** Pairs that are taken to be fine, in the order in which they were: schemas may contain themselves. A pair that is not goes again, with those that may rest upon it. */
  readonly #assumed = new Set<string>();
  readonly #trail: string[] = [];
  readonly #numbers = new WeakMap<object, number>();
  #lastNumber = 0;
  readonly #rules: Readonly<Record<string, Rule>> = {
    type: () => {},
    additionalItems: () => {},
    const: (_wide, value, narrow, at) => this.#among([value], narrow, at),
    enum: (_wide, value, narrow, at) => this.#among(listOf(value), narrow, at),
    allOf: (_wide, value, narrow, at) => { for (const part of listOf(value)) this.#meets(part, narrow, at); },
    anyOf: (_wide, value, narrow, at) => this.#anyOf(listOf(value), narrow, at),
    oneOf: (wide, value, narrow, at) => this.#oneOf(wide, listOf(value), narrow, at),
    not: (wide, value, narrow, at) => { if (!this.#excludes(value, narrow)) this.#plain('not', wide, narrow, at); },
    required: (_wide, value, narrow, at) => this.#required(listOf(value), narrow, at),
    properties: (_wide, value, narrow, at) => this.#properties(value, narrow, at),
    patternProperties: (_wide, value, narrow, at) => this.#patternProperties(value, narrow, at),
    additionalProperties: (wide, value, narrow, at) => this.#additionalProperties(wide, value, narrow, at),
    items: (wide, _value, narrow, at) => this.#items(wide, narrow, at),
  };

  constructor(wide: unknown, narrow: unknown, steps: Steps) {
    this.#steps = steps;
    this.#wide = new SchemaReader(wide, steps);
    this.#narrow = new SchemaReader(narrow, steps);
  }

  compare(wide: unknown, narrow: unknown): Obstacle[] {
    this.#contains(wide, [narrow], '');
    return this.#obstacles;
  }

  #add(obstacle: Obstacle): void {
    if (!this.#full) this.#obstacles.push(obstacle);
  }

  get #full(): boolean {
    return this.#obstacles.length >= COMPATIBILITY_OBSTACLES_MAX;
  }

  #keyword(keyword: string, wide: Keywords, narrow: Case, at: string): void {
    this.#add({ at, kind: 'keyword', keyword, wide: own(wide, keyword), narrow: narrow.map((keywords) => own(keywords, keyword)).find((value) => value !== undefined) });
  }

  #values(what: string, at: string): void {
    this.#add({ at, kind: 'values', what });
  }

  #numberOf(schema: unknown): string {
    if (typeof schema !== 'object' || schema === null) return String(schema);
    const number = this.#numbers.get(schema) ?? (this.#lastNumber += 1);
    this.#numbers.set(schema, number);
    return String(number);
  }

  /** Of one value, item or property: the wide schema against all that the narrow one says about it. */
  #contains(wide: unknown, narrow: readonly unknown[], at: string): void {
    const pair = [wide, ...narrow].map((schema) => this.#numberOf(schema)).join(' ');
    if (this.#assumed.has(pair) || this.#full || !this.#steps.take()) return;
    const before = this.#obstacles.length;
    const assumedBefore = this.#trail.length;
    this.#assumed.add(pair);
    this.#trail.push(pair);
    for (const one of this.#narrow.casesOf(narrow)) this.#meets(wide, one, at);
    if (this.#obstacles.length > before) for (const doubtful of this.#trail.splice(assumedBefore)) this.#assumed.delete(doubtful);
  }

  #meets(wide: unknown, narrow: Case, at: string): void {
    if (this.#full || !this.#steps.take() || wide === true) return;
    if (!isObject(wide) || this.#depth >= COMPATIBILITY_DEPTH_MAX) return this.#values(itsType(narrow), at);
    const keywords = this.#wide.resolve(wide);
    if (keywords === null) return this.#keyword('$ref', wide, narrow, at);
    if (!this.#isOfType(keywords, narrow)) return this.#values(itsType(narrow), at);
    const type = typeOf(narrow);
    this.#depth += 1;
    for (const [keyword, value] of Object.entries(keywords)) {
      if (this.#full || !this.#steps.take()) break;
      if (ANNOTATIONS.has(keyword) || (type !== null && isJsonType(type) && !isAbout(keyword, type))) continue;
      if (Object.hasOwn(this.#rules, keyword)) this.#rules[keyword]!(keywords, value, narrow, at);
      else this.#plain(keyword, keywords, narrow, at);
    }
    this.#depth -= 1;
  }

  #isOfType(wide: Keywords, narrow: Case): boolean {
    const type = own(wide, 'type');
    const types = Array.isArray(type) ? type : [type];
    const given = typeOf(narrow);
    return type === undefined || types.includes(given) || (given === 'integer' && types.includes('number'));
  }

  #plain(keyword: string, wide: Keywords, narrow: Case, at: string): void {
    if (passes(keyword, wide[keyword], narrow) ?? hasSame(keyword, wide, narrow, this.#steps)) return;
    this.#keyword(keyword, wide, narrow, at);
  }

  #among(values: readonly unknown[], narrow: Case, at: string): void {
    const only = constOf(narrow);
    if (only === undefined) this.#values(anyOfItsType(narrow), at);
    else if (!isAmong(only, values, this.#steps)) this.#values(shown(only), at);
  }

  /** What is in the way of this, and not noted down. */
  #trial(look: () => void): Obstacle[] {
    const noted = this.#obstacles;
    this.#obstacles = [];
    look();
    const found = this.#obstacles;
    this.#obstacles = noted;
    return found;
  }

  #anyOf(options: readonly unknown[], narrow: Case, at: string): void {
    const type = itsType(narrow);
    let what = type;
    let nearest: Obstacle[] | null = null;
    for (const option of options) {
      const found = this.#trial(() => this.#meets(option, narrow, at));
      if (found.length === 0) return;
      // An option that takes other values than these altogether has nothing else to tell about them.
      const other = found.find((obstacle) => obstacle.kind === 'values' && obstacle.at === at);
      if (other?.kind === 'values') what = other.what === type ? what : other.what;
      else if (nearest === null || found.length < nearest.length) nearest = found;
    }
    for (const obstacle of nearest ?? [{ at, kind: 'values', what } as const]) this.#add(obstacle);
  }

  /** One option takes these values, and all others none of them. */
  #oneOf(wide: Keywords, options: readonly unknown[], narrow: Case, at: string): void {
    if (hasSame('oneOf', wide, narrow, this.#steps)) return;
    const possible = options.filter((option) => !this.#excludes(option, narrow));
    if (possible.length > 1) this.#keyword('oneOf', wide, narrow, at);
    else this.#anyOf(possible, narrow, at);
  }

  #excludes(wide: unknown, narrow: Case): boolean {
    return this.#wide.casesOf([wide]).every((one) => isImpossible([...one, ...narrow]));
  }

  #required(names: readonly unknown[], narrow: Case, at: string): void {
    for (const name of names) {
      if (typeof name !== 'string' || !this.#steps.take(narrow.length) || narrow.some((keywords) => requiredOf(keywords).has(name))) continue;
      this.#add({ at, kind: 'missing', name, known: propertyOf(narrow, name) !== null });
    }
  }

  #properties(properties: unknown, narrow: Case, at: string): void {
    for (const name of namesIn(properties)) this.#property(own(properties, name), name, narrow, at);
  }

  #property(wide: unknown, name: string, narrow: Case, at: string): void {
    if (this.#full || !this.#steps.take(narrow.length)) return;
    const known = propertyOf(narrow, name);
    if (known !== null) this.#contains(wide, known, `${at}.${cut(name)}`);
  }

  #patternProperties(patterns: unknown, narrow: Case, at: string): void {
    for (const pattern of namesIn(patterns)) {
      if (this.#full || !this.#steps.take(narrow.length)) return;
      const wide = own(patterns, pattern);
      const known = narrow.map((keywords) => own(own(keywords, 'patternProperties'), pattern)).filter((schema) => schema !== undefined);
      if (known.length > 0) this.#contains(wide, known, `${at}.*`);
      // Which names a pattern is about is not known here: it may be all.
      else this.#others(wide, new Set(), narrow, at);
    }
  }

  #additionalProperties(wide: Keywords, value: unknown, narrow: Case, at: string): void {
    const patterns = new Set(namesIn(own(wide, 'patternProperties')));
    if (value === true || patterns.has(EVERY_NAME)) return;
    const named = own(wide, 'properties');
    this.#others(value, patterns, narrow, at, (name) => own(named, name) === undefined);
  }

  /** Of all properties of the narrow one, named or not, but for those of these patterns. */
  #others(wide: unknown, patterns: ReadonlySet<string>, narrow: Case, at: string, isMeant: (name: string) => boolean = () => true): void {
    for (const name of namesOf(narrow)) {
      if (this.#full || !this.#steps.take(narrow.length)) return;
      if (!isMeant(name)) continue;
      const known = propertyOf(narrow, name);
      if (wide !== false) this.#property(wide, name, narrow, at);
      else if (known !== null && this.#narrow.casesOf(known).length > 0) this.#add({ at, kind: 'further', name });
    }
    const work = narrow.reduce((sum, keywords) => sum + namesIn(own(keywords, 'patternProperties')).length + 1, 0);
    const further = this.#steps.take(work) ? furtherOf(narrow, patterns) : null;
    if (further === null) return;
    if (wide !== false) this.#contains(wide, further, `${at}.*`);
    else if (this.#narrow.casesOf(further).length > 0) this.#add({ at, kind: 'further', name: null });
  }

  #items(wide: Keywords, narrow: Case, at: string): void {
    const last = Math.max(...[wide, ...narrow].map(tupleLengthOf));
    const most = mostOf('maxItems', narrow);
    for (let place = 0; place <= last && place < most && !this.#full && this.#steps.take(narrow.length); place += 1) {
      const [expected = true] = itemsOf([wide], place);
      this.#contains(expected, itemsOf(narrow, place), `${at}[${place < last ? place : ''}]`);
    }
  }
}

/** What keeps the values of the narrow schema from being values of the wide one; nothing when `steps` are over, which the caller asks about. */
export function obstaclesBetween(wide: unknown, narrow: unknown, steps: Steps): Obstacle[] {
  return new Inclusion(wide, narrow, steps).compare(wide, narrow);
}
