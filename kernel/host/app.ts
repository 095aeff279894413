// The plugin's own Fastify, set up so that its answers to errors look like everybody's. Must not know the transport.
import { randomUUID } from 'node:crypto';
import { STATUS_CODES } from 'node:http';
import fastify, { LogController, type FastifyReply, type FastifyRequest } from 'fastify';
import { BulkheadError, toPlainError, type ErrorBody, type PlainError } from '../../protocol/errors.js';
import { ROUTES_MAX_CHARACTERS } from '../../protocol/limits.js';
import type { PluginApp, RouteDescription } from '../../protocol/plugin.js';
import type { HostRequest } from './http-request.js';
import { isGivenUp } from './task.js';
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
    // A request of the plugin to itself, with `inject`, has passed no kernel.
    genReqId: (raw) => (raw as unknown as HostRequest).requestId ?? randomUUID(),
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: 'requestId' }),
    // Paths that its router refuses, which reach no hook and no error handler.
    frameworkErrors: (error, request, reply) => sendError(request, reply, Object.assign(error, { statusCode: error.statusCode ?? 400 })),
  });
  app.decorateRequest('mount', { getter(this: FastifyRequest) { return (this.raw as unknown as HostRequest).mount ?? ''; } });
  app.addHook('onRoute', (route) => {
    for (const method of [route.method].flat()) {
      // The documentation needs no twin of every GET.
      if (method !== 'HEAD' && (route.schema as { hide?: boolean } | undefined)?.hide !== true) routes.push({ method, url: route.url, schema: asData(route.schema) });
    }
  });
  app.setErrorHandler<unknown>((thrown, request, reply) => {
    // A plugin may throw anything, also nothing, or what throws again when it is looked at.
    const error = toPlainError(thrown);
    const { message } = error;
    const code = wasCutOff(error) ? 'DATABASE_UNAVAILABLE' : error.code;
    const err = thrown instanceof Error ? thrown : error;
    const { own, headers } = wishOf(thrown);
    // It was to fail so: nobody waits for the answer any more.
    const level = isGivenUp(thrown) && (request.raw as unknown as HostRequest).task?.cancelled === true ? 'debug' : 'error';
    void reply.headers(headers);
    const status = own ?? (isError(reply.statusCode) ? reply.statusCode : 500);
    // Who sets a status for a mistake of the client's, and then fails, means the words for the client too.
    if (own !== undefined || status < 500) {
      if (status >= 500) request.log[level]({ err }, 'the request failed');
      return sendError(request, reply, thrown instanceof BulkheadError ? thrown : { statusCode: status, code, message });
    }
    // Nobody chose this text for the client's eyes: it may hold SQL, paths or secrets. A developer wants to see it all the same.
    const reason = debug ? message : 'the log has the cause under this requestId';
    request.log[level]({ err }, `failed while handling ${request.method} ${request.originalUrl}`);
    const failure = new BulkheadError('PLUGIN_HANDLER_FAILED', { name: manifest.name, method: request.method, url: request.originalUrl, reason });
    return sendError(request, reply, { statusCode: status, code: failure.code, message: failure.message });
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
  // As Fastify's own: an error passes `onSend`, but neither `preSerialization` nor a serializer that was meant for another answer.
  void reply.code(error.statusCode).type('application/json; charset=utf-8').serializer(null as never);
  return reply.send(reply.serialize(body));
}

/** Whether the server has ended a statement because it ends itself (SQLSTATE 57P01 to 57P05); the plugin hears that in the server's words, its client in ours. */
const wasCutOff = ({ code, statusCode }: PlainError): boolean => statusCode === 503 && code?.startsWith('57P') === true;

const isError = (status: unknown): status is number => typeof status === 'number' && status >= 400 && status <= 599;

/** What an error says of its answer, as Fastify reads it. */
function wishOf(thrown: unknown): { readonly own: number | undefined; readonly headers: Record<string, string> } {
  try {
    const { statusCode, status, headers } = Object(thrown) as { statusCode?: unknown; status?: unknown; headers?: object };
    return { own: [statusCode, status].find(isError), headers: { ...headers } as Record<string, string> };
  } catch {
    return { own: undefined, headers: {} }; // a getter of it throws
  }
}

/** Schemas hold symbols and may hold functions; only what JSON can say leaves the worker. */
function asData(schema: unknown): Readonly<Record<string, unknown>> {
  return schema === undefined ? {} : (JSON.parse(JSON.stringify(schema)) as Record<string, unknown>);
}
