// The items API over HTTP, good and bad input.
import t from 'tap';
import { startTestKernel } from '../helpers/kernel.js';

t.test('items', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'items,analytics' });

  t.test('a created item is answered with its place', async (t) => {
    const created = await kernel.request('POST', '/items', { name: 'anchor', description: 'heavy' });
    t.equal(created.status, 201);
    t.strictSame(created.json, { id: 1, name: 'anchor', description: 'heavy' });
    t.equal(created.headers.get('location'), '/items/1');
  });
});
