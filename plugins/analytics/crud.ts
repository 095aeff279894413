// The queries of analytics, on tables that other plugins let it read.
import type { Pool } from 'pg';

/** Whether the table is there and the items plugin lets this one read it. */
export async function mayReadItems(db: Pool): Promise<boolean> {
  const { rowCount } = await db.query(
    `SELECT FROM pg_class JOIN pg_namespace schema ON schema.oid = relnamespace
     WHERE nspname = 'plugin_items' AND relname = 'items' AND has_schema_privilege(schema.oid, 'USAGE') AND has_table_privilege(pg_class.oid, 'SELECT')`,
  );
  return rowCount === 1;
}

/** Needs to be allowed. */
export async function countItems(db: Pool): Promise<number> {
  const { rows } = await db.query<{ count: number }>('SELECT count(*)::int AS count FROM plugin_items.items');
  return rows[0]?.count ?? 0;
}
