// The queries of analytics.
import type { Pool } from 'pg';

/** Items stored at this moment; 0 while the items plugin has never run and its table does not exist. */
export async function countItems(db: Pool): Promise<number> {
  const { rows: [table] } = await db.query<{ present: boolean }>(`SELECT to_regclass('items') IS NOT NULL AS present`);
  if (table?.present !== true) return 0;
  const { rows: [row] } = await db.query<{ count: number }>('SELECT count(*)::int AS count FROM items');
  return row?.count ?? 0;
}
