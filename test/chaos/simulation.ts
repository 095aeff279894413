// One kernel under load and faults, in rounds that each end at rest: the same seed makes the same decisions. Must not know who asked for it.
import { setTimeout as delay } from 'node:timers/promises';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import type * as EmbeddedModule from '../../kernel/database/embedded.js';
import { rawRequest, ROOT, startTestKernel, type TestKernel } from '../helpers/kernel.js';
import { FRAGILE, LOADED, NEIGHBOURS, peerOf } from './acts.js';
import { Chronicle } from './chronicle.js';
import { loadUntil } from './clients.js';
import { injectFaultsUntil } from './faults.js';
import { Ledger } from './ledger.js';
import { Operator } from './operator.js';
import { Oracle } from './oracle.js';
import { Random } from './random.js';
import { Report } from './report.js';
import { leftOver, look, type Rest } from './rest.js';

/** Gets what has to be undone at the end, as a test of tap does. */
export type Owner = Parameters<typeof startTestKernel>[0];

const WARM_UP_MS = 1_500;
/** Leases go back after two seconds, the bundler ends after five, and a busy machine takes its time. */
const REST_MAX_MS = 20_000;
/** How often the kernel is asked whether it lives. */
const PULSE_MS = 200;
const PULSE_MAX_MS = 5_000;

export class Simulation {
  readonly #kernel: TestKernel;
  readonly #db: pg.Client;
  readonly #chronicle: Chronicle;
  readonly #ledger = new Ledger();
  readonly #oracle: Oracle;
  #before: Rest | null = null;

  private constructor(kernel: TestKernel, db: pg.Client) {
    this.#kernel = kernel;
    this.#db = db;
    this.#chronicle = new Chronicle(kernel.kernel.supervisor);
    this.#oracle = new Oracle(this.#chronicle);
  }

  /** A kernel with its database and the plugins under load. */
  static async start(owner: Owner): Promise<Simulation> {
    const url = await startDatabase(owner);
    const db = new pg.Client({ connectionString: url, application_name: 'chaos' });
    await db.connect();
    owner.teardown(() => db.end());
    await Ledger.createTables(db);
    const kernel = await startTestKernel(owner, { PLUGINS_ENABLED: 'hello,items', DATABASE_URL: url, LOG_LEVEL: 'error' });
    for (const [i, name] of FRAGILE.entries()) {
      // The second one finds no standby worker that fits.
      const options = { name, peer: peerOf(name), heapMb: i === 0 ? 64 : 48 };
      await kernel.writePlugin(name, `import { fragile } from ${JSON.stringify(join(ROOT, 'test/chaos/fragile.ts'))};\nexport default fragile(${JSON.stringify(options)});\n`);
      for (const verb of ['load', 'start'] as const) await kernel.verb(verb, name);
      await kernel.until(name, 'running');
    }
    return new Simulation(kernel, db);
  }

  /** Load and faults for this long, then a look at what is left. */
  async round(seed: number, durationMs: number): Promise<Report> {
    this.#before ??= await this.#warmUp();
    const report = new Report(seed, this.#chronicle);
    const random = new Random(seed);
    const end = performance.now() + durationMs;
    const { url } = this.#kernel;
    const shared = { url, kernel: this.#kernel, chronicle: this.#chronicle, ledger: this.#ledger, oracle: this.#oracle, report };
    const operator = new Operator({ ...shared, random: random.fork() });
    await Promise.all([
      loadUntil(end, { ...shared, random: random.fork() }),
      injectFaultsUntil(end, { ...shared, random: random.fork() }),
      operator.workUntil(end),
      this.#feelPulseUntil(end, report),
    ]);
    await operator.restoreAll(LOADED);
    for (const line of await this.#comeToRest(this.#before)) report.violation(`left over: ${line}`);
    for (const line of await this.#ledger.settle(this.#db)) report.violation(line);
    for (const plugin of NEIGHBOURS) if (this.#chronicle.deaths(plugin) > 0) report.violation(`the neighbour ${plugin} died`, [plugin]);
    for (const plugin of LOADED) for (const boot of this.#chronicle.failedBoots(plugin)) report.violation(`${plugin} did not come back at the first try: ${boot}`);
    report.deaths = FRAGILE.reduce((sum, plugin) => sum + this.#chronicle.deaths(plugin), 0);
    this.#chronicle.clear();
    this.#oracle.clear();
    return report;
  }

  /** The first requests make what is made once: connections, and the threads of Node's own pool. */
  async #warmUp(): Promise<Rest> {
    const report = new Report(0, this.#chronicle);
    await loadUntil(performance.now() + WARM_UP_MS, { url: this.#kernel.url, random: new Random(0), ledger: this.#ledger, oracle: this.#oracle, report });
    if (report.violations.length > 0) throw new Error(`it does not work without faults: ${report.violations.join('\n')}`);
    let before = await this.#look();
    // The leases of the warm-up go back, and then nothing changes any more.
    for (const began = performance.now(); performance.now() - began < REST_MAX_MS;) {
      await delay(500);
      const now = await this.#look();
      if (now.held.connections === 0 && leftOver(now, before).length === 0) break;
      before = now;
    }
    await this.#ledger.settle(this.#db);
    return before;
  }

  /** Returns what is still different when there has been time enough. */
  async #comeToRest(before: Rest): Promise<string[]> {
    const latest = performance.now() + REST_MAX_MS;
    for (;;) {
      const lines = leftOver(before, await this.#look());
      if (lines.length === 0 || performance.now() > latest) return lines;
      await delay(100);
    }
  }

  #look(): Promise<Rest> {
    return look(this.#kernel, this.#db);
  }

  async #feelPulseUntil(end: number, report: Report): Promise<void> {
    while (performance.now() < end) {
      const from = performance.now();
      const { status } = await rawRequest(this.#kernel.url, 'GET', '/health/live');
      const ms = performance.now() - from;
      if (status !== 200 || ms > PULSE_MAX_MS) report.violation(`GET /health/live had ${status} after ${ms.toFixed(0)} ms`);
      await delay(PULSE_MS);
    }
  }
}

/** Its own, so that it can be asked without the kernel. Returns its URL. */
async function startDatabase(owner: Owner): Promise<string> {
  const { startEmbeddedDatabase } = (await import(join(ROOT, 'dist/kernel/database/embedded.js'))) as typeof EmbeddedModule;
  const dataDir = await mkdtemp(join(tmpdir(), 'bulkhead-chaos-'));
  const database = await startEmbeddedDatabase({ dataDir, user: 'bulkhead', database: 'chaos', log: { info() {}, warn() {} } });
  owner.teardown(async () => {
    await database.stop();
    await rm(dataDir, { recursive: true, force: true });
  });
  return database.url;
}
