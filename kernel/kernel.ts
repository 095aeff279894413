// The composition root: makes the parts in order, and ends them in reverse. Must not know signals or the process.
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { FastifyInstance } from 'fastify';
import { CONNECTIONS_CLOSE_TIMEOUT_MS, SHUTDOWN_TIMEOUT_MS } from '../protocol/limits.js';
import { pluginSettings, type Config } from './config.js';
import { startEmbeddedDatabase, type EmbeddedDatabase } from './database/embedded.js';
import { createDatabase, type Database } from './database/pool.js';
import { createServer } from './http/server.js';
import type { KernelLogger } from './logger.js';
import { Supervisor } from './plugins/supervisor.js';
import { Watchdog } from './plugins/watchdog.js';
import { EventBus } from './services/event-bus.js';
import { ServiceRegistry } from './services/registry.js';

export interface Kernel {
  /** `http://host:port` that answers. */
  readonly url: string;
  readonly supervisor: Supervisor;
  /** Resolves when the plugins of `PLUGINS_ENABLED` run or have failed; they boot while the kernel answers already. */
  readonly booted: Promise<void>;
  /** Stops accepting, drains and stops all plugins, closes the database. Takes at most SHUTDOWN_TIMEOUT_MS; may be called again. */
  stop(): Promise<void>;
}

/** Starts a kernel that answers. Rejects, leaving nothing behind, when the port is taken or the embedded database cannot start. */
export async function startKernel(config: Config, { log, writeLines }: KernelLogger): Promise<Kernel> {
  await mkdir(config.dataDir, { recursive: true });
  const embedded = config.databaseUrl === null ? await startEmbeddedDatabase({ dataDir: config.dataDir, ...config.embedded, log }) : null;
  const database = createDatabase({ url: config.databaseUrl ?? embedded!.url, poolMax: config.databasePoolMax, applicationName: 'bulkhead', log });
  const supervisor = new Supervisor({
    ship: { log, writeLines, database, services: new ServiceRegistry(), events: new EventBus(), watchdog: new Watchdog() },
    pluginsDirs: config.pluginsDirs,
    cacheDir: join(config.dataDir, 'bundles'),
    settings: (name, known) => ({ ...pluginSettings(config.pluginVariables, name, known), logLevel: config.logLevel, debug: config.debug }),
  });

  let server: FastifyInstance;
  try {
    server = await createServer({
      appName: config.appName, version: await ownVersion(), log, database, supervisor, operatorToken: config.operatorToken, booted: () => supervisor.booted,
    });
    await server.listen({ host: config.host, port: config.port });
  } catch (error) {
    await closeDatabase(database, embedded);
    throw error;
  }
  const url = urlOf(server.server.address() as AddressInfo);
  log.info({ url, plugins: config.pluginsEnabled, database: embedded === null ? 'DATABASE_URL' : 'embedded' }, `${config.appName} listens on ${url}`);
  const booted = supervisor.boot(config.pluginsEnabled);

  let stopped: Promise<void> | null = null;
  const stopAll = async (): Promise<void> => {
    const closed = server.close();
    await supervisor.shutdown();
    // Node counts a connection that has not asked for anything yet as busy and would wait a minute for its request.
    const cut = setTimeout(() => server.server.closeAllConnections(), CONNECTIONS_CLOSE_TIMEOUT_MS);
    await closed;
    clearTimeout(cut);
    await closeDatabase(database, embedded);
    log.info('stopped');
  };
  return {
    url,
    supervisor,
    booted,
    stop: () => (stopped ??= Promise.race([stopAll(), delay(SHUTDOWN_TIMEOUT_MS, undefined, { ref: false }).then(() => log.error(`not all has ended after ${SHUTDOWN_TIMEOUT_MS} ms`))])),
  };
}

async function closeDatabase(database: Database, embedded: EmbeddedDatabase | null): Promise<void> {
  await database.close();
  await embedded?.stop();
}

async function ownVersion(): Promise<string> {
  const { version } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string };
  return version;
}

/** An address that listens everywhere is reached at home. */
function urlOf({ address, family, port }: AddressInfo): string {
  const host = address === '0.0.0.0' || address === '::' ? 'localhost' : family === 'IPv6' ? `[${address}]` : address;
  return `http://${host}:${port}`;
}
