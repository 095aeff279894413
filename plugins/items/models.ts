// The rows of the table of items, which migrations/ makes.

export interface ItemRow {
  readonly id: number;
  readonly name: string;
  readonly description: string | null;
}

/** PostgreSQL's largest `integer`, the type of an item's id. */
export const ID_MAX = 2_147_483_647;
