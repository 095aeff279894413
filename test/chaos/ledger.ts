// What was promised to clients about the database, and whether the database agrees. Must not know how promises are made.
import type pg from 'pg';
import type { Effect } from './acts.js';
import type { Judgement } from './oracle.js';

type Took = Judgement['took'];
const TABLES = `
  CREATE TABLE chaos_rows (plugin text NOT NULL, key text NOT NULL, bytes integer);
  CREATE TABLE chaos_registers (plugin text, key text, value integer, PRIMARY KEY (plugin, key));
  GRANT ALL ON chaos_rows, chaos_registers TO PUBLIC;`;
/** What is asked at the end. One row for each that was written, so that twice is seen. */
const ROWS = `
  SELECT plugin, key, bytes FROM chaos_rows
  UNION ALL SELECT 'items', name, NULL FROM plugin_items.items`;

interface Row { readonly plugin: string; readonly key: string; readonly bytes: number | null }

export class Ledger {
  /** By plugin and key. */
  readonly #rows = new Map<string, { readonly effect: Effect & { kind: 'row' }; readonly took: Took }>();
  readonly #registers = new Map<string, Set<number | null>>();

  /** Before the plugins boot, which would get into each other's way. */
  static async createTables(db: pg.Client): Promise<void> {
    await db.query(TABLES);
  }

  note(effect: Effect, took: Took): void {
    if (effect.kind === 'row') this.#rows.set(`${effect.plugin}/${effect.key}`, { effect, took });
    if (effect.kind !== 'register' || took === 'no effect') return;
    const name = `${effect.plugin}/${effect.key}`;
    // After a write that was acknowledged no earlier one may come through: its generation has been cut off from the database.
    this.#registers.set(name, new Set(took === 'effect' ? [effect.value] : [...this.possible(effect.plugin, effect.key), effect.value]));
  }

  /** Values that a register may have. */
  possible(plugin: string, key: string): ReadonlySet<number | null> {
    return this.#registers.get(`${plugin}/${key}`) ?? new Set([null]);
  }

  /** Compares all that was promised with the database, and begins anew with an empty one. Returns what is wrong. */
  async settle(db: pg.Client): Promise<string[]> {
    const wrong = [...await this.#wrongRows(db), ...await this.#wrongRegisters(db)];
    await db.query('TRUNCATE chaos_rows, chaos_registers, plugin_items.items');
    this.#rows.clear();
    this.#registers.clear();
    return wrong;
  }

  async #wrongRows(db: pg.Client): Promise<string[]> {
    const found = new Map<string, Row[]>();
    for (const row of (await db.query<Row>(ROWS)).rows) {
      const name = `${row.plugin}/${row.key}`;
      found.set(name, [...(found.get(name) ?? []), row]);
    }
    const wrong: string[] = [];
    for (const [name, { effect, took }] of this.#rows) {
      const rows = found.get(name) ?? [];
      found.delete(name);
      if (rows.length > 1) wrong.push(`doubled: the write of ${name} is there ${rows.length} times`);
      if (rows.length === 0 && took === 'effect') wrong.push(`lost: the write of ${name} was answered with 2xx and is not there`);
      if (rows.length === 1 && took === 'no effect') wrong.push(`untrue: the write of ${name} was refused as if it had not begun, and is there`);
      if (rows.some(({ bytes }) => bytes !== effect.bytes)) wrong.push(`maimed: the upload ${name} of ${effect.bytes} bytes was stored with ${rows.map(({ bytes }) => bytes).join(', ')}`);
    }
    for (const name of found.keys()) wrong.push(`invented: nobody wrote ${name}`);
    return wrong;
  }

  async #wrongRegisters(db: pg.Client): Promise<string[]> {
    const { rows } = await db.query<{ plugin: string; key: string; value: number }>('SELECT plugin, key, value FROM chaos_registers');
    const found = new Map(rows.map(({ plugin, key, value }) => [`${plugin}/${key}`, value]));
    return [...this.#registers].flatMap(([name, possible]) => {
      const value = found.get(name) ?? null;
      return possible.has(value) ? [] : [`lost: the register ${name} has ${value}, but its client knows that it has one of ${JSON.stringify([...possible])}`];
    });
  }
}
