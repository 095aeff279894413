// Dies and hangs on request, for the recovery bench.
import { Type } from '@sinclair/typebox';
import { definePlugin } from 'bulkhead/protocol';

export default definePlugin({
  name: 'fragile',
  version: '1.0.0',
  routes(app) {
    app.get('/', { schema: { response: { 200: Type.Object({ well: Type.Boolean() }) } } }, async () => ({ well: true }));
    app.post('/throw', () => {
      // On the clock that all processes share.
      setImmediate(() => { throw new Error(`thrown at ${process.hrtime.bigint()}`); });
      return new Promise(() => {});
    });
    app.post('/hang', () => { for (;;); });
  },
});
