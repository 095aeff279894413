// The kernel's process: makes a kernel to the guardian's order, takes connections from it, and reports back. Must not know the port or whose the database is.
import type { Socket } from 'node:net';
import type { GuardianMessage, KernelMessage, KernelOrder } from '../guardian/messages.js';
import { startKernel, type Kernel } from '../kernel.js';
import { createLogger, type KernelLogger } from '../logger.js';
import { goNowhere } from '../plugins/nowhere.js';

let kernel: Kernel | null = null;
let logger: KernelLogger | null = null;
let stopping = false;

/** What cannot be sent any more, nobody is there to hear. */
function tell(message: KernelMessage, sent: () => void = () => {}): void {
  if (process.connected) process.send!(message, undefined, {}, sent);
}

async function boot({ config, databaseUrl, plugins }: KernelOrder): Promise<void> {
  logger = createLogger(config.logLevel);
  const making = startKernel({
    config,
    databaseUrl,
    logger,
    plugins,
    onThread: (threadId, occupant) => tell({ kind: 'thread', threadId, occupant }),
    onPrior: (name, prior) => tell({ kind: 'plugin', name, prior }),
  });
  // The files that DATABASE_URL names have been read by now, and no worker has begun.
  goNowhere();
  kernel = await making;
  tell({ kind: 'ready' });
  if (stopping) return stop();
  await kernel.booted;
  tell({ kind: 'booted' });
}

async function stop(): Promise<void> {
  stopping = true;
  // One that is just being made stops when it is.
  if (kernel === null) return;
  await kernel.stop();
  end(0);
}

/** The word is sent before the socket is read, so that no byte is lost with a kernel that dies before it is known to have the connection. */
function take(id: number, socket: Socket | undefined): void {
  tell({ kind: 'taken', id }, () => {
    // The client may have gone on the way.
    if (socket !== undefined) kernel!.accept(socket);
  });
}

function end(code: number): void {
  logger?.flush();
  process.exit(code);
}

function fail(how: string, error: Error): void {
  logger?.log.fatal({ err: error }, `the kernel ${how}: ${error.message}`);
  tell({ kind: 'failed', message: error.message }, () => end(1));
}

process.on('message', (message: GuardianMessage, socket: Socket | undefined) => {
  if (message.kind === 'connection') take(message.id, socket);
  else if (message.kind === 'stop') void stop();
  else boot(message.order).catch((error: Error) => fail('cannot start', error));
});

// A mistake of the kernel's own: what it did is not known any more, and the guardian has the next one.
process.once('uncaughtException', (error: Error) => fail('has a fault', error));

// Without its guardian it has neither port nor database. Nothing of it needs a goodbye, and one could hang.
process.once('disconnect', () => process.kill(process.pid, 'SIGKILL'));
// A service manager sends its signal to every process; only the guardian knows the order in which they end.
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => {});
