// The plugin's pino logger and console, whose lines travel to the kernel's log. Must not know where the kernel writes.
import { format } from 'node:util';
import { pino, type Logger } from 'pino';
import { LOG_LINE_MAX_CHARACTERS, LOG_LINES_PER_SECOND_MAX } from '../../protocol/limits.js';
import { Rate } from '../../protocol/rate.js';

/** Makes the logger of one generation; every line carries the plugin's name and the generation's number. */
export function createHostLogger(identity: { plugin: string; generation: number }, level: string, send: (lines: string) => void): Logger {
  const rate = new Rate(LOG_LINES_PER_SECOND_MAX, (dropped) => logger.warn({ dropped }, `${dropped} log lines were dropped: at most ${LOG_LINES_PER_SECOND_MAX} per second are kept`));
  const write = (line: string): void => {
    if (!rate.admit()) return;
    send(line.length <= LOG_LINE_MAX_CHARACTERS ? line : shortened(line));
  };
  const logger = pino({ level, base: identity, formatters: { level: (label) => ({ level: label }) } }, { write });
  return logger;

  /** A cut line is no JSON any more, so its beginning becomes the text of a line that is. */
  function shortened(line: string): string {
    return `${JSON.stringify({ level: 'warn', time: Date.now(), ...identity, msg: `a log line of ${line.length} characters was cut`, beginning: line.slice(0, 1_024) })}\n`;
  }
}

/** Points the worker's `console` at the logger: a plugin's print would otherwise land between the kernel's JSON lines. */
export function captureConsole(logger: Logger): void {
  for (const [method, level] of [['log', 'info'], ['info', 'info'], ['warn', 'warn'], ['error', 'error'], ['debug', 'debug'], ['trace', 'trace']] as const) {
    console[method] = (...args: unknown[]): void => logger[level](format(...args));
  }
}
