// Whether a new version of a service breaks who uses it: each rule in both directions, generated schemas, and schemas that mean harm.
import t from 'tap';
import { Type, type TSchema } from '@sinclair/typebox';
import { TypeCompiler } from '@sinclair/typebox/compiler';
import { contractsOf } from '../../protocol/contracts.js';
import { method } from '../../protocol/marks.js';
import { breaches } from '../../kernel/contracts/compatibility.js';
import { Steps } from '../../kernel/contracts/schema-cases.js';
import { COMPATIBILITY_BREACHES_MAX, COMPATIBILITY_TEXT_MAX_CHARACTERS } from '../../protocol/service-limits.js';
import type { MethodContract, ServiceContract } from '../../protocol/contracts.js';

type Json = Record<string, unknown>;

/** As it leaves a worker. */
const plain = (schema: unknown): Json => JSON.parse(JSON.stringify(schema)) as Json;
const find = (promise: Partial<MethodContract>): ServiceContract => ({ find: { idempotent: false, args: null, required: promise.args?.length ?? 0, result: null, ...promise } });
const argument = (before: unknown, after: unknown): string[] => breaches(find({ args: [plain(before)] }), find({ args: [plain(after)] })).map((breach) => breach.replace('find: argument 1', ''));
const result = (before: unknown, after: unknown): string[] => breaches(find({ result: plain(before) }), find({ result: plain(after) })).map((breach) => breach.replace('find: result', ''));

const { Object: Obj, String: Str, Number: Num, Integer: Int, Boolean: Bool, Optional: Opt, Literal: Lit, Array: Arr, Null, Union, Unsafe } = Type;
const Closed = { additionalProperties: false };
const Tree = (value: TSchema, $id: string): TSchema => Type.Recursive((This) => Obj({ value, children: Arr(This) }), { $id });

t.test('a service or a method that is gone, and a promise that is taken back, are breaches', async (t) => {
  t.strictSame(breaches(find({}), undefined), ['it is gone']);
  t.strictSame(breaches(find({}), {}), ['find is gone']);
  t.strictSame(breaches({}, find({})), [], 'a further method is none');
  t.strictSame(breaches(find({ idempotent: true }), find({})), ['find: it is not idempotent any more']);
  t.strictSame(breaches(find({}), find({ idempotent: true })), []);
  t.strictSame(breaches(find({ result: plain(Str()) }), find({})), ['find: result: is not promised any more']);
  t.strictSame(breaches(find({}), find({ result: plain(Str()) })), []);
  t.strictSame(breaches(find({}), find({ args: [plain(Str())] })), [], 'arguments that were not checked were not promised to be taken');
  t.strictSame(breaches(find({ args: [plain(Str())] }), find({})), []);
  t.strictSame(breaches(JSON.parse('{"toString":{"idempotent":false,"args":null,"result":null}}') as ServiceContract, {}), ['toString is gone'], 'what every object inherits is no method');
});

t.test('the number of arguments is part of the promise', async (t) => {
  const takes = (...args: TSchema[]): ServiceContract => contractsOf({ service: { find: method({ args }, () => 1) } })['service']!;
  t.strictSame(breaches(takes(Str(), Num()), takes(Str())), ['find: argument 2 is gone']);
  t.strictSame(breaches(takes(Str()), takes(Str(), Num())), ['find: argument 2 is new']);
  t.strictSame(breaches(takes(Str()), takes(Str(), Opt(Num()))), [], 'one that can be left out is no burden');
  t.strictSame(breaches(takes(Str(), Opt(Num())), takes(Str(), Num())), ['find: argument 2 is required now']);
  t.strictSame(breaches(takes(Str(), Num()), takes(Str(), Str())), ['find: argument 2: a number is not allowed any more']);
});

t.test('what is read of a result has to be there still', async (t) => {
  const before = Obj({ name: Str(), price: Num(), note: Opt(Str()) });
  t.strictSame(result(before, Obj({ name: Str() })), [': "price" is gone'], 'an optional one may go');
  t.strictSame(result(before, Obj({ name: Str(), price: Opt(Num()) })), [': "price" is optional now']);
  t.strictSame(result(before, Obj({ name: Str(), price: Num(), more: Str() })), [], 'a further one is fine');
  t.strictSame(result(before, Obj({ name: Str(), price: Union([Num(), Null()]) })), ['.price: may be null now']);
  t.strictSame(result(Arr(before), Arr(Obj({ name: Str(), price: Str() }))), ['[].price: may be a string now']);
  t.strictSame(result(before, Union([before, Null()])), [': may be null now']);
  t.strictSame(result(Union([before, Null()]), before), []);
  t.strictSame(result(Union([before, Null()]), Union([Obj({ name: Str() }), Null()])), [': "price" is gone'], 'of a union the nearest part tells why');
  t.strictSame(result(before, Type.Intersect([Obj({ name: Str() }), Obj({ price: Num() })])), [], 'parts that all hold count together');
});

t.test('what is sent as an argument has to be taken still', async (t) => {
  const before = Obj({ name: Str(), note: Opt(Str()) });
  t.strictSame(argument(before, Obj({ name: Str(), note: Str() })), [': "note" is required now']);
  t.strictSame(argument(before, Obj({ name: Str(), size: Num() })), [': "size" is required now']);
  t.strictSame(argument(before, Obj({ name: Str(), note: Opt(Str()), size: Opt(Num()) })), [], 'a further optional one is fine');
  t.strictSame(argument(before, Obj({ name: Opt(Str()) })), []);
  t.strictSame(argument(Obj({ a: Obj({ zip: Str() }) }), Obj({ a: Obj({ zip: Str(), city: Str() }) })), ['.a: "city" is required now']);
  t.strictSame(argument(Type.Unknown(), Str()), [': not everything is allowed any more']);
});

/** The first of each pair allows all that the second does, and more. */
const WIDER: readonly (readonly [string, unknown, unknown, string, string])[] = [
  ['a type', Union([Str(), Num()]), Str(), ': a number is not allowed any more', ': may be a number now'],
  ['numbers', Num(), Int(), ': a number is not allowed any more', ': may be a number now'],
  ['anything', Type.Unknown(), Str(), ': not everything is allowed any more', ': may be anything now'],
  ['a list of types', { type: ['string', 'null'] }, { type: 'string' }, ': null is not allowed any more', ': may be null now'],
  ['minimum', Num({ minimum: 1 }), Num({ minimum: 2 }), ': "minimum" is 2 now, it was 1', ': "minimum" is 1 now, it was 2'],
  ['an excluded minimum', Num({ minimum: 1 }), Num({ exclusiveMinimum: 1 }), ': "exclusiveMinimum" is 1 now', ': "exclusiveMinimum" is gone'],
  ['maximum', Num(), Num({ maximum: 2 }), ': "maximum" is 2 now', ': "maximum" is gone'],
  ['multipleOf', Num({ multipleOf: 5 }), Num({ multipleOf: 10 }), ': "multipleOf" is 10 now, it was 5', ': "multipleOf" is 5 now, it was 10'],
  ['minLength', Str(), Str({ minLength: 1 }), ': "minLength" is 1 now', ': "minLength" is gone'],
  ['maxLength', Str({ maxLength: 9 }), Str({ maxLength: 8 }), ': "maxLength" is 8 now, it was 9', ': "maxLength" is 9 now, it was 8'],
  ['pattern', Str(), Str({ pattern: '^(a+)+$' }), ': "pattern" is "^(a+)+$" now', ': "pattern" is gone'],
  ['format', Str(), Str({ format: 'email' }), ': "format" is "email" now', ': "format" is gone'],
  ['a literal', Str(), Lit('red'), ': not every string is allowed any more', ': may be any string now'],
  ['literals', Union([Lit('red'), Lit('blue')]), Lit('red'), ': "blue" is not allowed any more', ': may be "blue" now'],
  ['an enum', { enum: ['red', 'blue', 1] }, { enum: ['red', 1] }, ': "blue" is not allowed any more', ': may be "blue" now'],
  ['an enum and its type', Str({ minLength: 3 }), { enum: ['red', 'blue'] }, ': not every string is allowed any more', ': may be any string now'],
  ['booleans', Bool(), Lit(true), ': false is not allowed any more', ': may be false now'],
  ['oneOf', { oneOf: [Str(), Num()] }, Str(), ': a number is not allowed any more', ': may be a number now'],
  ['not', {}, Type.Not(Str()), ': "not" is another now', ': "not" is gone'],
  ['what is not', Type.Not(Str()), Int(), ': not everything is allowed any more', ': may be anything now'],
  ['minItems', Arr(Str()), Arr(Str(), { minItems: 1 }), ': "minItems" is 1 now', ': "minItems" is gone'],
  ['maxItems', Arr(Str()), Arr(Str(), { maxItems: 1 }), ': "maxItems" is 1 now', ': "maxItems" is gone'],
  ['uniqueItems', Arr(Str()), Arr(Str(), { uniqueItems: true }), ': "uniqueItems" is true now', ': "uniqueItems" is gone'],
  ['items', Arr(Num()), Arr(Int()), '[]: a number is not allowed any more', '[]: may be a number now'],
  ['a tuple', Type.Tuple([Str(), Num()]), Type.Tuple([Str(), Int()]), '[1]: a number is not allowed any more', '[1]: may be a number now'],
  ['an array and a tuple of its items', Arr(Str(), { minItems: 2, maxItems: 2 }), Type.Tuple([Str(), Str({ minLength: 1 })]), '[1]: "minLength" is 1 now', '[1]: "minLength" is gone'],
  ['further properties', Obj({ a: Str() }), Obj({ a: Str() }, Closed), ': further properties are not allowed any more', ': may have further properties now'],
  ['one more in a closed object', Obj({ a: Str(), b: Opt(Str()) }, Closed), Obj({ a: Str() }, Closed), ': "b" is not allowed any more', ': may have "b" now'],
  ['the type of further properties', Obj({}, { additionalProperties: Num() }), Obj({}, { additionalProperties: Int() }), '.*: a number is not allowed any more', '.*: may be a number now'],
  ['a record', Type.Record(Str(), Num()), Type.Record(Str(), Int()), '.*: a number is not allowed any more', '.*: may be a number now'],
  ['a record and an object', Type.Record(Str(), Num()), Obj({ a: Int() }, Closed), ': "a" is required now', ': "a" is optional now'],
  ['all of several', Type.Intersect([Obj({ a: Str() }), Obj({ b: Opt(Str()) })]), Obj({ a: Str(), b: Str() }), ': "b" is required now', ': "b" is optional now'],
  ['trees', Tree(Num(), 'One'), Tree(Int(), 'Two'), '.value: a number is not allowed any more', '.value: may be a number now'],
  ['bytes', Type.Uint8Array(), Type.Uint8Array({ maxByteLength: 9 }), ': "maxByteLength" is 9 now', ': "maxByteLength" is gone'],
  ['dates', Type.Date(), Type.Date({ minimumTimestamp: 9 }), ': "minimumTimestamp" is 9 now', ': "minimumTimestamp" is gone'],
  ['nothing', Str(), Type.Never(), ': "not" is another now', ': "not" is gone'],
  ['a keyword that nobody knows', Str(), Unsafe({ type: 'string', colour: 'red' }), ': "colour" is "red" now', ': "colour" is gone'],
];

t.test('the wider schema is fine for an argument and a breach for a result, and the narrower the other way round', async (t) => {
  for (const [name, wide, narrow, asArgument, asResult] of WIDER) {
    t.strictSame(argument(narrow, wide), [], `${name}: wider arguments`);
    t.strictSame(result(wide, narrow), [], `${name}: narrower result`);
    t.ok(argument(wide, narrow).includes(asArgument), `${name}: narrower arguments are a breach: ${argument(wide, narrow).join('; ')}`);
    t.ok(result(narrow, wide).includes(asResult), `${name}: a wider result is a breach: ${result(narrow, wide).join('; ')}`);
  }
});

t.test('another way to say the same is no breach', async (t) => {
  const pairs: readonly (readonly [string, unknown, unknown])[] = [
    ['annotations', Str({ title: 'one', description: 'x', default: 'a' }), Str({ title: 'two' })],
    ['the order of a union', Union([Str(), Num()]), Union([Num(), Str()])],
    ['booleans as literals', Bool(), Union([Lit(false), Lit(true)])],
    ['a union as an enum', Union([Lit('a'), Lit('b')]), { type: 'string', enum: ['b', 'a'] }],
    ['a list of types as a union', { type: ['string', 'null'] }, Union([Null(), Str()])],
    ['bounds of zero', Arr(Str()), Arr(Str(), { minItems: 0 })],
    ['a tree by another name', Tree(Str(), 'One'), Tree(Str(), 'Two')],
    ['keywords that it does not understand', Unsafe({ if: Str(), then: { minLength: 1 }, title: 'a' }), Unsafe({ if: Str(), then: { minLength: 1 } })],
  ];
  for (const [name, one, other] of pairs) t.strictSame([argument(one, other), argument(other, one), result(one, other), result(other, one)], [[], [], [], []], name);
  t.strictSame(result(Unsafe({ if: Str(), then: { minLength: 1 } }), Unsafe({ if: Num(), then: { minLength: 1 } })), [': "if" is another now', ': "then" is another now'], 'but what depends on another keyword changes with it');
});

t.test('what does not fit in one place does not fit in another', async (t) => {
  const box = (type: string): unknown => ({
    $defs: { Box: { $id: 'Box', type: 'object', required: ['item'], properties: { item: { type } } } },
    type: 'object', required: ['x', 'y'], properties: { x: { anyOf: [{ $ref: 'Box' }, { type: 'object' }] }, y: { $ref: 'Box' } },
  });
  t.strictSame(result(box('string'), box('number')), ['.y.item: may be a number now']);
  t.strictSame(result(box('number'), box('integer')), []);
});

/** Always the same numbers, so that a failure can be looked into; but for the one at `twist`. */
function randomFrom(seed: number, twist = -1): (below: number) => number {
  let state = seed;
  let drawn = 0;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const number = Math.floor((state / 2 ** 32) * below);
    drawn += 1;
    return drawn - 1 === twist ? (number + 1) % below : number;
  };
}

/** Objects say whether they may have further properties: one that does not say is read as people mean it, and not by the letter. */
function generate(random: (below: number) => number, depth: number): TSchema {
  const leaf = (): TSchema => {
    const [kind, a, b] = [random(14), random(3), random(3)];
    return [
      Str({ minLength: a, maxLength: a + b }), Num({ minimum: a }), Int({ maximum: a }), Num({ exclusiveMinimum: a, maximum: 2 + b }), Int({ multipleOf: 1 + a }), Num({ multipleOf: 1 + b }), Bool(), Null(),
      Lit(['a', 'bb', 1][a]!), Union([Lit('a'), Lit(['bb', 2, true][b]!)]), Type.Unknown(), Str(), Num(), Union([Int(), Null()]),
    ][kind]!;
  };
  const object = (): TSchema => {
    const [shape, further, needed] = [random(4), random(4), random(8)];
    const names = [['a'], ['a', 'b'], ['b'], ['a', 'b', 'c']][shape]!;
    const properties = Object.fromEntries(names.map((name, place) => [name, (needed >> place) % 2 === 0 ? Opt(generate(random, depth - 1)) : generate(random, depth - 1)]));
    return Obj(properties, { additionalProperties: [false, false, true, generate(random, 0)][further]! });
  };
  if (depth === 0) return leaf();
  const [kind, size] = [random(9), random(3)];
  if (kind === 0) return leaf();
  if (kind === 1) return Union([generate(random, depth - 1), generate(random, depth - 1)]);
  if (kind === 2) return Arr(generate(random, depth - 1), { minItems: size });
  if (kind === 3) return Type.Tuple([generate(random, depth - 1), generate(random, depth - 1)]);
  if (kind === 4) return Type.Record(Str(), generate(random, depth - 1));
  if (kind === 5) return Type.Intersect([object(), object()]);
  return kind === 6 ? Type.Not(leaf()) : object();
}

t.test('of generated schemas, a result without a breach has only values that the old one allows', async (t) => {
  const random = randomFrom(1);
  const value = (depth: number): unknown => {
    const kind = random(depth === 0 ? 10 : 20);
    if (kind < 10) return ['a', 'bb', '', 0, 1, 2, 2.5, -1, true, null][kind];
    if (kind < 14) return Array.from({ length: random(4) }, () => value(depth - 1));
    return Object.fromEntries(['a', 'b', 'c', 'd'].filter(() => random(2) === 0).map((name) => [name, value(depth - 1)]));
  };
  const values = Array.from({ length: 300 }, () => value(3));
  const counts = { compatible: 0, incompatible: 0, needless: 0 };
  for (let seed = 0; seed < 2_500; seed += 1) {
    const [before, after] = [generate(randomFrom(seed * 7_919), 2), generate(randomFrom(seed * 7_919, random(24)), 2)];
    const [old, now] = [TypeCompiler.Compile(before), TypeCompiler.Compile(after)];
    const wrong = values.find((one) => now.Check(one) && !old.Check(one));
    const found = result(before, after);
    if (found.length > 0) counts[wrong === undefined ? 'needless' : 'incompatible'] += 1;
    else if (wrong !== undefined) t.fail(`${JSON.stringify(wrong)} is of ${JSON.stringify(after)} and not of ${JSON.stringify(before)}`);
    else if (JSON.stringify(before) !== JSON.stringify(after)) counts.compatible += 1;
  }
  t.ok(counts.compatible > 200 && counts.incompatible > 200, `of those that differ some are compatible: ${JSON.stringify(counts)}`);
});

t.test('schemas that mean harm cost a bounded time and are breaches at most', async (t) => {
  const nested = (depth: number, inner: string): unknown => JSON.parse(`${'{"type":"object","properties":{"a":'.repeat(depth)}${inner}${'}}'.repeat(depth)}`);
  const unions = (depth: number, inner: string): unknown => JSON.parse(`${'{"anyOf":[{"type":"null"},{"allOf":['.repeat(depth)}${inner}${']}]}'.repeat(depth)}`);
  const looped = (type: string): unknown => ({ $id: 'A', anyOf: [{ $ref: 'A' }, { $ref: 'A' }, { allOf: [{ $ref: 'A' }, { $ref: 'A' }] }, { type }] });
  const knot = (type: string): unknown => ({ $ref: 'N0', $defs: Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`N${i}`, { $id: `N${i}`, type: 'object', required: ['x'], properties: { x: { type }, ...Object.fromEntries(Array.from({ length: 40 }, (_, j) => [`p${j}`, { anyOf: [{ $ref: `N${j}` }, { type: 'null' }] }])) } }])) });
  const many = (count: number, more: unknown): unknown => ({ enum: [...Array.from({ length: count }, (_, i) => `${i}`), more] });
  const objects = (count: number, from: number): unknown => ({ enum: Array.from({ length: count }, (_, i) => ({ value: i + from })) });
  const patterns = (type: string): unknown => ({ patternProperties: Object.fromEntries(Array.from({ length: 5_000 }, (_, i) => [`${type}${i}(a+)+$`, { type }])), additionalProperties: { type } });
  const product = (type: string): unknown => ({ allOf: Array.from({ length: 30 }, () => ({ anyOf: [{ minLength: 1 }, { minLength: 2 }, { type }] })) });
  const pairs: readonly (readonly [string, () => unknown, () => unknown])[] = [
    ['nested 10,000 times', () => nested(10_000, '{"type":"string"}'), () => nested(10_000, '{"type":"number"}')],
    ['unions nested 5,000 times', () => unions(5_000, '{"type":"string"}'), () => unions(5_000, '{"type":"number"}')],
    ['unions nested 40 times', () => unions(40, '{"type":"string"}'), () => unions(40, '{"type":"number"}')],
    ['references in circles', () => ({ $id: 'A', $ref: 'B', $defs: { b: { $id: 'B', $ref: 'A' } } }), () => ({ $id: 'A', $ref: 'A' })],
    ['a union of itself', () => looped('string'), () => looped('number')],
    ['a reference to nothing', () => ({ $ref: 'X', title: 'a' }), () => ({ $ref: 'X' })],
    ['two of the same name', () => ({ $ref: 'A', $defs: { a: { $id: 'A', type: 'string' }, b: { $id: 'A', type: 'number' } } }), () => ({ $ref: 'A', $defs: { a: { $id: 'A', type: 'string' } } })],
    ['a knot', () => knot('string'), () => knot('number')],
    ['a huge enum', () => many(30_000, 'a'), () => many(30_000, 'b')],
    ['a huge enum of objects', () => objects(10_000, 0), () => objects(10_000, 5_000)],
    ['many patterns', () => patterns('string'), () => patterns('number')],
    ['a product of unions', () => product('string'), () => product('number')],
    ['inherited names', () => JSON.parse('{"type":"object","properties":{"__proto__":{"type":"string"},"constructor":{"type":"string"}},"required":["__proto__","toString"]}'), () => ({ type: 'object', properties: {}, toString: 1 })],
    ['a long text', () => ({ type: 'object', properties: { ['a'.repeat(200_000)]: { const: 'b'.repeat(50_000) } } }), () => ({ type: 'object', properties: { ['a'.repeat(200_000)]: { const: 'c'.repeat(50_000) } } })],
  ];
  const inBoth = (one: unknown, other: unknown): string[] => [...breaches(find({ result: one as Json }), find({ result: other as Json })), ...breaches(find({ args: [one as Json] }), find({ args: [other as Json] }))];
  for (const [name, one, other] of pairs) {
    const [before, after] = [one(), other()];
    const begun = performance.now();
    const found = inBoth(before, after);
    const tookMs = performance.now() - begun;
    t.ok(tookMs < 1_000, `${name} took ${tookMs.toFixed(0)} ms`);
    t.ok(found.length > 0 && found.length <= 2 * COMPATIBILITY_BREACHES_MAX, `${name}: ${found[0]?.slice(0, 100)}`);
    t.ok(found.every((breach) => breach.length < 100 * COMPATIBILITY_TEXT_MAX_CHARACTERS), `${name} is told in short`);
    t.strictSame(inBoth(before, one()), [], `${name}, unchanged, is none`);
  }
  for (const value of [null, 1, 'x', [], [null], [[]], {}, { a: 1 }, true, { $ref: {} }]) {
    const garbage = { type: value, properties: value, required: value, items: value, anyOf: value, allOf: value, enum: value, minimum: value, pattern: value, not: value, $id: value, patternProperties: value, additionalProperties: value };
    t.doesNotThrow(() => inBoth(garbage, { ...garbage, type: 'object' }), JSON.stringify(value));
    t.doesNotThrow(() => inBoth({ ...garbage, type: 'array', anyOf: [value] }, { ...garbage, enum: undefined }), JSON.stringify(value));
  }
});

t.test('several services are compared within one bound', async (t) => {
  const steps = new Steps(10);
  const [before, after] = [find({ result: plain(Tree(Str(), 'A')) }), find({ result: plain(Tree(Num(), 'A')) })];
  t.strictSame(breaches(before, after, steps), ['find: result: cannot be compared, its schema is too large']);
  t.ok(steps.over);
  t.strictSame(breaches(find({ result: plain(Str()) }), find({ result: plain(Num()) }), steps), ['find: result: cannot be compared, its schema is too large'], 'and what comes later is not taken to be fine');
});
