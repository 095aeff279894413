// What analytics can say, for the routes.
import type { Remote, ServiceMap, Services } from 'bulkhead/protocol';
import type { Pool } from 'pg';
import { countItems, mayReadItems } from './crud.js';

export class AnalyticsService {
  readonly #count: Remote<ServiceMap['items.count']>;

  /** The items plugin counts, and while it is not there its table. */
  constructor(db: Pool, services: Services) {
    this.#count = services.get('items.count', async () => ((await mayReadItems(db)) ? countItems(db) : 0));
  }

  /** Items stored at this moment; 0 while the items plugin has never run and its table does not exist. */
  itemsCount(): Promise<number> {
    return this.#count();
  }
}
