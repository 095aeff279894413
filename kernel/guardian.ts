// The parent of the kernel's process: keeps what must outlive a kernel, and always has one or says why not. Must not know HTTP routes, or run code of plugins.
import { mkdir } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { BulkheadError } from '../protocol/errors.js';
import { GUARDIAN_STOP_TIMEOUT_MS, RESTORE_WAIT_MS, SILENT_BOOT_FAILURES_MAX } from '../protocol/guardian-limits.js';
import { backOffMs } from './back-off.js';
import { kernelEnvironment, type Config } from './config.js';
import { startEmbeddedDatabase, type EmbeddedDatabase } from './database/embedded.js';
import { Chronicle } from './guardian/chronicle.js';
import { Harbour } from './guardian/harbour.js';
import { KernelProcess, type KernelEnd } from './guardian/kernel-process.js';
import type { KernelMessage } from './guardian/messages.js';
import { Notice } from './guardian/notice.js';
import { readReport, tidyReports } from './guardian/report.js';
import type { KernelLogger } from './logger.js';

export class Guardian {
  readonly #config: Config;
  readonly #log: KernelLogger['log'];
  readonly #reportsDir: string;
  readonly #chronicle: Chronicle;
  readonly #harbour: Harbour;
  readonly #notice: Notice;
  readonly #stopping = new AbortController();
  #embedded: EmbeddedDatabase | null = null;
  #databaseUrl: string | undefined;
  #url = '';
  #kernel: KernelProcess | null = null;
  /** Why the last kernel could not boot, and when the next one is tried; null once one could. */
  #trouble: { readonly reason: string; readonly retryAfterSeconds: number } | null = null;
  /** Whether any kernel has served yet: before that there is nothing to come back to. */
  #served = false;
  /** Resolves when no kernel is left and none will follow. */
  #watch: Promise<void> = Promise.resolve();
  #stopped: Promise<void> | null = null;

  constructor(config: Config, { log }: KernelLogger) {
    this.#config = config;
    this.#log = log;
    this.#reportsDir = join(config.dataDir, 'reports');
    this.#chronicle = new Chronicle(config.pluginsEnabled);
    this.#notice = new Notice({ databaseUrl: () => this.#databaseUrl, cause: () => this.#cause() });
    this.#harbour = new Harbour(this.#notice.give);
  }

  /** Resolves when the port and the database are there and a first kernel is under way. Rejects, leaving nothing behind, when one of them cannot be had. */
  async start(): Promise<void> {
    const { host, port, dataDir, databaseUrl, embedded } = this.#config;
    await mkdir(dataDir, { recursive: true });
    // For the owner alone: on older versions of Node a report shows the environment.
    await mkdir(this.#reportsDir, { recursive: true, mode: 0o700 });
    this.#url = urlOf(await this.#harbour.listen(host, port));
    try {
      if (databaseUrl === null) this.#embedded = await startEmbeddedDatabase({ dataDir, ...embedded, log: this.#log });
    } catch (error) {
      this.#harbour.close();
      throw error;
    }
    this.#databaseUrl = databaseUrl ?? this.#embedded!.url;
    if (!this.#stopping.signal.aborted) this.#watch = this.#keepKernel();
  }

  /** Accepts nobody new, lets the kernel finish, stops the database: within GUARDIAN_STOP_TIMEOUT_MS. May be called again. */
  stop(): Promise<void> {
    return (this.#stopped ??= Promise.race([this.#stopAll(), delay(GUARDIAN_STOP_TIMEOUT_MS, undefined, { ref: false }).then(() => this.#log.error(`not all has ended after ${GUARDIAN_STOP_TIMEOUT_MS} ms`))]));
  }

  /** Ends the kernel at once. The database ends by itself when this process does. */
  abandon(): void {
    this.#stopping.abort();
    this.#kernel?.kill();
  }

  async #stopAll(): Promise<void> {
    this.#stopping.abort();
    this.#harbour.close();
    await this.#kernel?.stop();
    await this.#watch;
    // Those whom no kernel has taken hear why.
    this.#harbour.shut();
    await Promise.all([this.#notice.close(), this.#embedded?.stop()]);
    this.#log.info('stopped');
  }

  async #keepKernel(): Promise<void> {
    const { signal } = this.#stopping;
    let failures = 0;
    while (!signal.aborted) {
      const end = await this.#runKernel();
      if (signal.aborted) return;
      failures = end.settled ? 0 : failures + 1;
      if (failures === 0) continue;
      const pauseMs = backOffMs(failures);
      this.#trouble = { reason: `it ${end.how}`, retryAfterSeconds: Math.ceil(pauseMs / 1_000) };
      if (failures > SILENT_BOOT_FAILURES_MAX) this.#harbour.shut();
      await delay(pauseMs, undefined, { signal }).catch(() => {});
    }
  }

  async #runKernel(): Promise<KernelEnd> {
    const begun = performance.now();
    const kernel = new KernelProcess({ environment: kernelEnvironment(), reportsDir: this.#reportsDir, onMessage: (message) => this.#hear(kernel, message, begun) });
    this.#kernel = kernel;
    kernel.boot({ config: this.#config, databaseUrl: this.#databaseUrl!, plugins: this.#chronicle.plugins });
    const end = await kernel.ended;
    this.#kernel = null;
    this.#harbour.hold();
    if (!this.#stopping.signal.aborted) await this.#examine(kernel, end);
    return end;
  }

  #hear(kernel: KernelProcess, message: KernelMessage, begun: number): void {
    this.#chronicle.note(message);
    if (message.kind === 'taken') this.#harbour.taken(message.id);
    // The clients of a kernel that died shall find what they had. At the first boot they rather hear that plugins are coming.
    else if (message.kind === 'ready' && this.#served) setTimeout(() => this.#serve(kernel, begun), RESTORE_WAIT_MS).unref();
    else if (message.kind === 'ready' || message.kind === 'booted') this.#serve(kernel, begun);
  }

  #serve(kernel: KernelProcess, begun: number): void {
    if (this.#kernel !== kernel || this.#stopping.signal.aborted || this.#harbour.berth === kernel) return;
    const { appName, pluginsEnabled, databaseUrl } = this.#config;
    const facts = { url: this.#url, kernel: kernel.pid, ms: Math.round(performance.now() - begun) };
    if (this.#served) this.#log.info(facts, `the kernel is back after ${facts.ms} ms`);
    else this.#log.info({ ...facts, plugins: pluginsEnabled, database: databaseUrl === null ? 'embedded' : 'DATABASE_URL' }, `${appName} listens on ${this.#url}`);
    this.#served = true;
    this.#trouble = null;
    this.#harbour.open(kernel);
  }

  /** Finds out who ended it, and says so. */
  async #examine({ pid }: KernelProcess, { how }: KernelEnd): Promise<void> {
    const finding = pid === undefined ? null : await readReport(this.#reportsDir, pid);
    const judgement = this.#chronicle.judge(finding, Date.now());
    const facts = { kernel: pid, report: finding?.file };
    if (judgement === null) this.#log.error(facts, `the kernel ${how}`);
    else {
      const { culprit: { plugin, generation }, death, verdict } = judgement;
      this.#log.error({ ...facts, plugin, generation }, `the kernel ${how}: plugin "${plugin}" took it down (${death.cause}) and is ${verdict}`);
    }
    void tidyReports(this.#reportsDir);
  }

  #cause(): BulkheadError<'KERNEL_STARTING' | 'KERNEL_UNAVAILABLE' | 'KERNEL_STOPPING'> {
    if (this.#stopping.signal.aborted) return new BulkheadError('KERNEL_STOPPING', {});
    if (this.#trouble !== null) return new BulkheadError('KERNEL_UNAVAILABLE', { reason: this.#trouble.reason }, this.#trouble);
    return new BulkheadError('KERNEL_STARTING', {}, { retryAfterSeconds: 1 });
  }
}

/** An address that listens everywhere is reached at home. */
function urlOf({ address, family, port }: AddressInfo): string {
  const host = address === '0.0.0.0' || address === '::' ? 'localhost' : family === 'IPv6' ? `[${address}]` : address;
  return `http://${host}:${port}`;
}
