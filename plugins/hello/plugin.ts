// The smallest plugin: one route.
import { Type } from '@sinclair/typebox';
import { definePlugin } from 'bulkhead/protocol';

const Greeting = Type.Object({ message: Type.String() });

export default definePlugin({
  name: 'hello',
  version: '1.0.0',
  description: 'Says hello',
  async routes(app) {
    app.get('/', { schema: { summary: 'A greeting', response: { 200: Greeting } } }, async () => ({ message: 'Hello from plugin' }));
  },
});
