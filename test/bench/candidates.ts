// What the kernel is measured against: one Fastify with the same plugins, and what somebody would build who wants isolation without a kernel. Runs in a child process.
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { parentPort, Worker, workerData } from 'node:worker_threads';
import httpProxy from '@fastify/http-proxy';
import fastify, { type FastifyInstance } from 'fastify';
import pg from 'pg';
import { Piscina } from 'piscina';
import type { PluginApp, PluginContext } from 'bulkhead/protocol';
import hello from '../../plugins/hello/plugin.js';
import items from '../../plugins/items/plugin.js';
import freight from './plugins/freight/plugin.js';
import slow from './plugins/slow/plugin.js';
import { comlinkCaller, httpCaller, isProvider, provide } from './callers.js';
import { CALLERS, NAIVE, startCandidate } from './servers.js';

const HELLO = '/plugins/hello';
const SELF = fileURLToPath(import.meta.url);
/** Tells a worker of this file that it answers each message. */
const ANSWERS = 'answers';

interface Question { readonly id: number; readonly method: string; readonly url: string; readonly headers: Record<string, string> }
interface Reply { readonly id: number; readonly statusCode: number; readonly headers: Record<string, string>; readonly payload: string }

/** The plugins' own routes in one Fastify, with a pool of the size that items has. */
async function inProcess(databaseUrl: string): Promise<FastifyInstance> {
  const db = new pg.Pool({ connectionString: databaseUrl, max: items.limits!.connections!, options: '-c search_path=plugin_items' });
  const context = { db } as unknown as PluginContext;
  const plugins = [[HELLO, hello], ['/plugins/freight', freight], ['/plugins/slow', slow], ...(databaseUrl === '' ? [] : [['/items', items] as const])] as const;
  const app = fastify({ bodyLimit: 2 ** 21 });
  app.decorateRequest('mount', '/items');
  for (const [prefix, plugin] of plugins) {
    if (typeof plugin.services === 'function') plugin.services(context);
    await plugin.init?.(context);
    await app.register(async (scope) => plugin.routes?.(scope as unknown as PluginApp, context), { prefix });
  }
  return app;
}

/** A Fastify that passes every request on by `ask`. */
function front(ask: (question: Question) => Promise<Reply>): FastifyInstance {
  let id = 0;
  const app = fastify();
  app.all(`${HELLO}/*`, async ({ method, url, headers }, reply) => {
    const { statusCode, headers: theirs, payload } = await ask({ id: (id += 1), method, url: url.slice(HELLO.length), headers: headers as Record<string, string> });
    return reply.code(statusCode).headers(theirs).send(payload);
  });
  return app;
}

function perMessage(): FastifyInstance {
  const worker = new Worker(SELF, { workerData: ANSWERS });
  const waiting = new Map<number, (reply: Reply) => void>();
  worker.on('message', (reply: Reply) => {
    waiting.get(reply.id)!(reply);
    waiting.delete(reply.id);
  });
  return front((question) => new Promise((resolve) => {
    waiting.set(question.id, resolve);
    worker.postMessage(question);
  }));
}

function perTask(): FastifyInstance {
  const pool = new Piscina<Question, Reply>({ filename: SELF, maxThreads: 1, concurrentTasksPerWorker: 64 });
  return front((question) => pool.run(question));
}

async function behindProxy(): Promise<FastifyInstance> {
  const { url } = await startCandidate('in-process', '');
  const app = fastify();
  await app.register(httpProxy, { upstream: url, prefix: HELLO, rewritePrefix: HELLO });
  return app;
}

/** The other side of `front`: one route, asked without a socket. Also Piscina's task. */
export default async function answer({ id, method, url, headers }: Question): Promise<Reply> {
  const app = await (asked ??= plugin());
  const { statusCode, headers: theirs, payload } = await app.inject({ method: method as 'GET', url, headers });
  return { id, statusCode, headers: theirs as Record<string, string>, payload };
}

let asked: Promise<FastifyInstance> | null = null;

async function plugin(): Promise<FastifyInstance> {
  const app = fastify();
  await app.register(async (scope) => hello.routes?.(scope as unknown as PluginApp, {} as PluginContext));
  return app;
}

async function serve(role: string, databaseUrl: string): Promise<void> {
  const starts: Readonly<Record<string, () => FastifyInstance | Promise<FastifyInstance>>> = {
    [NAIVE[0]]: perMessage, [NAIVE[1]]: perTask, [NAIVE[2]]: behindProxy, [CALLERS[0]]: () => comlinkCaller(SELF), [CALLERS[1]]: () => httpCaller(SELF), 'in-process': () => inProcess(databaseUrl),
  };
  const app = await starts[role]!();
  await app.listen({ host: '127.0.0.1', port: 0 });
  process.send!(`http://127.0.0.1:${(app.server.address() as AddressInfo).port}`);
  process.once('disconnect', () => process.exit());
}

if (workerData === ANSWERS) parentPort!.on('message', (question: Question) => void answer(question).then((reply) => parentPort!.postMessage(reply)));
else if (isProvider(workerData)) await provide(workerData, (port) => parentPort!.postMessage(port));
else if (process.argv[2] === 'serve') await serve(process.argv[3]!, process.argv[4]!);
