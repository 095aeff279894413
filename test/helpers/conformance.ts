// The same plugin in a plain Fastify and in a kernel, the same bytes to both, and what may differ between their answers.
import { createHash } from 'node:crypto';
import type { DurableEvents } from '../../kernel/services/durable-events.js';
import type { AddressInfo } from 'node:net';
import fastify, { type FastifyInstance } from 'fastify';
import type { Test } from 'tap';
import type { PluginApp, PluginContext } from 'bulkhead/protocol';
import type * as PoolModule from '../../kernel/database/pool.js';
import type * as ServerModule from '../../kernel/http/server.js';
import type * as LoggerModule from '../../kernel/logger.js';
import conform from '../fixtures/plugins/conform/plugin.js';
import { built, startTestKernel, type TestKernel } from './kernel.js';
import { RawConnection, type RawAnswer } from './raw-http.js';

export const MOUNT = '/plugins/conform';
/** Longer bodies are shown by their hash. */
const SHOWN_BYTES = 4_096;

/**
 * Headers that are not compared. `date` changes between the two; the kernel names every request with `x-request-id`, a plain Fastify does not.
 * `connection` and `keep-alive` are the same, and are compared.
 */
const HEADERS_THAT_DIFFER: ReadonlySet<string> = new Set(['date', 'x-request-id']);

/**
 * What differs in the answer to an error, by design: all errors of a kernel have `code` and `requestId`, a 404 has the whole path, a 413 the plugin's limit,
 * and a 500 does not show what was thrown (see createApp in kernel/host/app.ts and errors.ts of the protocol). So the body of an error that is no answer of the plugin's own
 * is compared by its `statusCode` and `error`, and for other statuses by its `message`.
 */
const MESSAGES_THAT_DIFFER: ReadonlySet<number> = new Set([404, 413, 500]);

export interface Expected {
  readonly status: number;
  /** The answer is Fastify's own to an error; with 'status' it is compared by that alone. */
  readonly error?: boolean | 'status';
  /** Headers that may differ in this case only, or `trailers`, `interim` answers, or the `reason` beside the status. */
  readonly except?: readonly string[];
  /** The connection ends before the body does. */
  readonly cut?: boolean;
  /** Further checks of the kernel's answer. */
  readonly then?: (answer: RawAnswer, t: Test) => void;
}

export interface Pair {
  readonly plainUrl: string;
  readonly kernel: TestKernel;
  /** A subtest: both answer the request with the same, which is what is expected. */
  same(t: Test, sentence: string, request: Uint8Array, expected: Expected): Promise<unknown>;
}

/** Both servers; they end with the test. */
export async function startPair(t: Test, { trustProxy = false, environment = {} }: { trustProxy?: boolean | string[]; environment?: Record<string, string> } = {}): Promise<Pair> {
  const plainUrl = await startPlain(t, trustProxy);
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'conform', ...environment });
  return {
    plainUrl, kernel,
    same: (t, sentence, request, expected) => t.test(sentence, async (t) => {
      const [plain, ours] = await Promise.all([ask(plainUrl, request), ask(kernel.url, request)]);
      t.equal(plain.status, expected.status, 'the plain Fastify answers as expected');
      t.strictSame(comparable(ours, expected), comparable(plain, expected), 'and so does the kernel');
      t.equal(ours.complete, expected.cut !== true);
      expected.then?.(ours, t);
    }),
  };
}

async function startPlain(t: Test, trustProxy: boolean | string[]): Promise<string> {
  let requests = 0;
  const app = fastify({
    trustProxy,
    bodyLimit: conform.limits!.bodyLimitBytes!,
    genReqId: ({ headers }) => String(headers['x-request-id'] ?? `plain-${(requests += 1)}`),
  });
  app.decorateRequest('mount', MOUNT);
  await app.register(async (scope) => conform.routes!(scope as unknown as PluginApp, {} as PluginContext), { prefix: MOUNT });
  await app.listen({ host: '127.0.0.1', port: 0 });
  t.teardown(() => {
    app.server.closeAllConnections();
    return app.close();
  });
  return `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`;
}

/** One request on a connection of its own. */
export async function ask(url: string, request: Uint8Array): Promise<RawAnswer> {
  const connection = await RawConnection.open(url);
  try {
    connection.write(request);
    return await connection.answer(methodOf(request));
  } finally {
    connection.destroy();
  }
}

function methodOf(request: Uint8Array): string {
  return Buffer.from(request.subarray(0, 32)).toString('latin1').split(' ')[0]!;
}

export function comparable(answer: RawAnswer, expected: Partial<Expected> = {}): object {
  const { version, status, reason, headers, body, trailers, interim, complete } = answer;
  const { error = false, except = [] } = expected;
  if (error === 'status') return { version, status, reason, complete };
  const names: Record<string, string[]> = {};
  for (const [name, value] of headers) {
    const key = name.toLowerCase();
    const differs = HEADERS_THAT_DIFFER.has(key) || except.includes(key) || (error === true && key === 'content-length');
    if (!differs) (names[key] ??= []).push(value);
  }
  return {
    version, status, complete, headers: names, body: error ? errorOf(status, body) : shown(body),
    ...(!except.includes('reason') && { reason }), ...(!except.includes('trailers') && { trailers }), ...(!except.includes('interim') && { interim }),
  };
}

function errorOf(status: number, body: Buffer): object {
  const text = body.toString();
  if (text === '') return {};
  const { statusCode, error, message } = JSON.parse(text) as { statusCode: number; error: string; message: string };
  return { statusCode, error, ...(!MESSAGES_THAT_DIFFER.has(status) && { message }) };
}

function shown(body: Buffer): string {
  return body.byteLength <= SHOWN_BYTES ? body.toString('latin1') : `${body.byteLength} bytes, ${createHash('sha256').update(body).digest('hex')}`;
}

/** A server as the kernel makes its own, which does not listen. */
export async function startServer(t: Test, { kernel, databaseUrl }: TestKernel): Promise<FastifyInstance> {
  const [{ createServer }, { createDatabase }, { createLogger }] = await Promise.all([
    built<typeof ServerModule>('http/server.js'), built<typeof PoolModule>('database/pool.js'), built<typeof LoggerModule>('logger.js'),
  ]);
  const { log } = createLogger('silent', { write: () => {} });
  const database = createDatabase({ url: databaseUrl, poolMax: 1, applicationName: 'conformance', log });
  const server = await createServer({ appName: 'conformance', version: '0.0.0', log, database, supervisor: kernel.supervisor, durable: {} as DurableEvents, operatorToken: null, booted: () => true });
  t.teardown(async () => {
    await server.close();
    await database.close();
  });
  return server;
}
