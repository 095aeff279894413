// The plugin's own Fastify, set up so that its answers to errors look like everybody's. Must not know the transport.
import { STATUS_CODES } from 'node:http';
import fastify, { LogController, type FastifyReply, type FastifyRequest } from 'fastify';
import { BulkheadError, toPlainError, type ErrorBody } from '../../protocol/errors.js';
import { ROUTES_MAX_CHARACTERS } from '../../protocol/limits.js';
import type { PluginApp, RouteDescription } from '../../protocol/plugin.js';
import type { HostRequest } from './http-request.js';
import type { Tenancy } from './tenancy.js';

export interface HostApp {
  readonly app: PluginApp;
  /** Filled while routes are registered. */
  readonly routes: readonly RouteDescription[];
}

/** Resolves when the plugin's routes can be asked. With `debug`, clients see the text of unexpected errors. */
export async function createApp({ definition, manifest, context, log, order: { debug, trustProxy } }: Tenancy): Promise<HostApp> {
  const routes: RouteDescription[] = [];
  const app = fastify({
    loggerInstance: log,
    trustProxy: trustProxy as boolean | string[],
    bodyLimit: manifest.limits.bodyLimitBytes,
    genReqId: (raw) => (raw as unknown as HostRequest).requestId,
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: 'requestId' }),
    // Paths that its router refuses, which reach no hook and no error handler.
    frameworkErrors: (error, request, reply) => sendError(request, reply, Object.assign(error, { statusCode: error.statusCode ?? 400 })),
  });
  app.decorateRequest('mount', { getter(this: FastifyRequest) { return (this.raw as unknown as HostRequest).mount; } });
  app.addHook('onRoute', (route) => {
    for (const method of [route.method].flat()) {
      // The documentation needs no twin of every GET.
      if (method !== 'HEAD' && (route.schema as { hide?: boolean } | undefined)?.hide !== true) routes.push({ method, url: route.url, schema: asData(route.schema) });
    }
  });
  app.setErrorHandler<unknown>((thrown, request, reply) => {
    // A plugin may throw anything, also nothing, or what throws again when it is looked at.
    const error = toPlainError(thrown);
    const { statusCode: status = 0, code, message } = error;
    const err = thrown instanceof Error ? thrown : error;
    if (status >= 400 && status <= 599) {
      if (status >= 500) request.log.error({ err }, 'the request failed');
      return sendError(request, reply, thrown instanceof BulkheadError ? thrown : { statusCode: status, code, message });
    }
    // Nobody chose this text for the client's eyes: it may hold SQL, paths or secrets. A developer wants to see it all the same.
    const reason = debug ? message : 'the log has the cause under this requestId';
    request.log.error({ err }, `failed while handling ${request.method} ${request.originalUrl}`);
    return sendError(request, reply, new BulkheadError('PLUGIN_HANDLER_FAILED', { name: manifest.name, method: request.method, url: request.originalUrl, reason }));
  });
  await app.register(async (scope) => {
    await definition.routes?.(scope as unknown as PluginApp, context);
    answerUnknownRoutes(scope as unknown as PluginApp);
  });
  await app.ready();
  const { length } = JSON.stringify(routes);
  if (length > ROUTES_MAX_CHARACTERS) throw new RangeError(`the schemas of its routes have ${length} characters, and ${ROUTES_MAX_CHARACTERS} are allowed`);
  return { app: app as unknown as PluginApp, routes };
}

/** Called in the plugin's own scope, so that its hooks see these requests too. Leaves a handler of the plugin's own in place. */
function answerUnknownRoutes(scope: PluginApp): void {
  try {
    scope.setNotFoundHandler((request, reply) => {
      void sendError(request, reply, new BulkheadError('ROUTE_UNKNOWN', { method: request.method, url: request.originalUrl }));
    });
  } catch {
    // Fastify takes one handler per prefix; the plugin has set it.
  }
}

function sendError(request: FastifyRequest, reply: FastifyReply, error: { statusCode: number; code: string | undefined; message: string }): FastifyReply {
  if (error instanceof BulkheadError && error.retryAfterSeconds !== undefined) void reply.header('retry-after', error.retryAfterSeconds);
  const words = STATUS_CODES[error.statusCode] ?? 'Error';
  const body: ErrorBody = { statusCode: error.statusCode, code: error.code ?? `HTTP_${error.statusCode}`, error: words, message: error.message, requestId: request.id };
  return reply.code(error.statusCode).send(body);
}

/** Schemas hold symbols and may hold functions; only what JSON can say leaves the worker. */
function asData(schema: unknown): Readonly<Record<string, unknown>> {
  return schema === undefined ? {} : (JSON.parse(JSON.stringify(schema)) as Record<string, unknown>);
}
