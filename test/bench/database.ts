// A data folder with a PostgreSQL in it, for as long as something is measured. Must not know what.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type * as EmbeddedModule from '../../kernel/database/embedded.js';
import { findRoot } from './servers.js';

const embedded = async (): Promise<typeof EmbeddedModule> => (await import(join(findRoot(), 'dist/kernel/database/embedded.js'))) as typeof EmbeddedModule;

/** `work` gets the folder, which is removed after it, and the URL of the database; by default the embedded one. */
export async function withDatabase<T>(work: (dataDir: string, url: string) => Promise<T>, binaries?: EmbeddedModule.PostgresBinaries): Promise<T> {
  const dataDir = await mkdtemp(join(tmpdir(), 'bulkhead-bench-'));
  try {
    const { startEmbeddedDatabase } = await embedded();
    const silent = { info() {}, warn() {}, error() {} };
    const database = await startEmbeddedDatabase({ dataDir, user: 'bench', database: 'bench', binaries, log: silent as unknown as EmbeddedModule.EmbeddedDatabaseOptions['log'] });
    try {
      return await work(dataDir, database.url);
    } finally {
      await database.stop();
    }
  } finally {
    await rm(dataDir, { recursive: true, force: true });
  }
}

/** The same with the PostgreSQL that is installed on this machine; null where there is none. */
export async function withInstalledDatabase<T>(work: (installed: { readonly dataDir: string; readonly url: string; readonly version: number } | null) => Promise<T>): Promise<T> {
  const binaries = await (await embedded()).findSystemPostgres(process.env['PATH']);
  if (binaries === undefined) return work(null);
  return withDatabase((dataDir, url) => work({ dataDir, url, version: binaries.majorVersion }), binaries);
}
