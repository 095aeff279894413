// Runs through what every plugin needs first, so that its code is loaded and compiled before there is a plugin. Must not know the kernel or the worker's own state.
import type { RequestFrame } from '../../protocol/frames.js';
import type { HostOrder } from '../../protocol/host-api.js';
import { definePlugin } from '../../protocol/plugin.js';
import { StatusBlock } from '../../protocol/status-block.js';
import { createApp, type HostApp } from './app.js';
import { createHostLogger } from './log.js';
import type { Tasks } from './task.js';
import { createTenancy } from './tenancy.js';
import { Transport } from './transport.js';

/** Built beside the host, for all plugins that use it. */
const TYPEBOX = new URL('./typebox/index.js', import.meta.url).href;
const ORDER: HostOrder = { name: 'standby', generation: 0, bundle: '', folder: '', config: {}, threads: null, environment: {}, logLevel: 'info', debug: false, trustProxy: false };
const SCHEMA = { type: 'object', required: ['id'], properties: { id: { type: 'integer', minimum: 1 }, name: { type: 'string' } } } as const;
const REQUEST: RequestFrame = {
  kind: 'request', id: 1, method: 'POST', url: '/1', originalUrl: '/plugins/standby/1', mount: '/plugins/standby', httpVersion: '1.1',
  headers: ['host', 'localhost', 'content-type', 'application/json', 'content-length', '8'], body: Buffer.from('{"id":1}'), streams: false,
  requestId: 'standby', remoteAddress: '127.0.0.1', remotePort: 1, encrypted: false, remainingMs: Infinity,
};
/** The first loads the code, the next ones let V8 see it again; more made no difference. */
const ROUNDS = 3;
const REQUESTS_PER_ROUND = 5;

const PLUGIN = definePlugin({
  name: ORDER.name,
  version: '0.0.0',
  routes: (app) => void app.post('/:id', { schema: { params: SCHEMA, body: SCHEMA, response: { 200: SCHEMA } } }, async ({ params }) => params),
});

/** Imports the module at a URL. */
export type Load = (url: string) => Promise<unknown>;

export async function warmUp(load: Load): Promise<void> {
  await load(TYPEBOX);
  const log = createHostLogger({ plugin: ORDER.name, generation: ORDER.generation }, ORDER.logLevel, () => {});
  for (let round = 0; round < ROUNDS; round += 1) {
    const tenancy = createTenancy(PLUGIN, ORDER, log, new StatusBlock(), () => {});
    const { app } = await createApp(tenancy);
    for (let i = 0; i < REQUESTS_PER_ROUND; i += 1) await answered(app, tenancy.tasks);
    await app.close();
    await tenancy.context.db.end(); // reading it has loaded pg
  }
}

function answered(app: HostApp['app'], tasks: Tasks): Promise<void> {
  return new Promise((resolve) => {
    const transport = new Transport(() => resolve(), new StatusBlock());
    transport.serve(app, tasks);
    transport.handle(REQUEST);
  });
}
