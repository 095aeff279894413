// The operator's routes for events that a plugin could not handle. Must not know where they are kept.
import { Type } from '@sinclair/typebox';
import type { FastifyInstance } from 'fastify';
import { BulkheadError } from '../../protocol/errors.js';
import { pluginNameProblem } from '../../protocol/plugin.js';
import type { DurableEvents } from '../services/durable-events.js';
import { assertOperator, assertSameSite, Name, refuseOtherMethods } from './operator.js';

const Letter = Type.Object({
  event: Type.String({ description: 'Number of the event' }),
  pattern: Type.String({ description: 'What the plugin has subscribed to' }),
  topic: Type.String(),
  publisher: Type.String({ description: 'Name of a plugin' }),
  key: Type.Union([Type.String(), Type.Null()]),
  bytes: Type.Integer({ description: 'Size of its payload' }),
  publishedAt: Type.Number({ description: 'Milliseconds since 1970' }),
  diedAt: Type.Number({ description: 'Milliseconds since 1970' }),
  attempts: Type.Integer(),
  error: Type.String({ description: 'What the last attempt failed of' }),
});

export interface DeadLetterOptions {
  readonly durable: DurableEvents;
  /** Null leaves the routes open. */
  readonly token: string | null;
}

export function registerDeadLetters(app: FastifyInstance, { durable, token }: DeadLetterOptions): void {
  const schema = { tags: ['kernel'], params: Name, ...(token !== null && { security: [{ operator: [] }] }) };
  app.get<{ Params: { name: string } }>('/plugins/dead-letters/:name', {
    onRequest: async (request) => assertOperator(request, token),
    schema: { ...schema, summary: 'Events that the plugin could not handle, the newest first', response: { 200: Type.Array(Letter) } },
  }, ({ params }) => durable.deadLetters(checked(params.name)));
  refuseOtherMethods(app, 'GET', '/plugins/dead-letters/:name');

  app.post<{ Params: { name: string } }>('/plugins/dead-letters/:name/retry', {
    onRequest: async (request) => {
      assertSameSite(request);
      assertOperator(request, token);
    },
    schema: { ...schema, summary: 'Try the oldest hundred of them again', response: { 200: Type.Object({ retried: Type.Integer() }) } },
  }, async ({ params }) => ({ retried: await durable.revive(checked(params.name)) }));
  refuseOtherMethods(app, 'POST', '/plugins/dead-letters/:name/retry');
}

/** The plugin itself need not be there any more. */
function checked(name: string): string {
  const problem = pluginNameProblem(name);
  if (problem !== null) throw new BulkheadError('PLUGIN_NAME_INVALID', { name, reason: problem });
  return name;
}
