// What requests carry, in the sizes that the benchmark asks for: the same routes run in the kernel and in one Fastify beside it.
import { Readable } from 'node:stream';
import { Type } from '@sinclair/typebox';
import { definePlugin } from 'bulkhead/protocol';

const MIB = 2 ** 20;
/** Turns of a loop of dependent multiplications that take about 100 µs on a core of 2020. */
const WORK_TURNS = 75_000;
const EVENTS = 1_000;

const Order = Type.Object({
  customer: Type.String({ minLength: 1, maxLength: 100 }),
  email: Type.String({ pattern: '^[^@ ]+@[^@ ]+$' }),
  lines: Type.Array(Type.Object({ sku: Type.String({ maxLength: 40 }), count: Type.Integer({ minimum: 1 }), price: Type.Number({ minimum: 0 }), note: Type.Optional(Type.String()) }), { minItems: 1, maxItems: 100 }),
});
const Receipt = Type.Object({ lines: Type.Integer(), total: Type.Number() });
const Row = Type.Object({ id: Type.Integer(), name: Type.String(), tags: Type.Array(Type.String()), price: Type.Number(), sold: Type.Boolean() });

const ROWS = Array.from({ length: 100 }, (_, id) => ({ id, name: `a crate with the number ${id}`, tags: ['heavy', 'fragile'], price: id * 1.25, sold: id % 3 === 0 }));
const CRATE = Buffer.alloc(MIB, 'crate ');

export default definePlugin({
  name: 'freight',
  version: '1.0.0',
  limits: { bodyLimitBytes: 2 * MIB },
  async routes(app) {
    app.post('/order', { schema: { body: Order, response: { 200: Receipt } } }, async ({ body: { lines } }) =>
      ({ lines: lines.length, total: lines.reduce((sum, { count, price }) => sum + count * price, 0) }));
    app.get('/rows', { schema: { response: { 200: Type.Array(Row) } } }, async () => ROWS);
    app.get('/work', async () => ({ result: work() }));
    app.get('/crate', async (_request, reply) => reply.type('application/octet-stream').send(CRATE));
    app.get('/events', (_request, reply) => reply.type('text/event-stream').send(Readable.from(events())));
    app.addContentTypeParser('application/octet-stream', (_request, payload, done) => done(null, payload));
    app.post<{ Body: Readable }>('/crate', async ({ body }) => {
      let bytes = 0;
      for await (const chunk of body) bytes += (chunk as Buffer).byteLength;
      return { bytes };
    });
  },
});

function work(): number {
  let x = 1;
  for (let i = 0; i < WORK_TURNS; i += 1) x = (Math.imul(x, 1_664_525) + 1_013_904_223) | 0;
  return x;
}

function* events(): Generator<string> {
  for (let id = 1; id <= EVENTS; id += 1) yield `id: ${id}\ndata: {"position":${id}}\n\n`;
}
