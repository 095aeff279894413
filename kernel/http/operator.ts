// The operator's routes below `/plugins`. Must not know how a verb is carried out.
import { createHash, timingSafeEqual } from 'node:crypto';
import { Type } from '@sinclair/typebox';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { BulkheadError } from '../../protocol/errors.js';
import type { Verb } from '../plugins/lifecycle-context.js';
import type { Supervisor } from '../plugins/supervisor.js';

const VERBS: Readonly<Record<Verb, string>> = {
  load: 'Bundle the plugin, give it a worker and mount its routes; it takes no requests yet',
  start: 'Let it take requests; after a stop or a failure with a fresh worker and fresh code',
  stop: 'Finish open requests, run its stop(), end its worker; its paths answer 503',
  unload: 'Stop it and forget it; its paths answer 404',
  restart: 'Stop it and start it with a fresh worker and fresh code',
};

const nullable = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) => Type.Union([schema, Type.Null()]);

/** The documented part of a plugin's state; the detailed answers have more. */
const Summary = Type.Object({
  name: Type.String(),
  version: nullable(Type.String({ description: 'Null until it has been loaded once' })),
  description: nullable(Type.String()),
  status: Type.String({ description: 'registered, initialized, mounted, started, running, stopping, stopped, failed, restarting or quarantined' }),
  error: nullable(Type.String({ description: 'Why it does not run' })),
  generation: Type.Integer({ description: 'Number of its newest worker' }),
  restarts: Type.Integer(),
  mounts: Type.Array(Type.String()),
}, { additionalProperties: true });
export const Name = Type.Object({ name: Type.String({ description: 'Name of the plugin' }) });

const Force = Type.Object({ force: Type.Optional(Type.Boolean({ description: 'Also when the new code breaks plugins that use its services' })) });

export interface OperatorOptions {
  readonly supervisor: Supervisor;
  /** Null leaves the verbs open. */
  readonly token: string | null;
}

export async function registerOperator(app: FastifyInstance, { supervisor, token }: OperatorOptions): Promise<void> {
  // No verb reads a body; one that a client sends out of habit must not stand in its way.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, payload, done) => {
    payload.resume();
    done(null);
  });
  const tags = ['kernel'];
  const security = token === null ? {} : { security: [{ operator: [] }] };

  app.get('/plugins', { schema: { tags, summary: 'Every known plugin', response: { 200: Type.Array(Summary) } } }, () => supervisor.list());
  app.get<{ Params: { name: string } }>('/plugins/status/:name', { schema: { tags, summary: 'All that is known of one plugin', params: Name, response: { 200: Summary } } },
    ({ params }) => supervisor.details(params.name));
  refuseOtherMethods(app, 'GET', '/plugins/status/:name');

  for (const [verb, summary] of Object.entries(VERBS) as [Verb, string][]) {
    const url = `/plugins/${verb}/:name`;
    app.post<{ Params: { name: string }; Querystring: { force?: boolean } }>(url, {
      onRequest: async (request) => {
        assertSameSite(request);
        assertOperator(request, token);
      },
      schema: { tags, summary, params: Name, querystring: Force, response: { 200: Summary }, ...security },
    }, ({ params, query }) => supervisor.perform(verb, params.name, query.force));
    refuseOtherMethods(app, 'POST', url);
  }
}

/** Without these, a wrong method would reach the gateway, which would take the verb for the name of a plugin. */
export function refuseOtherMethods(app: FastifyInstance, allowed: 'GET' | 'POST', url: string): void {
  const method = app.supportedMethods.filter((other) => other !== allowed && !(allowed === 'GET' && other === 'HEAD'));
  app.route({
    method,
    url,
    schema: { hide: true },
    handler: (request, reply) => {
      void reply.header('allow', allowed);
      throw new BulkheadError('METHOD_NOT_ALLOWED', { method: request.method, url: request.url, allowed });
    },
  });
}

/** A page of somebody else in the operator's browser could otherwise press the buttons. */
export function assertSameSite(request: FastifyRequest): void {
  const { 'sec-fetch-site': site, origin, host } = request.headers;
  const foreign = (typeof site === 'string' && !['same-origin', 'none'].includes(site)) || (site === undefined && origin !== undefined && !origin.endsWith(`//${host}`));
  if (foreign) throw new BulkheadError('OPERATOR_FORBIDDEN', { reason: 'the request comes from a page of another site' });
}

export function assertOperator(request: FastifyRequest, token: string | null): void {
  if (token === null) return;
  const given = /^Bearer (\S+)$/i.exec(request.headers.authorization ?? '')?.[1] ?? '';
  // Digests have one length, so the comparison tells nothing of the token's.
  const digest = (value: string): Buffer => createHash('sha256').update(value).digest();
  if (!timingSafeEqual(digest(given), digest(token))) throw new BulkheadError('OPERATOR_UNAUTHORIZED', {});
}
