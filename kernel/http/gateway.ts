// From a raw request to the plugin that owns its path, past all body parsing. Must not know what plugins answer.
import type {} from '@fastify/swagger';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { BulkheadError } from '../../protocol/errors.js';
import { answerError } from '../dispatch/answers.js';
import { Exchange } from '../dispatch/exchange.js';
import type { Supervisor } from '../plugins/supervisor.js';
import { Arrivals } from './arrivals.js';

/** Registers the kernel's one catch-all route; routes of the kernel's own are more specific and win. */
export function registerGateway(app: FastifyInstance, supervisor: Supervisor): void {
  const arrivals = new Arrivals(supervisor);
  const handle = (request: FastifyRequest, reply: FastifyReply): void => {
    // From here on Fastify has nothing to do with the request: its body goes to the plugin unread.
    reply.hijack();
    void forward(supervisor, arrivals, request, reply);
  };
  app.route({
    method: app.supportedMethods,
    url: '/*',
    schema: { hide: true }, // from the documentation, which shows the plugins' own routes
    onRequest: handle,
    handler: () => {
      throw new Error('a hijacked request reached its handler');
    },
  });
}

async function forward(supervisor: Supervisor, arrivals: Arrivals, { raw, id }: FastifyRequest, reply: FastifyReply): Promise<void> {
  const url = raw.url ?? '/';
  const query = url.indexOf('?');
  const path = query === -1 ? url : url.slice(0, query);
  const mounted = supervisor.mounts.resolve(path) ?? (await arrivals.of(path));
  if (mounted === undefined) return answerError(reply.raw, absence(supervisor, raw.method ?? 'GET', path), id);

  const { owner, prefix } = mounted;
  const below = url.slice(prefix.length);
  const exchange = new Exchange(raw, reply.raw, id, {
    plugin: owner.record.name,
    mount: prefix,
    url: below.startsWith('/') ? below : `/${below}`,
    bodyLimitBytes: owner.record.limits.bodyLimitBytes,
  });
  await exchange.prepare();
  if (!exchange.over) owner.gate.admit(exchange);
}

function absence(supervisor: Supervisor, method: string, path: string): BulkheadError {
  const name = /^\/plugins\/([^/]+)/.exec(path)?.[1];
  if (!supervisor.booted) return new BulkheadError('KERNEL_STARTING', {}, { retryAfterSeconds: 1 });
  // A mounted plugin whose name comes encoded is there, but not under that path.
  if (name === undefined || supervisor.mounts.owner(`/plugins/${decoded(name)}`) !== undefined) return new BulkheadError('ROUTE_UNKNOWN', { method, url: path });
  return supervisor.explainAbsence(decoded(name));
}

/** For the message only: what cannot be decoded is shown as it came. */
function decoded(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}
