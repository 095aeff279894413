// The kernel's log: pino's JSON lines on standard output, its own and those of the plugins. Must not know what is logged.
import { pino, type DestinationStream, type Logger } from 'pino';

export interface KernelLogger {
  readonly log: Logger;
  /** Writes lines that a plugin's own pino has made already. */
  readonly writeLines: (lines: string) => void;
  /** Writes what is buffered, before the process ends. */
  readonly flush: () => void;
}

export function createLogger(level: string, destination: DestinationStream & { flushSync?: () => void } = pino.destination({ fd: 1, sync: false })): KernelLogger {
  const log = pino({ level, base: {}, formatters: { level: (label) => ({ level: label }) } }, destination);
  return {
    log,
    writeLines: (lines) => destination.write(lines),
    flush: () => {
      try {
        destination.flushSync?.();
      } catch {
        // It throws when it was never opened or its pipe is gone; either way there is nobody to tell.
      }
    },
  };
}
