// The kernel's Fastify: its own few routes, the documentation, and the gateway for all the rest. Must not know plugins' code.
import { randomBytes } from 'node:crypto';
import { Type } from '@sinclair/typebox';
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import fastify, { LogController, type FastifyError, type FastifyInstance, type FastifyReply } from 'fastify';
import type { Logger } from 'pino';
import { BulkheadError } from '../../protocol/errors.js';
import { REQUEST_TIMEOUT_MS } from '../../protocol/limits.js';
import type { Database } from '../database/pool.js';
import { errorBody } from '../dispatch/answers.js';
import type { Supervisor } from '../plugins/supervisor.js';
import { registerGateway } from './gateway.js';
import { registerHealth } from './health.js';
import { LiveDocument, type Document } from './openapi.js';
import { registerOperator } from './operator.js';

export interface ServerOptions {
  readonly appName: string;
  readonly version: string;
  readonly log: Logger;
  readonly database: Database;
  readonly supervisor: Supervisor;
  readonly operatorToken: string | null;
  readonly booted: () => boolean;
}

/** Everything from this server, nothing from elsewhere; Swagger UI writes styles into its page. */
const DOCS_CSP = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'self'; frame-ancestors 'self'";

export async function createServer(options: ServerOptions): Promise<FastifyInstance> {
  const { supervisor } = options;
  const nextRequestId = requestIds();
  const app = fastify({
    loggerInstance: options.log,
    genReqId: nextRequestId,
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: 'requestId' }),
    requestTimeout: REQUEST_TIMEOUT_MS,
    routerOptions: { maxParamLength: 1_024 }, // so that a long name gets the answer for names
    // Paths that the router refuses, such as /%: they reach no error handler.
    frameworkErrors: (error, request, reply) => {
      const status = error.statusCode ?? 400;
      return (reply as FastifyReply).code(status).send(errorBody({ statusCode: status, code: error.code, message: error.message }, request.id));
    },
  }) as unknown as FastifyInstance;

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

  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: options.appName, version: options.version, description: 'The kernel and its plugins. Plugins come and go with their worker threads; so do their routes here.' },
      tags: [{ name: 'kernel', description: 'Health and the operator\'s verbs' }],
      ...(options.operatorToken !== null && { components: { securitySchemes: { operator: { type: 'http', scheme: 'bearer' } } } }),
    },
  });
  const live = new LiveDocument(supervisor);
  const document = (): Document => live.get(app.swagger() as Document);
  await app.register(swaggerUi, { routePrefix: '/docs', staticCSP: DOCS_CSP, transformSpecification: document, transformSpecificationClone: false });
  app.get('/openapi.json', { schema: { hide: true } }, async () => document());

  const Welcome = Type.Object({ name: Type.String(), version: Type.String(), docs: Type.String(), health: Type.String(), plugins: Type.String() });
  app.get('/', { schema: { tags: ['kernel'], summary: 'Where to go', response: { 200: Welcome } } }, async () =>
    ({ name: options.appName, version: options.version, docs: '/docs', health: '/health', plugins: '/plugins' }));
  registerHealth(app, options);
  await app.register((scope) => registerOperator(scope, { supervisor, token: options.operatorToken }));
  registerGateway(app, supervisor);
  return app;
}

/** Unique over restarts of the kernel, and cheap: this runs once per request. */
function requestIds(): () => string {
  const prefix = randomBytes(6).toString('base64url');
  let count = 0;
  return () => `${prefix}-${(count += 1).toString(36)}`;
}
