// The queries of analytics.
import type { Pool } from 'pg';

export async function itemsTableExists(db: Pool): Promise<boolean> {
  const { rows } = await db.query<{ present: boolean }>(`SELECT to_regclass('items') IS NOT NULL AS present`);
  return rows[0]?.present === true;
}

/** Needs the table. */
export async function countItems(db: Pool): Promise<number> {
  const { rows } = await db.query<{ count: number }>('SELECT count(*)::int AS count FROM items');
  return rows[0]?.count ?? 0;
}
