// Counts what other plugins store.
import { definePlugin } from 'bulkhead/protocol';
import { registerRoutes } from './routes.js';
import { AnalyticsService } from './services.js';

export default definePlugin({
  name: 'analytics',
  version: '1.0.0',
  description: 'Figures about the stored data',
  optional: ['items.count'],
  async routes(app, { db, services }) {
    registerRoutes(app, new AnalyticsService(db, services));
  },
});
