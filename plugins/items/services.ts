// What can be done with items, for the routes and for other plugins.
import type { ItemsCrud } from './crud.js';
import type { Item, ItemChange, NewItem, Page } from './schemas.js';
import { itemNotFound } from './utils.js';

declare module 'bulkhead/protocol' {
  interface ServiceMap {
    'items.service': ItemsService;
    /** Items stored at this moment. */
    'items.count': () => Promise<number>;
  }
}

export class ItemsService {
  readonly #crud: ItemsCrud;

  constructor(crud: ItemsCrud) {
    this.#crud = crud;
  }

  create({ name, description = null }: NewItem): Promise<Item> {
    return this.#crud.insert(name, description);
  }

  list({ skip, limit }: Page): Promise<Item[]> {
    return this.#crud.list(skip, limit);
  }

  /** Rejects with `ITEM_NOT_FOUND`, as do `update` and `delete`. */
  async find(id: number): Promise<Item> {
    const item = await this.#crud.find(id);
    if (item === undefined) throw itemNotFound(id);
    return item;
  }

  async update(id: number, { name, description }: ItemChange): Promise<Item> {
    const item = await this.#crud.update(id, name, description);
    if (item === undefined) throw itemNotFound(id);
    return item;
  }

  async delete(id: number): Promise<void> {
    if (!(await this.#crud.delete(id))) throw itemNotFound(id);
  }

  count(): Promise<number> {
    return this.#crud.count();
  }
}
