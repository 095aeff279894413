// The HTTP surface of analytics.
import { Type } from '@sinclair/typebox';
import type { PluginApp, PluginContext } from 'bulkhead/protocol';
import { countItems } from './crud.js';

const Count = Type.Object({ items_count: Type.Integer({ minimum: 0 }) });

export async function registerRoutes(app: PluginApp, { db }: PluginContext): Promise<void> {
  app.get('/count', { schema: { summary: 'How many items there are', response: { 200: Count } } }, async () => ({ items_count: await countItems(db) }));
}
