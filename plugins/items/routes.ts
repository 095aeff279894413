// The HTTP surface of items: routes and their schemas, no logic.
import { Type } from '@sinclair/typebox';
import type { PluginApp } from 'bulkhead/protocol';
import { markAnswers } from './middleware.js';
import { Item, ItemChange, ItemId, NewItem, Nothing, Page, Problem } from './schemas.js';
import type { ItemsService } from './services.js';
import { validator } from './utils.js';

export function registerRoutes(app: PluginApp, items: ItemsService): void {
  markAnswers(app);
  app.setValidatorCompiler(validator);

  app.post('/', { schema: { summary: 'Create an item', body: NewItem, response: { 201: Item, 400: Problem } } }, async (request, reply) => {
    const item = await items.create(request.body);
    return reply.code(201).header('location', `${request.mount}/${item.id}`).send(item);
  });

  app.get('/', { schema: { summary: 'List items by id', querystring: Page, response: { 200: Type.Array(Item), 400: Problem } } },
    ({ query }) => items.list(query));

  app.get('/:id', { schema: { summary: 'Get one item', params: ItemId, response: { 200: Item, 400: Problem, 404: Problem } } },
    ({ params }) => items.find(params.id));

  app.put('/:id', { schema: { summary: 'Change what the body mentions', params: ItemId, body: ItemChange, response: { 200: Item, 400: Problem, 404: Problem } } },
    ({ params, body }) => items.update(params.id, body));

  app.delete('/:id', { schema: { summary: 'Delete an item', params: ItemId, response: { 204: Nothing, 400: Problem, 404: Problem } } }, async ({ params }, reply) => {
    await items.delete(params.id);
    return reply.code(204).send(null);
  });
}
