// At boot: the plugins that need a database which is not there yet, and what an operator hears when it does not come. Must not know how it is reached.
import type { Logger } from 'pino';
import type { Supervisor } from './supervisor.js';

/** Resolves when no plugin waits for what it needs any more, or after `waitMs`; they go on waiting then, and the log says what to do. */
export async function awaitDatabase(supervisor: Supervisor, waitMs: number, log: Pick<Logger, 'info' | 'error'>): Promise<void> {
  const waiting = (): string[] => supervisor.lives.filter(({ waits }) => waits).map(({ record }) => record.name);
  if (waiting().length === 0) return;
  log.info({ plugins: waiting(), waitMs }, 'waiting for the database');
  await new Promise<void>((resolve) => {
    const finish = (): void => {
      clearTimeout(timer);
      forget();
      resolve();
    };
    const timer = setTimeout(finish, waitMs).unref();
    // A turn later: a plugin fails before it is said to wait.
    const forget = supervisor.onTransition(() => setImmediate(() => waiting().length === 0 && finish()));
  });
  if (waiting().length > 0) log.error({ plugins: waiting() }, `the database has not come within ${waitMs} ms (DATABASE_WAIT_MS); start it, or correct DATABASE_URL. These plugins run as soon as it is there`);
}
