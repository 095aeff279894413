// What a plugin lets other plugins do with its tables, as its manifest says. Must not know who asked for it.
import type { PoolClient } from 'pg';
import { BulkheadError, toPlainError } from '../../protocol/errors.js';
import type { Grant } from '../../protocol/grants.js';
import { ADMITTED, SEQUENCES } from './catalog-queries.js';
import { databaseUnavailable, type Database } from './pool.js';
import { quoted, type Scopes } from './scopes.js';
import { isPassing } from './sql-state.js';

interface Given extends Grant { readonly role: string }

/** Grants these and revokes all others, at one moment. Rejects with `DATABASE_SETUP_FAILED`, also when a table is not there, or as `Scopes.of` does. */
export async function applyGrants({ database, scopes }: { readonly database: Database; readonly scopes: Scopes }, plugin: string, grants: readonly Grant[]): Promise<void> {
  const { schema, login } = await scopes.of(plugin);
  if (login === null) return; // all plugins are one user
  const given: Given[] = [];
  for (const grant of grants) {
    const role = await scopes.role(grant.to);
    if (role !== null) given.push({ ...grant, role });
  }
  const client = await database.connect({ login });
  try {
    await client.query('BEGIN; SET LOCAL search_path TO pg_catalog, pg_temp');
    const { rows } = await client.query<{ role: string }>(ADMITTED, [schema]);
    for (const role of new Set([...rows, ...given].map(({ role }) => role))) {
      for (const what of ['ALL TABLES IN SCHEMA', 'ALL SEQUENCES IN SCHEMA', 'SCHEMA']) await client.query(`REVOKE ALL ON ${what} ${quoted(schema)} FROM ${quoted(role)}`);
    }
    for (const grant of given) await give(client, schema, grant);
    await client.query('COMMIT');
    client.release();
  } catch (error) {
    client.release(true);
    if (isPassing(error)) throw databaseUnavailable(error);
    throw new BulkheadError('DATABASE_SETUP_FAILED', { name: plugin, reason: `its \`grants\` cannot be given: ${toPlainError(error).message}` }, { cause: error });
  }
}

async function give(client: PoolClient, schema: string, { role, tables, privileges }: Given): Promise<void> {
  const within = (names: readonly string[]): string => names.map((name) => `${quoted(schema)}.${quoted(name)}`).join(', ');
  await client.query(`GRANT USAGE ON SCHEMA ${quoted(schema)} TO ${quoted(role)}; GRANT ${privileges.join(', ')} ON TABLE ${within(tables)} TO ${quoted(role)}`);
  if (!privileges.includes('insert')) return;
  for (const table of tables) {
    const { rows } = await client.query<{ name: string }>(SEQUENCES, [schema, table]);
    if (rows.length > 0) await client.query(`GRANT USAGE ON SEQUENCE ${within(rows.map(({ name }) => name))} TO ${quoted(role)}`);
  }
}
