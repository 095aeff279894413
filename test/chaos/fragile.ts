// A plugin that serves and stores like any other, and ends its own worker on request in every way there is. Bundled into plugins of several names.
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { definePlugin, type PluginDefinition } from 'bulkhead/protocol';

export const FAULTS = ['exit', 'loop', 'throw', 'rejection', 'buffers', 'heap'] as const;
export type Fault = (typeof FAULTS)[number];

export interface FragileOptions {
  readonly name: string;
  /** Another one, whose service this one calls. */
  readonly peer: string;
  /** Another heap than the default means that no standby worker fits. */
  readonly heapMb: number;
}

const hoard: unknown[] = [];

/** Each as it happens in life: some at once, in the handler that began it, some a few turns of the event loop later. */
const COMMIT: Readonly<Record<Fault, () => void>> = {
  exit: () => process.exit(3),
  loop: () => { for (;;); },
  throw: () => { setTimeout(() => { throw new Error('thrown in a timer'); }, 5); },
  rejection: () => { void Promise.reject(new Error('rejected and forgotten')); },
  buffers: () => {
    hoard.push(Buffer.alloc(8 * 2 ** 20, 1));
    setTimeout(COMMIT.buffers, 5);
  },
  heap: () => {
    for (let i = 0; i < 20; i += 1) hoard.push(Array.from({ length: 10_000 }, (_, n) => ({ n })));
    setTimeout(COMMIT.heap, 5);
  },
};

const forever = new Promise<never>(() => {});

declare module 'bulkhead/protocol' {
  interface ServiceMap { 'fragile.echo': { echo(text: string): string } }
}

/** The byte that a download has at this place. */
export const byteAt = (place: number): number => place % 251;

export function fragile({ name, peer, heapMb }: FragileOptions): PluginDefinition {
  const peerEcho = `${peer}.echo` as 'fragile.echo';
  return definePlugin({
    name,
    version: '1.0.0',
    // Little memory besides the heap, so that hoarded Buffers do not take the machine along.
    limits: { heapMb, memoryMb: heapMb + 96 },
    optional: [peerEcho],
    services: { [`${name}.echo`]: { echo: (text: string) => text } },
    routes(app, { db, services }) {
      const others = services.get(peerEcho);
      app.addContentTypeParser('application/octet-stream', (_request, payload, done) => done(null, payload));

      app.get<{ Params: { key: string } }>('/echo/:key', async ({ params }) => ({ key: params.key }));
      app.get<{ Params: { key: string }; Querystring: { ms: string } }>('/slow/:key', async ({ params, query }) => {
        await sleep(Number(query.ms));
        return { key: params.key };
      });
      app.get<{ Params: { key: string } }>('/relay/:key', async ({ params }) => ({ key: await others.echo(params.key) }));

      app.post<{ Params: { key: string }; Querystring: { ms: string } }>('/rows/:key', async ({ params, query }, reply) => {
        await db.query('INSERT INTO chaos_rows (plugin, key) VALUES ($1, $2)', [name, params.key]);
        // Between the write and its answer a death does most harm.
        await sleep(Number(query.ms));
        return reply.code(201).send({ key: params.key });
      });
      app.post<{ Params: { key: string } }>('/transactions/:key', async ({ params }, reply) => {
        const client = await db.connect();
        try {
          await client.query('BEGIN');
          await client.query('INSERT INTO chaos_rows (plugin, key) VALUES ($1, $2)', [name, params.key]);
          await client.query('SELECT pg_sleep(0.02)');
          await client.query('COMMIT');
        } finally {
          client.release();
        }
        return reply.code(201).send({ key: params.key });
      });
      app.post<{ Params: { key: string } }>('/uploads/:key', async ({ params, body }, reply) => {
        let bytes = 0;
        for await (const chunk of body as Readable) bytes += (chunk as Buffer).byteLength;
        await db.query('INSERT INTO chaos_rows (plugin, key, bytes) VALUES ($1, $2, $3)', [name, params.key, bytes]);
        return reply.code(201).send({ key: params.key, bytes });
      });
      app.get<{ Params: { bytes: string } }>('/downloads/:bytes', async ({ params }, reply) =>
        reply.type('application/octet-stream').send(Readable.from(pieces(Number(params.bytes)), { objectMode: false })));

      app.put<{ Params: { key: string; value: string } }>('/registers/:key/:value', async ({ params }) => {
        await db.query('INSERT INTO chaos_registers (plugin, key, value) VALUES ($1, $2, $3) ON CONFLICT (plugin, key) DO UPDATE SET value = excluded.value', [name, params.key, Number(params.value)]);
        return { key: params.key };
      });
      app.get<{ Params: { key: string } }>('/registers/:key', async ({ params }) => {
        const { rows } = await db.query<{ value: number }>('SELECT value FROM chaos_registers WHERE plugin = $1 AND key = $2', [name, params.key]);
        return { key: params.key, value: rows[0]?.value ?? null };
      });
      app.delete<{ Params: { key: string } }>('/registers/:key', async ({ params }) => {
        await db.query('DELETE FROM chaos_registers WHERE plugin = $1 AND key = $2', [name, params.key]);
        return { key: params.key };
      });

      app.route<{ Params: { fault: Fault } }>({ method: ['GET', 'POST'], url: '/poison/:fault', handler: async ({ params }) => {
        COMMIT[params.fault]();
        return forever;
      } });
      app.post<{ Params: { fault: Fault }; Querystring: { ms: string } }>('/later/:fault', async ({ params, query }) => {
        setTimeout(() => COMMIT[params.fault](), Number(query.ms));
        return { fault: params.fault };
      });
    },
  });
}

async function* pieces(bytes: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes; at += 16_384) {
    yield Buffer.from(Array.from({ length: Math.min(16_384, bytes - at) }, (_, i) => byteAt(at + i)));
    await sleep(1);
  }
}
