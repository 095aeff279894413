// One life of the kernel's process, from its fork to its end. Must not know connections, plugins or what follows an end.
import { fork, type ChildProcess } from 'node:child_process';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { KERNEL_BOOT_TIMEOUT_MS, KERNEL_SETTLED_AFTER_MS, KERNEL_STOP_TIMEOUT_MS } from '../../protocol/guardian-limits.js';
import { TERMINATE_TIMEOUT_MS } from '../../protocol/limits.js';
import type { GuardianMessage, KernelMessage, KernelOrder } from './messages.js';
import { reportFlags } from './report.js';

const ENTRY = fileURLToPath(new URL('../process/entry.js', import.meta.url));

export interface KernelProcessOptions {
  /** All that the process gets of it; without NODE_OPTIONS, in which a heap size would switch off the workers' limits. */
  readonly environment: Readonly<Record<string, string>>;
  /** An existing folder for diagnostic reports. */
  readonly reportsDir: string;
  readonly onMessage: (message: KernelMessage) => void;
}

export interface KernelEnd {
  /** In words, after "the kernel". */
  readonly how: string;
  /** Whether its plugins had come up, and it has lived for KERNEL_SETTLED_AFTER_MS since: if not, the next one may well end in the same way. */
  readonly settled: boolean;
}

export class KernelProcess {
  /** Resolves when the process is gone and all that it said has been heard; never rejects. */
  readonly ended: Promise<KernelEnd>;
  readonly #child: ChildProcess;
  #ready = false;
  /** Of `performance.now()`, once its plugins had come up. */
  #bootedAt: number | null = null;
  #failure: string | null = null;
  #deadline: NodeJS.Timeout;

  constructor({ environment, reportsDir, onMessage }: KernelProcessOptions) {
    this.#child = fork(ENTRY, [], {
      env: environment,
      // Workers collect their garbage when they are idle.
      execArgv: ['--expose-gc', ...reportFlags(reportsDir)],
      // A session of its own: Ctrl-C in a terminal goes to the guardian alone.
      detached: true,
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    this.#deadline = setTimeout(() => this.#fail(`could not answer within ${KERNEL_BOOT_TIMEOUT_MS / 1_000} s`), KERNEL_BOOT_TIMEOUT_MS);
    this.#child.on('message', (message: KernelMessage) => {
      if (message.kind === 'ready') {
        this.#ready = true;
        clearTimeout(this.#deadline);
      } else if (message.kind === 'booted') this.#bootedAt = performance.now();
      else if (message.kind === 'failed') this.#failure ??= `${this.#ready ? 'had a fault' : 'could not start'}: ${message.message}`;
      onMessage(message);
    });
    this.ended = new Promise((resolve) => {
      const end = (how: string): void => {
        clearTimeout(this.#deadline);
        resolve({ how: this.#failure ?? how, settled: this.#bootedAt !== null && performance.now() - this.#bootedAt >= KERNEL_SETTLED_AFTER_MS });
      };
      this.#child.on('error', (error) => {
        // Of a process that runs, it is a message that could not be sent, and the end of the channel tells the rest.
        if (this.#child.pid === undefined) end(`could not be run: ${error.message}`);
      });
      this.#child.once('exit', (code, signal) => {
        const how = signal === null ? `ended with exit code ${code}` : `was ended by ${signal}`;
        this.#child.once('close', () => end(how));
        // Its last words are read within a turn of the loop, unless somebody else holds the other end of the channel.
        setTimeout(end, TERMINATE_TIMEOUT_MS, how).unref();
      });
    });
  }

  /** Undefined when it could not be run. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  boot(order: KernelOrder): void {
    this.#send({ kind: 'boot', order });
  }

  /** Hands over a connection and keeps this side of it open: only the kernel's `taken` says that it has arrived. */
  give(id: number, socket: Socket): void {
    this.#send({ kind: 'connection', id }, socket);
  }

  /** Asks it to end, and sees to it. */
  async stop(): Promise<void> {
    this.#send({ kind: 'stop' });
    const force = setTimeout(() => this.#fail(`had not stopped after ${KERNEL_STOP_TIMEOUT_MS} ms`), KERNEL_STOP_TIMEOUT_MS);
    await this.ended;
    clearTimeout(force);
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  #fail(failure: string): void {
    this.#failure ??= failure;
    this.kill();
  }

  #send(message: GuardianMessage, socket?: Socket): void {
    if (!this.#child.connected) return;
    // A channel that breaks meanwhile is its end, of which `ended` tells.
    this.#child.send(message, socket, { keepOpen: true }, () => {});
  }
}
