// The queries on items, and nothing but queries.
import type { Pool } from 'pg';
import type { ItemRow } from './models.js';

export class ItemsCrud {
  readonly #db: Pool;

  constructor(db: Pool) {
    this.#db = db;
  }

  async insert(name: string, description: string | null): Promise<ItemRow> {
    const { rows } = await this.#db.query<ItemRow>('INSERT INTO items (name, description) VALUES ($1, $2) RETURNING id, name, description', [name, description]);
    return rows[0]!;
  }

  async list(skip: number, limit: number): Promise<ItemRow[]> {
    const { rows } = await this.#db.query<ItemRow>('SELECT id, name, description FROM items ORDER BY id OFFSET $1 LIMIT $2', [skip, limit]);
    return rows;
  }

  async find(id: number): Promise<ItemRow | undefined> {
    const { rows } = await this.#db.query<ItemRow>('SELECT id, name, description FROM items WHERE id = $1', [id]);
    return rows[0];
  }

  /** `undefined` leaves a column as it is; a description may be set to null. */
  async update(id: number, name: string | undefined, description: string | null | undefined): Promise<ItemRow | undefined> {
    const { rows } = await this.#db.query<ItemRow>(
      `UPDATE items SET name = coalesce($2, name), description = CASE WHEN $4 THEN $3 ELSE description END
       WHERE id = $1 RETURNING id, name, description`,
      [id, name ?? null, description ?? null, description !== undefined],
    );
    return rows[0];
  }

  async delete(id: number): Promise<boolean> {
    const { rowCount } = await this.#db.query('DELETE FROM items WHERE id = $1', [id]);
    return rowCount === 1;
  }

  async count(): Promise<number> {
    const { rows } = await this.#db.query<{ count: number }>('SELECT count(*)::int AS count FROM items');
    return rows[0]?.count ?? 0;
  }
}
