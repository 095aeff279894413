// What a JSON schema says, read with distrust: it is a plugin's, and may be anything. Must not know what it is compared with.
import { COMPATIBILITY_DEPTH_MAX } from '../../protocol/service-limits.js';

export type Keywords = Readonly<Record<string, unknown>>;
/** One of the kinds of values that a schema allows: all of these hold for them, each read without its unions and references. Without any, it is every value. */
export type Case = readonly Keywords[];

/** The work that a comparison may do in all. */
export class Steps {
  #left: number;

  constructor(max: number) {
    this.#left = max;
  }

  /** Whether it was too much: what was found out since is worth nothing. */
  get over(): boolean {
    return this.#left < 0;
  }

  take(count = 1): boolean {
    this.#left -= count;
    return !this.over;
  }
}

export const isObject = (value: unknown): value is Keywords => typeof value === 'object' && value !== null && !Array.isArray(value);
export const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

/** A name may be any, also one that every object inherits something under. */
export function own(of: unknown, name: string): unknown {
  return isObject(of) && Object.hasOwn(of, name) ? of[name] : undefined;
}

/** Whether two pieces of JSON are the same. With `follow` one that has a `$ref` is not, for what it stands for may have changed. */
export function same(one: unknown, other: unknown, steps: Steps, follow = true): boolean {
  const pairs: [unknown, unknown][] = [[one, other]];
  for (let pair = pairs.pop(); pair !== undefined; pair = pairs.pop()) {
    const [a, b] = pair;
    if (!steps.take()) return false;
    if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) {
      if (a !== b) return false;
      continue;
    }
    const names = Object.keys(a);
    if (Array.isArray(a) !== Array.isArray(b) || names.length !== Object.keys(b).length || (follow && Object.hasOwn(a, '$ref'))) return false;
    for (const name of names) {
      if (!Object.hasOwn(b, name)) return false;
      pairs.push([(a as Keywords)[name], (b as Keywords)[name]]);
    }
  }
  return true;
}

/** One whole schema: the targets of its references, and the cases of what is in it. */
export class SchemaReader {
  /** By `$id`; null when several have it that are not the same. */
  readonly #targets = new Map<string, Keywords | null>();
  readonly #steps: Steps;

  constructor(root: unknown, steps: Steps) {
    this.#steps = steps;
    const open: unknown[] = [root];
    while (open.length > 0 && steps.take()) {
      const schema = open.pop();
      if (typeof schema !== 'object' || schema === null) continue;
      const id = own(schema, '$id');
      if (typeof id === 'string') this.#enter(id, schema as Keywords);
      for (const child of Object.values(schema)) open.push(child);
    }
  }

  #enter(id: string, schema: Keywords): void {
    const present = this.#targets.get(id);
    if (present === undefined) this.#targets.set(id, schema);
    else if (present !== null && !same(present, schema, this.#steps, false)) this.#targets.set(id, null);
  }

  /** What a reference stands for in the end; null when that cannot be told. */
  resolve(schema: Keywords): Keywords | null {
    let found: Keywords | null | undefined = schema;
    for (let hops = 0; hops < COMPATIBILITY_DEPTH_MAX && found; hops += 1) {
      if (!Object.hasOwn(found, '$ref')) return found;
      this.#steps.take();
      found = this.#targets.get(String(found['$ref']));
    }
    return null;
  }

  /** The cases of what all these schemas allow; where it cannot tell, a case is larger than it need be. */
  casesOf(schemas: readonly unknown[], depth = 0): Case[] {
    return schemas.reduce<Case[]>((cases, schema) => this.#both(cases, this.#casesOf(schema, depth + 1)), [[]]).filter((one) => !isImpossible(one));
  }

  /** The cases of one schema alone. */
  #casesOf(schema: unknown, depth: number): Case[] {
    if (schema === false) return [];
    const read = isObject(schema) && depth < COMPATIBILITY_DEPTH_MAX && this.#steps.take() ? this.resolve(schema) : null;
    if (read === null) return [[]];
    const not = own(read, 'not');
    if (not === true || (isObject(not) && Object.keys(not).length === 0)) return [];
    let cases = this.#both([[read]], this.casesOf(listOf(own(read, 'allOf')), depth));
    for (const union of [own(read, 'anyOf'), own(read, 'oneOf')]) {
      if (Array.isArray(union)) cases = this.#both(cases, union.flatMap((option) => this.#casesOf(option, depth + 1)));
    }
    const values = own(read, 'enum');
    if (Array.isArray(values)) return this.#both(cases, values.map((value: unknown) => [{ const: value }]));
    return Object.hasOwn(read, 'const') ? cases : this.#both(cases, casesOfType(own(read, 'type')));
  }

  #both(some: readonly Case[], others: readonly Case[]): Case[] {
    const cases: Case[] = [];
    for (const one of some) {
      for (const other of others) {
        if (!this.#steps.take(one.length + other.length)) return [[]];
        cases.push([...one, ...other]);
      }
    }
    return cases;
  }
}

const FEW = new Set(['boolean', 'null']);

/** The types of which there are few values are these values, so that a union of them is the same. */
function casesOfType(type: unknown): Case[] {
  if (Array.isArray(type)) return type.flatMap((each: unknown) => (typeof each === 'string' && !FEW.has(each) ? [[{ type: each }]] : casesOfType(String(each))));
  if (type === 'boolean') return [[{ const: true }], [{ const: false }]];
  if (type === 'null') return [[{ const: null }]];
  return [[]];
}

const JSON_TYPES = new Set(['null', 'boolean', 'integer', 'number', 'string', 'array', 'object']);
export const isJsonType = (type: string | null): boolean => type !== null && JSON_TYPES.has(type);

function typeOfValue(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  return Number.isInteger(value) ? 'integer' : typeof value;
}

/** The type of all values of a case; null when they may have any. */
export function typeOf(one: Case): string | null {
  let found: string | null = null;
  for (const keywords of one) {
    const type = own(keywords, 'type');
    if (typeof type === 'string' && (found === null || type === 'integer')) found = type;
    if (!Object.hasOwn(keywords, 'const')) continue;
    const given = typeOfValue(keywords['const']);
    if (found === null || given === 'integer') found = given;
  }
  return found;
}

/** The value of a case that has only one; undefined for any other. */
export function constOf(one: Case): unknown {
  for (const keywords of one) if (Object.hasOwn(keywords, 'const')) return keywords['const'];
  return undefined;
}

/** Whether no value can be of such a case: its types or values exclude each other. */
export function isImpossible(one: Case): boolean {
  const type = kindOf(typeOf(one));
  const value = constOf(one);
  return one.some((keywords) => {
    if (isOther(type, own(keywords, 'type'))) return true;
    if (!Object.hasOwn(keywords, 'const')) return false;
    const its = keywords['const'];
    return isOther(type, typeOfValue(its)) || (its !== value && typeof its !== 'object' && typeof value !== 'object');
  });
}

/** Whether these are two types that no value has both of; of those that are not JSON's nothing is known. */
const isOther = (type: string | null, its: unknown): boolean => isJsonType(type) && typeof its === 'string' && isJsonType(its) && kindOf(its) !== type;
const kindOf = (type: string | null): string | null => (type === 'integer' ? 'number' : type);
