// Libraries that are built on pg run in a plugin as they are: Kysely, pg-cursor, pg-copy-streams.
import { request } from 'node:http';
import t from 'tap';
import { eventually, startTestKernel } from '../helpers/kernel.js';
import { onEachServer } from '../helpers/postgres.js';

onEachServer(t, 'what is built on pg works on lent connections', async (t, url) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'chandler', DEBUG: 'true', DATABASE_URL: url });
  const get = async (path: string): Promise<any> => (await kernel.get(`/plugins/chandler${path}`)).json;
  const post = async (path: string, body: unknown): Promise<any> => (await kernel.request('POST', `/plugins/chandler${path}`, body)).json;

  t.match(await post('/goods', { name: 'rope', price: 3, tags: ['hemp', 'deck'], extra: { lengths: [10, 20], '🚢': null } }), { id: 1, name: 'rope', price: 3, tags: ['hemp', 'deck'], extra: { lengths: [10, 20], '🚢': null }, since: /^\d{4}-.*Z$/ }, 'arrays, JSON and timestamps');
  await post('/goods', { name: 'tar', price: 5, tags: ['deck'], extra: null });
  await Promise.all(Array.from({ length: 20 }, (_, i) => post('/orders', { name: i % 2 ? 'rope' : 'tar', amount: 1, fail: i % 5 === 0 })));
  const { rows: [{ n: placed }] } = { rows: await kernel.query<{ n: number }>('SELECT count(*)::int AS n FROM plugin_chandler.orders') } as { rows: [{ n: number }] };
  t.equal(placed, 16, 'transactions that failed are rolled back, the others are there');
  t.strictSame(await get('/sales?tag=deck'), [{ name: 'rope', sold: '8', worth: 24 }, { name: 'tar', sold: '8', worth: 40 }]);
  t.strictSame(await get('/sales?tag=hemp'), [{ name: 'rope', sold: '8', worth: 24 }]);
  t.strictSame(await get('/duplicate'), { code: '23505', constraint: 'goods_name_key' }, 'errors have their SQLSTATE and fields');
  t.strictSame((await get('/tables')).filter(({ schema }: { schema: string }) => schema.startsWith('plugin')).map(({ schema, name }: { schema: string; name: string }) => `${schema}.${name}`).sort(), ['plugin_chandler.goods', 'plugin_chandler.orders'], 'it sees its own tables');
  t.strictSame(await get('/stream?rows=20000'), { sum: 200_010_000 }, 'rows as a stream');
  t.strictSame(await get('/cursor'), [[1, 2], [3, 4, 5], [7]]);
  t.strictSame(await get('/copy?rows=50000'), { same: true }, '2 MB by COPY in and out');
  t.strictSame(await get('/notify'), { payload: 'open' });

  t.test('a client that leaves ends the stream', async (t) => {
    const going = request(`${kernel.url}/plugins/chandler/stream?rows=2000000000`).on('error', () => {});
    going.end();
    const running = async (): Promise<number> => (await kernel.query<{ n: number }>("SELECT count(*)::int AS n FROM pg_stat_activity WHERE usename = 'plugin_chandler' AND query LIKE '%generate_series%' AND state <> 'idle'"))[0]!.n;
    await eventually('it streams', 5_000, async () => ((await running()) === 1 ? true : undefined));
    going.destroy();
    await eventually('it has ended', 2_000, async () => ((await running()) === 0 ? true : undefined));
    t.strictSame(await get('/cursor'), [[1, 2], [3, 4, 5], [7]], 'and the plugin goes on');
  });
});
