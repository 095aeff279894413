// CRUD on items, in the layout that every larger plugin has.
import { Type } from '@sinclair/typebox';
import { definePlugin, method } from 'bulkhead/protocol';
import { ItemsCrud } from './crud.js';
import { markOthers } from './middleware.js';
import { registerRoutes } from './routes.js';
import { ItemsService } from './services.js';

let items: ItemsService;

export default definePlugin({
  name: 'items',
  version: '1.0.0',
  description: 'Create, read, update and delete items',
  mounts: ['/items'],
  // Nearly every request is one query: the more of them are under way, the less each costs.
  limits: { connections: 10 },
  grants: [{ to: 'analytics', tables: ['items'], privileges: ['select'] }],
  interceptors: [markOthers],
  services({ db }) {
    items = new ItemsService(new ItemsCrud(db));
    return {
      'items.service': items,
      'items.count': method({ args: [], result: Type.Integer({ minimum: 0 }), idempotent: true }, () => items.count()),
    };
  },
  async routes(app) {
    registerRoutes(app, items);
  },
});
