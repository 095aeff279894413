// The entry: environment in, kernel up, signals to a clean end. Must not know how the kernel is made.
import { BulkheadError } from '../protocol/errors.js';
import { loadConfig } from './config.js';
import { startKernel } from './kernel.js';
import { createLogger } from './logger.js';

/** EX_CONFIG of sysexits.h: a supervisor that knows it does not try again. */
const EXIT_CONFIG = 78;
/** As a shell reports a program that a signal ended: 128 + SIGINT. */
const EXIT_INTERRUPTED = 130;

async function main(): Promise<void> {
  const config = await loadConfig();
  const logger = createLogger(config.logLevel);
  const kernel = await startKernel(config, logger).catch((error: unknown) => {
    logger.log.fatal({ err: error }, `cannot start: ${(error as Error).message}`);
    logger.flush();
    throw error;
  });
  let stopping = false;
  const stop = (signal: NodeJS.Signals): void => {
    if (stopping) process.exit(EXIT_INTERRUPTED);
    stopping = true;
    logger.log.info({ signal }, `stopping on ${signal}; a second signal ends at once`);
    void kernel.stop().then(() => {
      logger.flush();
      process.exit(0);
    });
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
}

main().catch((error: unknown) => {
  const isConfig = error instanceof BulkheadError && error.code === 'CONFIG_INVALID';
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(isConfig ? EXIT_CONFIG : 1);
});
