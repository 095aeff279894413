// The composition root: makes the parts in order, and ends them in reverse. Must not know signals, processes or the listening socket.
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { CONNECTIONS_CLOSE_TIMEOUT_MS, SHUTDOWN_TIMEOUT_MS } from '../protocol/limits.js';
import { pluginSettings, type Config } from './config.js';
import { Connections } from './connections.js';
import { createDatabase } from './database/pool.js';
import { Scopes } from './database/scopes.js';
import { createServer } from './http/server.js';
import { ownVersion } from './http/version.js';
import type { KernelLogger } from './logger.js';
import type { Ship } from './plugins/compartment.js';
import { awaitDatabase } from './plugins/database-wait.js';
import { firstLife, type PriorLife } from './plugins/prior-life.js';
import { Supervisor } from './plugins/supervisor.js';
import { Watchdog } from './plugins/watchdog.js';
import { DurableEvents } from './services/durable-events.js';
import { EventBus } from './services/event-bus.js';
import { publishTransition } from './services/kernel-events.js';
import { ServiceRegistry } from './services/registry.js';

export interface KernelOptions {
  readonly config: Config;
  /** Of a server that may still be on its way. */
  readonly databaseUrl: string;
  readonly logger: KernelLogger;
  /** What a kernel before this one had; by default the plugins of `PLUGINS_ENABLED`. */
  readonly plugins?: readonly PriorLife[];
  readonly onThread?: Ship['onThread'];
  /** Called when the next kernel would bring this plugin back differently; null when not at all. */
  readonly onPrior?: (name: string, prior: PriorLife | null) => void;
}

export interface Kernel {
  readonly supervisor: Supervisor;
  /** Resolves when its plugins run or have failed; they boot while the kernel answers already. */
  readonly booted: Promise<void>;
  /** Serves a client's connection, whoever has accepted it. Nothing may have been read from it. */
  accept(socket: Socket): void;
  /** Finishes open requests, stops all plugins, closes the database. Takes at most SHUTDOWN_TIMEOUT_MS; may be called again. */
  stop(): Promise<void>;
}

/** Starts a kernel that answers. Rejects, leaving nothing behind, when it cannot be made. */
export async function startKernel({ config, databaseUrl, logger: { log, writeLines }, plugins = config.pluginsEnabled.map(firstLife), onThread = () => {}, onPrior = () => {} }: KernelOptions): Promise<Kernel> {
  const database = createDatabase({ url: databaseUrl, poolMax: config.databasePoolMax, applicationName: 'bulkhead', log });
  const events = new EventBus();
  const durable = new DurableEvents({ database, log });
  const supervisor = new Supervisor({
    ship: { log, writeLines, database, scopes: new Scopes({ database, roles: config.databaseRoles, log }), services: new ServiceRegistry(), events, durable, watchdog: new Watchdog(), onThread },
    pluginsDirs: config.pluginsDirs,
    workDir: config.dataDir,
    standbyWorkers: config.standbyWorkers,
    onChange: (plugin) => tell(plugin),
    settings: (name, known) => ({ ...pluginSettings(config.pluginVariables, name, known), logLevel: config.logLevel, debug: config.debug, trustProxy: config.trustProxy }),
  });
  let tell = (plugin: string): void => onPrior(plugin, supervisor.priorOf(plugin));
  supervisor.onTransition(({ plugin }) => tell(plugin));
  supervisor.onTransition((transition) => publishTransition(events, transition));
  // The plugins' threads begin while this one makes its server.
  const booted = supervisor.boot(plugins);
  let complete = false;
  void booted.then(() => awaitDatabase(supervisor, config.databaseWaitMs, log)).then(() => { complete = true; });
  const server = await createServer({
    appName: config.appName, version: await ownVersion(), log, database, supervisor, durable, operatorToken: config.operatorToken, booted: () => complete,
  }).catch(async (error: unknown) => {
    await supervisor.shutdown();
    await database.close();
    throw error;
  });
  const connections = new Connections(server.server);

  let stopped: Promise<void> | null = null;
  const stopAll = async (): Promise<void> => {
    // What stops now, the next kernel shall start.
    tell = () => {};
    const closed = server.close();
    durable.pause();
    await supervisor.shutdown();
    await durable.close();
    await connections.close(CONNECTIONS_CLOSE_TIMEOUT_MS);
    await closed;
    await database.close();
    log.info('the kernel has stopped');
  };
  return {
    supervisor,
    booted,
    accept: (socket) => connections.accept(socket),
    stop: () => (stopped ??= Promise.race([stopAll(), delay(SHUTDOWN_TIMEOUT_MS, undefined, { ref: false }).then(() => log.error(`not all has ended after ${SHUTDOWN_TIMEOUT_MS} ms`))])),
  };
}
