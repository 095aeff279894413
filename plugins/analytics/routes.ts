// The HTTP surface of analytics.
import { Type } from '@sinclair/typebox';
import type { PluginApp } from 'bulkhead/protocol';
import type { AnalyticsService } from './services.js';

const Count = Type.Object({ items_count: Type.Integer({ minimum: 0 }) });

export function registerRoutes(app: PluginApp, analytics: AnalyticsService): void {
  app.get('/count', { schema: { summary: 'How many items there are', response: { 200: Count } } }, async () => ({ items_count: await analytics.itemsCount() }));
}
