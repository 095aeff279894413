// Brings a plugin's part of the database to what its code expects: its numbered SQL files, each once, all or none. Must not know what a plugin is otherwise.
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg, { type PoolClient } from 'pg';
import type { Logger } from 'pino';
import { MIGRATIONS_LOCK_WAIT_MS, MIGRATIONS_TIMEOUT_MS } from '../../protocol/database-limits.js';
import { BulkheadError, toPlainError } from '../../protocol/errors.js';
import { databaseUnavailable, type Database } from './pool.js';
import { quoted, type Scopes } from './scopes.js';
import { isPassing, sqlState } from './sql-state.js';

const FILE = /^(\d{4})-[a-z0-9][a-z0-9_-]*\.sql$/;

export interface MigrateOptions {
  readonly database: Database;
  readonly scopes: Scopes;
  readonly plugin: string;
  /** Absolute path of the plugin's folder, in which `migrations/` is. */
  readonly folder: string;
  readonly log: Pick<Logger, 'info' | 'warn'>;
}

interface Migration {
  readonly number: number;
  /** Of the file. */
  readonly name: string;
  readonly sql: string;
  /** SHA-256 of the file, in hex. */
  readonly checksum: string;
}

/** In the plugin's own schema, so that a migration and its record are one transaction of the plugin's own login, which can harm nobody else. */
const LEDGER = `
  CREATE TABLE IF NOT EXISTS bulkhead_migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
  )`;

/**
 * Runs the files of `migrations/` that have not run yet, in the order of their numbers, in one transaction: when one fails the database is as it was.
 * Two kernels take turns. Rejects with `PLUGIN_MIGRATION_FAILED`, which names file and line, with `DATABASE_BUSY` when it is not its turn for long, or as `Scopes.of` does.
 */
export async function migrate({ database, scopes, plugin, folder, log }: MigrateOptions): Promise<void> {
  const migrations = await readMigrations(plugin, join(folder, 'migrations'));
  if (migrations.length === 0) return;
  const { schema, login } = await scopes.of(plugin);
  const client = await database.connect({ login });
  try {
    await ask(client, `BEGIN; SET LOCAL search_path TO ${quoted(schema)}, public; SET LOCAL application_name TO ${pg.escapeLiteral(`bulkhead/${plugin}`)}`);
    await takeTurn(client, schema);
    await ask(client, LEDGER);
    const { rows } = await client.query<{ number: number; name: string; checksum: string }>(`SELECT number, name, checksum FROM ${quoted(schema)}.bulkhead_migrations`);
    const missing = toRun(migrations, rows, plugin, log);
    for (const { number, name, checksum, sql } of missing) {
      await run(client, plugin, name, sql);
      await ask(client, `INSERT INTO ${quoted(schema)}.bulkhead_migrations (number, name, checksum) VALUES ($1, $2, $3)`, [number, name, checksum]);
    }
    await ask(client, 'COMMIT');
    client.release(missing.length > 0); // a migration may have changed what the session is like
    if (missing.length > 0) log.info({ plugin, migrations: missing.map(({ name }) => name) }, 'the plugin\'s part of the database is up to date');
  } catch (error) {
    // It ends the transaction too.
    await database.discard(client);
    if (error instanceof BulkheadError || isPassing(error)) throw databaseUnavailable(error);
    throw failed(plugin, migrations.at(-1)!.name, spoken(error)); // or one before it; only the end of the transaction told
  }
}

async function readMigrations(plugin: string, folder: string): Promise<Migration[]> {
  const files = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  const migrations = await Promise.all(files.filter((file) => file.endsWith('.sql')).sort().map(async (name): Promise<Migration> => {
    const number = FILE.exec(name)?.[1];
    if (number === undefined) throw failed(plugin, name, 'its name must be a number of four digits and a word, such as 0001-items.sql');
    const sql = await readFile(join(folder, name), 'utf8');
    return { number: Number(number), name, sql, checksum: createHash('sha256').update(sql).digest('hex') };
  }));
  const twice = migrations.find(({ number }, i) => migrations[i + 1]?.number === number);
  if (twice !== undefined) throw failed(plugin, twice.name, 'another one has the same number');
  return migrations;
}

function toRun(migrations: readonly Migration[], applied: readonly Pick<Migration, 'number' | 'name' | 'checksum'>[], plugin: string, log: Pick<Logger, 'warn'>): Migration[] {
  const before = new Map(applied.map((one) => [one.number, one]));
  for (const { number, name, checksum } of migrations) {
    const then = before.get(number);
    if (then !== undefined && then.checksum !== checksum) throw failed(plugin, name, `it is not what ran as ${then.name}; leave a migration as it is once it has run, and write another`);
  }
  const numbers = new Set(migrations.map(({ number }) => number));
  for (const { number, name } of applied) if (!numbers.has(number)) log.warn({ plugin, migration: name }, 'the database has a migration that the plugin has not: is this an older version of it?');
  return migrations.filter(({ number }) => !before.has(number));
}

async function run(client: PoolClient, plugin: string, name: string, sql: string): Promise<void> {
  const before = await transactionOf(client);
  try {
    await ask(client, sql);
  } catch (error) {
    if (isPassing(error)) throw error;
    throw failed(plugin, name, spoken(error, placeOf(sql, Number((error as { position?: string }).position))));
  }
  if ((await transactionOf(client)) !== before) throw failed(plugin, name, 'it ends the transaction that it runs in, so what it did may have stayed; leave out COMMIT and ROLLBACK');
}

/** Held to the end of the transaction. Any plugin can hold it too, and then this one cannot be loaded; which is all that comes of it. */
async function takeTurn(client: PoolClient, schema: string): Promise<void> {
  try {
    await ask(client, `SET LOCAL lock_timeout TO ${MIGRATIONS_LOCK_WAIT_MS}`);
    await ask(client, 'SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext($1::text), pg_catalog.hashtext($2::text))', ['bulkhead', schema]);
    await ask(client, 'SET LOCAL lock_timeout TO 0');
  } catch (error) {
    if (sqlState(error) !== '55P03') throw error;
    throw new BulkheadError('DATABASE_BUSY', { reason: 'somebody else, such as another kernel, is running the plugin\'s migrations; pg_locks shows who holds the advisory lock' }, { cause: error });
  }
}

function spoken(error: unknown, place = ''): string {
  return `${toPlainError(error).message} (SQLSTATE ${sqlState(error)})${place}. The database is as it was.`;
}

async function transactionOf(client: PoolClient): Promise<string> {
  return (await client.query<{ id: string }>('SELECT pg_catalog.pg_current_xact_id()::text AS id')).rows[0]!.id;
}

/** A statement of the kernel's own rejects after two seconds, and these may take longer. */
function ask(client: PoolClient, text: string, values?: unknown[]): Promise<unknown> {
  return client.query({ text, ...(values !== undefined && { values }), query_timeout: MIGRATIONS_TIMEOUT_MS } as { text: string });
}

/** PostgreSQL counts characters from 1. */
function placeOf(sql: string, position: number): string {
  if (!(position >= 1)) return '';
  const lines = [...sql].slice(0, position - 1).join('').split('\n');
  return ` at line ${lines.length}, column ${lines.at(-1)!.length + 1}`;
}

function failed(plugin: string, migration: string, reason: string): BulkheadError {
  return new BulkheadError('PLUGIN_MIGRATION_FAILED', { name: plugin, migration, reason });
}
