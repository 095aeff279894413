// What clients send and get, as TypeBox schemas: they validate, they type the handlers and they are the documentation.
import { Type, type Static } from '@sinclair/typebox';
import { ID_MAX } from './models.js';

// PostgreSQL's text cannot hold the character NUL.
const Name = Type.String({ minLength: 1, maxLength: 200, pattern: '^[^\\u0000]*$', description: 'What it is called' });
const Description = Type.Union([Type.String({ maxLength: 10_000, pattern: '^[^\\u0000]*$' }), Type.Null()], { description: 'More about it, or null' });

export const Item = Type.Object({ id: Type.Integer(), name: Type.String(), description: Type.Union([Type.String(), Type.Null()]) }, { description: 'An item' });
export const NewItem = Type.Object({ name: Name, description: Type.Optional(Description) });
/** What is not mentioned stays as it is. */
export const ItemChange = Type.Partial(Type.Object({ name: Name, description: Description }));
export const ItemId = Type.Object({ id: Type.Integer({ minimum: 1, maximum: ID_MAX }) });
export const Page = Type.Object({
  skip: Type.Integer({ minimum: 0, maximum: ID_MAX, default: 0, description: 'Items to pass over' }),
  limit: Type.Integer({ minimum: 1, maximum: 1_000, default: 100, description: 'Most items to return' }),
});
export const Problem = Type.Object({
  statusCode: Type.Integer(), code: Type.String(), error: Type.String(), message: Type.String(), requestId: Type.String(),
}, { description: 'What went wrong' });
export const Nothing = Type.Null({ description: 'Done' });

export type Item = Static<typeof Item>;
export type NewItem = Static<typeof NewItem>;
export type ItemChange = Static<typeof ItemChange>;
export type Page = Static<typeof Page>;
