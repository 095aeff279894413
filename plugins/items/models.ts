// The table of items and its rows.

export interface ItemRow {
  readonly id: number;
  readonly name: string;
  readonly description: string | null;
}

/** PostgreSQL's largest `integer`, the type of an item's id. */
export const ID_MAX = 2_147_483_647;

export const CREATE_ITEMS_TABLE = `
  CREATE TABLE IF NOT EXISTS items (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    description text
  )`;
