// What a load balancer and a container engine ask. Must not know what plugins are for.
import { Type } from '@sinclair/typebox';
import type { FastifyInstance } from 'fastify';
import type { Database } from '../database/pool.js';
import type { Supervisor } from '../plugins/supervisor.js';

const Word = Type.Union([Type.Literal('ok'), Type.Literal('error')]);
const Degraded = Type.Object({ plugin: Type.String(), missing: Type.Array(Type.String(), { description: 'Services that it requires' }) });
const Health = Type.Object({ status: Word, database: Word, degraded: Type.Optional(Type.Array(Degraded, { description: 'Plugins that run without all they require, when there are any' })) }, { description: 'The state of the system and of its database' });
const Alive = Type.Object({ status: Type.Literal('ok') }, { description: 'The kernel answers' });
const Readiness = Type.Object({ status: Type.Union([Type.Literal('ok'), Type.Literal('starting')]), database: Word }, { description: 'Whether requests are welcome' });

export interface HealthOptions {
  readonly database: Database;
  readonly supervisor: Pick<Supervisor, 'degraded'>;
  /** Whether the plugins of the boot have been dealt with. */
  readonly booted: () => boolean;
}

export function registerHealth(app: FastifyInstance, { database, supervisor, booted }: HealthOptions): void {
  const ping = (): Promise<'ok' | 'error'> => database.ping().then(() => 'ok', () => 'error');
  const tags = ['kernel'];

  app.get('/health', { schema: { tags, summary: 'The system and its database', response: { 200: Health, 503: Health } } }, async (_request, reply) => {
    const state = await ping();
    const { degraded } = supervisor;
    return reply.code(state === 'ok' ? 200 : 503).send({ status: state, database: state, ...(degraded.length > 0 && { degraded }) });
  });
  app.get('/health/live', { schema: { tags, summary: 'Is the kernel alive? Needs nothing else', response: { 200: Alive } } }, async () => ({ status: 'ok' }));
  app.get('/health/ready', { schema: { tags, summary: 'May traffic come? Plugins are booted and the database answers', response: { 200: Readiness, 503: Readiness } } }, async (_request, reply) => {
    const state = await ping();
    return reply.code(state === 'ok' && booted() ? 200 : 503).send({ status: booted() ? 'ok' : 'starting', database: state });
  });
}
