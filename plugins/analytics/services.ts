// What analytics can say, for the routes.
import type { Pool } from 'pg';
import { countItems, mayReadItems } from './crud.js';

export class AnalyticsService {
  readonly #db: Pool;

  constructor(db: Pool) {
    this.#db = db;
  }

  /** Items stored at this moment; 0 while the items plugin has never run and its table does not exist. */
  async itemsCount(): Promise<number> {
    return (await mayReadItems(this.#db)) ? countItems(this.#db) : 0;
  }
}
