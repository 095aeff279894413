// Small things without a home of their own.
import type { TSchema } from '@sinclair/typebox';
import { Value } from '@sinclair/typebox/value';

/** An error that Fastify answers with 404 and this message. */
export function itemNotFound(id: number): Error {
  return Object.assign(new Error(`There is no item ${id}.`), { statusCode: 404, code: 'ITEM_NOT_FOUND' });
}

/**
 * Validates with TypeBox, and takes bodies at their word. Fastify's own validator would turn the number 5 into the name "5" and
 * null into "", which is right for paths and query strings, where everything is text, and wrong for JSON.
 */
export function validator({ schema, httpPart = 'body' }: { schema: unknown; httpPart?: string }): (value: unknown) => { value: unknown } | { error: Error } {
  const type = schema as TSchema;
  return (given) => {
    const value = httpPart === 'body' ? given : withNumbers(Value.Default(type, given));
    const problem = Value.Errors(type, value).First();
    return problem === undefined ? { value } : { error: new Error(`${httpPart}${problem.path}: ${problem.message}`) };
  };
}

/** Plain decimal numbers only: TypeBox's own conversion takes "1.5" and "true" for 1, and "1e3" for 1000. */
function withNumbers(texts: unknown): unknown {
  return Object.fromEntries(Object.entries(texts as Record<string, unknown>).map(([name, text]) => [name, typeof text === 'string' && /^-?[0-9]{1,15}$/.test(text) ? Number(text) : text]));
}
