// From a raw request to the plugin that owns its path, past all body parsing. Must not know what plugins answer.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type {} from '@fastify/swagger';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { BulkheadError } from '../../protocol/errors.js';
import { answerError } from '../dispatch/answers.js';
import { Exchange } from '../dispatch/exchange.js';
import type { Target } from '../dispatch/open-request.js';
import { inspect } from '../intercept/inspection.js';
import type { Destination } from '../intercept/interceptors.js';
import type { Lifecycle } from '../plugins/lifecycle.js';
import type { Mounted } from '../plugins/mounts.js';
import type { Supervisor } from '../plugins/supervisor.js';
import type { Arrivals } from './arrivals.js';
import type { IdOfRequest } from './request-id.js';

/** Takes a request before the kernel's Fastify sees it, when a plugin has its path; false when none has. No path of the kernel's own can be a plugin's. */
export type Shortcut = (req: IncomingMessage, res: ServerResponse, idOf: IdOfRequest) => boolean;

export function shortcut(supervisor: Supervisor, arrivals: Arrivals): Shortcut {
  return (req, res, idOf) => {
    const mounted = arrivals.now(pathOf(req));
    if (mounted === undefined) return false;
    admit(supervisor, mounted, req, res, idOf(req));
    return true;
  };
}

/** Registers the kernel's one catch-all route, for paths that no plugin has, or none has yet. */
export function registerGateway(app: FastifyInstance, supervisor: Supervisor, arrivals: Arrivals): void {
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
  const path = pathOf(raw);
  const mounted = arrivals.now(path) ?? (await arrivals.of(path));
  if (mounted === undefined) return answerError(reply.raw, absence(supervisor, raw.method ?? 'GET', path), id);
  admit(supervisor, mounted, raw, reply.raw, id);
}

function admit({ interceptors }: Supervisor, mounted: Mounted<Lifecycle>, req: IncomingMessage, res: ServerResponse, requestId: string): void {
  const { owner } = mounted;
  const passage = interceptors.none ? null : interceptors.of(destinationOf(mounted, req));
  const exchange = new Exchange(req, res, requestId, targetOf(mounted, req), passage);
  const enter = (): void => {
    const prepared = exchange.prepare();
    const admitted = (): void => { if (!exchange.over) owner.gate.admit(exchange); };
    if (prepared === null) admitted();
    else void prepared.then(admitted);
  };
  if (passage === null || passage.requests.length === 0) enter();
  else void inspect(exchange, passage, owner.record.limits.timeoutMs).then((passes) => { if (passes) enter(); });
}

export function destinationOf({ owner: { record }, prefix }: Mounted<Lifecycle>, req: IncomingMessage): Destination {
  return { plugin: record.name, mounts: record.mounts, mount: prefix, path: pathOf(req), method: req.method ?? 'GET' };
}

export function targetOf({ owner: { record }, prefix }: Mounted<Lifecycle>, req: IncomingMessage): Target {
  const below = originOf(req).slice(prefix.length);
  return { plugin: record.name, mount: prefix, url: below.startsWith('/') ? below : `/${below}`, bodyLimitBytes: record.limits.bodyLimitBytes };
}

/** Path and query. A client may write the whole URL, as to a proxy. */
function originOf({ url = '/' }: IncomingMessage): string {
  return url.startsWith('/') ? url : url.replace(/^https?:\/\/[^/]*/, '');
}

export function pathOf(req: IncomingMessage): string {
  const target = originOf(req);
  const query = target.indexOf('?');
  return query === -1 ? target : target.slice(0, query);
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
