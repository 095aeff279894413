// CRUD on items, in the layout that every larger plugin has.
import { definePlugin } from 'bulkhead/protocol';
import { ItemsCrud } from './crud.js';
import { registerRoutes } from './routes.js';
import { ItemsService } from './services.js';

let items: ItemsService;

export default definePlugin({
  name: 'items',
  version: '1.0.0',
  description: 'Create, read, update and delete items',
  mounts: ['/items'],
  async init({ db, services }) {
    const crud = new ItemsCrud(db);
    await crud.createTable();
    items = new ItemsService(crud);
    services.provide('items.service', items);
  },
  async routes(app) {
    registerRoutes(app, items);
  },
});
