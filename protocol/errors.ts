// The error catalogue: what a client or an operator can be told, with its HTTP status and the sentence that says what to do. Must not know who throws.
import { ERROR_CAUSES_MAX, ERROR_MESSAGE_MAX_CHARACTERS, ERROR_NAME_MAX_CHARACTERS, ERROR_STACK_MAX_CHARACTERS, REQUEST_KILLS_MAX } from './limits.js';

interface CatalogueEntry<P> {
  /** HTTP status of the answer. */
  readonly status: number;
  /** Whether the same request may succeed a little later without anybody's doing. */
  readonly retryable: boolean;
  readonly message: (params: P) => string;
}

const entry = <P>(status: number, retryable: boolean, message: (params: P) => string): CatalogueEntry<P> => Object.freeze({ status, retryable, message });

type Named = { readonly name: string };
type Caused = Named & { readonly reason: string };

const list = (names: readonly string[]): string => (names.length === 0 ? 'none' : names.join(', '));

export const ERRORS = Object.freeze({
  PLUGIN_UNKNOWN: entry(404, false, (p: Named & { known: readonly string[] }) =>
    `There is no plugin "${p.name}". Known plugins: ${list(p.known)}. Put its folder into PLUGINS_DIR to make it known.`),
  PLUGIN_NAME_INVALID: entry(400, false, (p: Named & { reason: string }) =>
    `"${p.name}" cannot be the name of a plugin: ${p.reason}. Use a small letter, then small letters, digits, "_" or "-".`),
  PLUGIN_NOT_LOADED: entry(404, false, (p: Named) =>
    `Plugin "${p.name}" is known but not loaded. Load it with POST /plugins/load/${p.name}.`),
  PLUGIN_NOT_RUNNING: entry(503, true, (p: Named & { status: string }) =>
    `Plugin "${p.name}" is ${p.status} and takes no requests. ` +
    (p.status === 'restarting' ? 'Try again shortly.' : `Start it with POST /plugins/start/${p.name}.`)),
  PLUGIN_QUARANTINED: entry(503, false, (p: Caused) =>
    `Plugin "${p.name}" is quarantined: ${p.reason}. Mend the cause, then clear it with POST /plugins/start/${p.name}.`),
  PLUGIN_CRASHED: entry(502, false, (p: Caused) =>
    `Plugin "${p.name}" died while it handled this request (${p.reason}). Whether the request took effect is not known.`),
  PLUGIN_UNRESPONSIVE: entry(504, false, (p: Named & { silentMs: number }) =>
    `Plugin "${p.name}" was ended because its event loop stood still for ${p.silentMs} ms with this request begun. Whether it took effect is not known.`),
  REQUEST_REFUSED: entry(500, false, (p: Caused & { method: string; url: string; refusedMs: number }) =>
    `${p.method} ${p.url} has ended plugin "${p.name}" ${REQUEST_KILLS_MAX} times (${p.reason}) and is refused for ${p.refusedMs / 1_000} s.`),
  PLUGIN_OVERLOADED: entry(503, true, (p: Named & { concurrency: number; queue: number }) =>
    `Plugin "${p.name}" is busy with ${p.concurrency} requests and ${p.queue} more are waiting. Try again shortly.`),
  PLUGIN_TIMEOUT: entry(504, true, (p: Named & { timeoutMs: number }) =>
    `Plugin "${p.name}" did not answer within ${p.timeoutMs} ms.`),
  PLUGIN_BAD_ANSWER: entry(502, false, (p: Caused) =>
    `Plugin "${p.name}" gave an answer that cannot be sent: ${p.reason}.`),
  PLUGIN_HANDLER_FAILED: entry(500, false, (p: Caused & { method: string; url: string }) =>
    `Plugin "${p.name}" failed while it handled ${p.method} ${p.url}: ${p.reason}.`),
  PLUGIN_LOAD_FAILED: entry(422, false, (p: Caused) =>
    `Plugin "${p.name}" could not be loaded: ${p.reason}`),
  PLUGIN_START_FAILED: entry(422, false, (p: Caused) =>
    `Plugin "${p.name}" could not be started: ${p.reason}`),
  PLUGIN_CONFLICT: entry(409, false, (p: Caused) =>
    `Plugin "${p.name}": ${p.reason}`),
  ROUTE_UNKNOWN: entry(404, false, (p: { method: string; url: string }) =>
    `There is nothing at ${p.method} ${p.url}. See /docs for what there is.`),
  INTERCEPTOR_FAILED: entry(503, true, (p: Caused) =>
    `Plugin "${p.name}" must let this request pass and cannot: ${p.reason}.`),
  METHOD_NOT_ALLOWED: entry(405, false, (p: { method: string; url: string; allowed: string }) =>
    `${p.url} does not take ${p.method}; use ${p.allowed}.`),
  SERVICE_UNKNOWN: entry(500, false, (p: { service: string }) =>
    `No plugin has ever provided the service "${p.service}".`),
  SERVICE_UNAVAILABLE: entry(503, true, (p: { service: string; reason: string }) =>
    `The service "${p.service}" is not available: ${p.reason}.`),
  SERVICE_FORBIDDEN: entry(500, false, (p: Named & { service: string }) =>
    `Plugin "${p.name}" does not declare the service "${p.service}" in \`requires\` or \`optional\` and may not use it.`),
  SERVICE_ARGUMENTS_INVALID: entry(500, false, (p: { service: string; reason: string }) =>
    `The service "${p.service}" was called with arguments that its contract does not have: ${p.reason}.`),
  SERVICE_RESULT_INVALID: entry(500, false, (p: { service: string; reason: string }) =>
    `The service "${p.service}" gave a result that its contract does not have: ${p.reason}.`),
  DEPENDENCY_MISSING: entry(409, false, (p: Named & { services: readonly string[] }) =>
    `Plugin "${p.name}" needs services that are not there: ${p.services.join('; ')}. It starts by itself as soon as they are.`),
  DEPENDENCY_CYCLE: entry(409, false, (p: Named & { path: readonly string[] }) =>
    `Plugin "${p.name}" needs itself: ${p.path.join(' -> ')}. Make one of these services \`optional\`.`),
  EVENTS_TOO_MANY: entry(503, true, (p: { topic: string; perSecond: number }) =>
    `The event "${p.topic}" was not published: a plugin may publish ${p.perSecond} events per second.`),
  EVENT_TOO_LARGE: entry(500, false, (p: { topic: string; bytes: number; maxBytes: number }) =>
    `The event "${p.topic}" has ${p.bytes} bytes; at most ${p.maxBytes} are allowed. Send a reference instead of the data.`),
  EVENTS_BACKLOG: entry(503, true, (p: { topic: string; subscriber: string; waiting: number }) =>
    `The event "${p.topic}" was not published: ${p.waiting} events wait for its durable subscriber "${p.subscriber}" already. Start that plugin, or look into why it does not keep up.`),
  DATABASE_UNAVAILABLE: entry(503, true, (p: { reason: string }) =>
    `The database cannot be reached: ${p.reason}.`),
  DATABASE_BUSY: entry(503, true, (p: { reason: string }) =>
    `No connection to the database is free: ${p.reason}.`),
  DATABASE_SETUP_FAILED: entry(500, false, (p: Caused) =>
    `The database cannot be prepared for plugin "${p.name}": ${p.reason}.`),
  PLUGIN_MIGRATION_FAILED: entry(422, false, (p: Caused & { migration: string }) =>
    `Migration ${p.migration} of plugin "${p.name}" failed: ${p.reason}`),
  PAYLOAD_TOO_LARGE: entry(413, false, (p: Named & { limitBytes: number }) =>
    `The body is larger than the ${p.limitBytes} bytes that plugin "${p.name}" accepts.`),
  OPERATOR_UNAUTHORIZED: entry(401, false, (_: Record<never, never>) =>
    'This needs the operator token: send it as "Authorization: Bearer <OPERATOR_TOKEN>".'),
  OPERATOR_FORBIDDEN: entry(403, false, (p: { reason: string }) =>
    `Refused: ${p.reason}.`),
  KERNEL_ERROR: entry(500, false, (_: Record<never, never>) =>
    'The kernel failed to answer. The log has the cause under this requestId.'),
  KERNEL_STARTING: entry(503, true, (_: Record<never, never>) =>
    'The system is starting and not all plugins are there yet. Try again shortly; /health/ready says when it is done.'),
  KERNEL_UNAVAILABLE: entry(503, true, (p: { reason: string }) =>
    `The kernel cannot run: ${p.reason}. It is tried again by itself; the log has more.`),
  KERNEL_STOPPING: entry(503, true, (_: Record<never, never>) =>
    'The system is shutting down. Try again when it is back.'),
  CONFIG_INVALID: entry(500, false, (p: { problems: readonly string[] }) =>
    `The configuration is not valid:\n${p.problems.map((problem) => `  - ${problem}`).join('\n')}`),
});

export type ErrorCode = keyof typeof ERRORS;
export type ErrorParams<C extends ErrorCode> = Parameters<(typeof ERRORS)[C]['message']>[0];

/** An error of the catalogue. Thrown in a plugin's handler it becomes an answer with its status. */
export class BulkheadError<C extends ErrorCode = ErrorCode> extends Error {
  override readonly name = 'BulkheadError';
  readonly code: C;
  /** HTTP status, as Fastify reads it. */
  readonly statusCode: number;
  readonly retryable: boolean;
  /** Seconds until a retry makes sense, where somebody knows. */
  readonly retryAfterSeconds: number | undefined;

  constructor(code: C, params: ErrorParams<C>, options: { cause?: unknown; retryAfterSeconds?: number | undefined } = {}) {
    const { status, retryable, message } = ERRORS[code] as unknown as CatalogueEntry<ErrorParams<C>>;
    super(message(params), 'cause' in options ? { cause: options.cause } : undefined);
    this.code = code;
    this.statusCode = status;
    this.retryable = retryable;
    this.retryAfterSeconds = options.retryAfterSeconds;
  }
}

/** Carries the id of a request: what the client wishes it to be, and in every answer what it is. */
export const REQUEST_ID_HEADER = 'x-request-id';

/** The body of every error answer; Fastify's own shape with the request's id. */
export interface ErrorBody {
  readonly statusCode: number;
  readonly code: string;
  /** The status in words, as in RFC 9110. */
  readonly error: string;
  readonly message: string;
  readonly requestId: string;
}

/** An error as it crosses a thread: a posted `Error` would lose `code` and `statusCode`. */
export interface PlainError {
  readonly name: string;
  readonly message: string;
  readonly code?: string;
  readonly statusCode?: number;
  readonly stack?: string;
  /** What it was thrown because of, at most ERROR_CAUSES_MAX deep. */
  readonly cause?: PlainError;
}

/** Reads any thrown value, also `throw "text"` and `throw null`, up to the lengths in limits.ts; never throws itself. */
export function toPlainError(thrown: unknown): PlainError {
  try {
    return readError(thrown, ERROR_CAUSES_MAX);
  } catch {
    return { name: 'Error', message: UNREADABLE }; // a getter of it throws
  }
}

function readError(thrown: unknown, causes: number): PlainError {
  if (typeof thrown !== 'object' || thrown === null) return { name: 'Error', message: safeString(thrown).slice(0, ERROR_MESSAGE_MAX_CHARACTERS) };
  const source = thrown as Record<string, unknown>;
  return {
    name: typeof source['name'] === 'string' ? source['name'].slice(0, ERROR_NAME_MAX_CHARACTERS) : 'Error',
    message: (typeof source['message'] === 'string' ? source['message'] : safeString(thrown)).slice(0, ERROR_MESSAGE_MAX_CHARACTERS),
    ...(typeof source['code'] === 'string' && { code: source['code'].slice(0, ERROR_NAME_MAX_CHARACTERS) }),
    ...(typeof source['statusCode'] === 'number' && { statusCode: source['statusCode'] }),
    ...(typeof source['stack'] === 'string' && { stack: source['stack'].slice(0, ERROR_STACK_MAX_CHARACTERS) }),
    ...(causes > 0 && source['cause'] != null && { cause: readError(source['cause'], causes - 1) }),
  };
}

const UNREADABLE = 'a value that cannot be shown';

function safeString(value: unknown): string {
  try {
    return String(value);
  } catch {
    return UNREADABLE;
  }
}
