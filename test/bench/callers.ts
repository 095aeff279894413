// What somebody would use instead of a service, each with its provider in a thread of its own: comlink over a MessagePort, and HTTP on loopback. Must not know what measures it.
import { MessageChannel, Worker, type MessagePort } from 'node:worker_threads';
import { expose, wrap } from 'comlink';
// @ts-expect-error comlink ships its adapter for Node without types.
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs';
import fastify, { type FastifyInstance } from 'fastify';
import { Agent, request as ask } from 'node:http';
import { drive, type DriveQuery } from './drive.js';

type Add = (a: number, b: number) => Promise<number>;

/** What a provider's thread is started with. */
export type ProviderData = { readonly adder: MessagePort } | { readonly adder: 'http' };

export function isProvider(data: unknown): data is ProviderData {
  return typeof data === 'object' && data !== null && 'adder' in data;
}

/** In the thread of the provider; tells the port that it listens on, if it does. */
export async function provide({ adder }: ProviderData, tell: (port: number) => void): Promise<void> {
  if (adder !== 'http') return expose((a: number, b: number) => a + b, nodeEndpoint(adder));
  const app = fastify();
  app.post('/add', async ({ body }) => { const [a, b] = body as [number, number]; return a + b; });
  tell(Number(new URL(await app.listen({ host: '127.0.0.1', port: 0 })).port));
}

/** `self` is the file whose thread provides. */
export async function comlinkCaller(self: string): Promise<FastifyInstance> {
  const { port1, port2 } = new MessageChannel();
  new Worker(self, { workerData: { adder: port2 } satisfies ProviderData, transferList: [port2] });
  return driver(wrap<Add>(nodeEndpoint(port1)) as unknown as Add);
}

export async function httpCaller(self: string): Promise<FastifyInstance> {
  const worker = new Worker(self, { workerData: { adder: 'http' } satisfies ProviderData });
  const port = await new Promise<number>((resolve) => worker.once('message', resolve));
  const agent = new Agent({ keepAlive: true });
  return driver((a, b) => new Promise((resolve, reject) => {
    const body = JSON.stringify([a, b]);
    ask({ host: '127.0.0.1', port, path: '/add', method: 'POST', agent, headers: { 'content-type': 'application/json', 'content-length': body.length } }, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (chunk: string) => (text += chunk)).once('end', () => resolve(Number(text)));
    }).once('error', reject).end(body);
  }));
}

function driver(add: Add): FastifyInstance {
  const app = fastify();
  app.get<{ Querystring: DriveQuery }>('/drive', ({ query }) => drive(add, Number(query.outstanding), Number(query.ms)));
  return app;
}
