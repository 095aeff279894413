// The kernel's Fastify: its own few routes, the way to the documentation, and the gateway for all the rest. Must not know plugins' code.
import { createServer as createHttpServer, type IncomingMessage, type Server, type ServerOptions as HttpServerOptions, type ServerResponse } from 'node:http';
import { Type } from '@sinclair/typebox';
import fastify, { LogController, type FastifyError, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import { BulkheadError, REQUEST_ID_HEADER } from '../../protocol/errors.js';
import { KEEP_ALIVE_TIMEOUT_MS, REQUEST_TIMEOUT_MS } from '../../protocol/limits.js';
import type { Database } from '../database/pool.js';
import { answerError, errorBody } from '../dispatch/answers.js';
import type { Supervisor } from '../plugins/supervisor.js';
import type { DurableEvents } from '../services/durable-events.js';
import { Arrivals } from './arrivals.js';
import { registerDeadLetters } from './dead-letters.js';
import { registerGateway, shortcut } from './gateway.js';
import { registerHealth } from './health.js';
import { registerOperator } from './operator.js';
import { requestIds, type IdOfRequest } from './request-id.js';
import { Upgrades } from './upgrades.js';

type ServerFactory = (answer: (req: IncomingMessage, res: ServerResponse) => void) => Server;

export interface ServerOptions {
  readonly appName: string;
  readonly version: string;
  readonly log: Logger;
  readonly database: Database;
  readonly supervisor: Supervisor;
  readonly durable: DurableEvents;
  readonly operatorToken: string | null;
  readonly booted: () => boolean;
}

/** Resolves when it can answer. It does not listen: connections come to it from elsewhere. */
export async function createServer(options: ServerOptions): Promise<FastifyInstance> {
  const idOf = requestIds();
  let closing = false;
  const arrivals = new Arrivals(options.supervisor);
  const take = shortcut(options.supervisor, arrivals);
  const upgrades = new Upgrades(options.supervisor, arrivals, idOf, () => closing);
  const app = bareServer(options.log, idOf, (answer) => {
    // Where Node knows the option it decides; elsewhere every request with the wish comes as an 'upgrade'.
    const server = createHttpServer({ shouldUpgradeCallback: (req: IncomingMessage) => upgrades.wanted(req) } as HttpServerOptions, (req, res) => {
      if (closing || !take(req, res, idOf)) answer(req, res);
    });
    upgrades.attach(server);
    // As Fastify sets up a server of its own.
    server.requestTimeout = REQUEST_TIMEOUT_MS;
    server.keepAliveTimeout = KEEP_ALIVE_TIMEOUT_MS;
    return server;
  });
  app.addHook('preClose', async () => { closing = true; });
  await registerOwnRoutes(app, options);
  registerDocs(app, async () => {
    const docs = bareServer(options.log, idOf);
    const { addDocs } = await import('./docs.js');
    await addDocs(docs, options, (own) => registerOwnRoutes(own, options));
    return docs;
  });
  registerGateway(app, options.supervisor, arrivals);
  await app.ready();
  return app;
}

/** A Fastify without routes that answers errors as the catalogue says. */
function bareServer(log: Logger, idOf: IdOfRequest, serverFactory: ServerFactory | undefined = undefined): FastifyInstance {
  const app = fastify({
    ...(serverFactory !== undefined && { serverFactory }),
    loggerInstance: log,
    genReqId: idOf,
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: 'requestId' }),
    requestTimeout: REQUEST_TIMEOUT_MS,
    routerOptions: { maxParamLength: 1_024 }, // so that a long name gets the answer for names
    // Paths that the router refuses, such as /%: they reach no error handler.
    frameworkErrors: (error, request, reply) => {
      const status = error.statusCode ?? 400;
      return (reply as FastifyReply).code(status).send(errorBody({ statusCode: status, code: error.code, message: error.message }, request.id));
    },
  }) as unknown as FastifyInstance;

  app.addHook('onRequest', async (request, reply) => void reply.header(REQUEST_ID_HEADER, request.id));
  app.setErrorHandler<FastifyError>((error, request, reply) => {
    const status = error.statusCode ?? 500;
    if (status >= 500 && !(error instanceof BulkheadError)) {
      request.log.error({ err: error }, 'the kernel failed to answer');
      return reply.code(500).send(errorBody(new BulkheadError('KERNEL_ERROR', {}), request.id));
    }
    if (error instanceof BulkheadError && error.retryAfterSeconds !== undefined) void reply.header('retry-after', error.retryAfterSeconds);
    if (status === 401) void reply.header('www-authenticate', 'Bearer');
    return reply.code(status).send(errorBody({ statusCode: status, code: error.code, message: error.message }, request.id));
  });

  app.setNotFoundHandler((request, reply) => reply.code(404).send(errorBody(new BulkheadError('ROUTE_UNKNOWN', { method: request.method, url: request.url }), request.id)));
  return app;
}

async function registerOwnRoutes(app: FastifyInstance, options: ServerOptions): Promise<void> {
  const Welcome = Type.Object({ name: Type.String(), version: Type.String(), docs: Type.String(), health: Type.String(), plugins: Type.String() });
  app.get('/', { schema: { tags: ['kernel'], summary: 'Where to go', response: { 200: Welcome } } }, async () =>
    ({ name: options.appName, version: options.version, docs: '/docs', health: '/health', plugins: '/plugins' }));
  registerHealth(app, options);
  await app.register(async (scope) => {
    await registerOperator(scope, { supervisor: options.supervisor, token: options.operatorToken });
    registerDeadLetters(scope, { durable: options.durable, token: options.operatorToken });
  });
}

/** The documentation is made when somebody first asks for it: it would take a third of the kernel's time to boot, and most kernels are never asked. */
function registerDocs(app: FastifyInstance, make: () => Promise<FastifyInstance>): void {
  let docs: Promise<FastifyInstance> | null = null;
  const onRequest = (request: FastifyRequest, reply: FastifyReply): void => {
    reply.hijack();
    docs ??= make();
    docs.then((made) => made.routing(request.raw, reply.raw), (error: unknown) => {
      docs = null;
      request.log.error({ err: error }, 'the documentation cannot be made');
      answerError(reply.raw, new BulkheadError('KERNEL_ERROR', {}), request.id);
    });
  };
  for (const url of ['/docs', '/docs/*', '/openapi.json']) {
    app.get(url, { onRequest }, () => {
      throw new Error('a hijacked request reached its handler');
    });
  }
  app.addHook('onClose', async () => (await docs?.catch(() => null))?.close());
}
