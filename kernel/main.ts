// The entry: environment in, guardian up, signals to a clean end. Must not know how kernels are kept.
import { BulkheadError } from '../protocol/errors.js';
import { loadConfig } from './config.js';
import { Guardian } from './guardian.js';
import { createLogger } from './logger.js';

/** EX_CONFIG of sysexits.h: a supervisor that knows it does not try again. */
const EXIT_CONFIG = 78;
/** As a shell reports a program that a signal ended: 128 + SIGINT. */
const EXIT_INTERRUPTED = 130;

async function main(): Promise<void> {
  const config = await loadConfig();
  const logger = createLogger(config.logLevel);
  const guardian = new Guardian(config, logger);
  let stopping = false;
  const stop = (signal: NodeJS.Signals): void => {
    if (stopping) {
      guardian.abandon();
      process.exit(EXIT_INTERRUPTED);
    }
    stopping = true;
    logger.log.info({ signal }, `stopping on ${signal}; a second signal ends at once`);
    void guardian.stop().then(() => {
      logger.flush();
      process.exit(0);
    });
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  await guardian.start().catch((error: unknown) => {
    logger.log.fatal({ err: error }, `cannot start: ${(error as Error).message}`);
    logger.flush();
    throw error;
  });
}

main().catch((error: unknown) => {
  const isConfig = error instanceof BulkheadError && error.code === 'CONFIG_INVALID';
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(isConfig ? EXIT_CONFIG : 1);
});
