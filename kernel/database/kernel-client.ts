// A connection for the kernel's own statements. Must not know what they are.
import type { PoolClient } from 'pg';
import type { Database } from './pool.js';

/** Rejects as `Database.connect` does, or with what `use` rejects with. */
export async function withKernelClient<T>(database: Database, use: (client: PoolClient) => Promise<T>): Promise<T> {
  const client = await database.connect();
  try {
    // Whatever others have put into "public" is not run with the kernel's rights.
    await client.query('SET search_path TO pg_catalog, pg_temp');
    const result = await use(client);
    await client.query('RESET search_path');
    client.release();
    return result;
  } catch (error) {
    client.release(true);
    throw error;
  }
}
