// Measures what plugins cost that nobody asks for anything: memory, the time until they run, and the kernel's time on a core.
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { QUIET_LOOKS_MAX, QUIET_LOOK_INTERVAL_MS } from '../../protocol/limits.js';
import { cpuTime } from './cpu.js';
import { withDatabase } from './database.js';
import { residentMb } from './memory.js';
import { end, startKernel, type Server } from './servers.js';
import { table } from './table.js';

export const IDLE = 'idle plugins';

/** The first is what the others are compared with: the kernel itself weighs as much in all. */
const COUNTS = [1, 20, 50] as const;
/** Until the standby is booted, all workers have collected what their boots have left behind, and V8 has looked once more, which it does after 8 s. */
const REST_MS = (QUIET_LOOKS_MAX + 1) * QUIET_LOOK_INTERVAL_MS + 10_000;
const WATCHED_MS = 3_000;
/** What we mean to reach, for one plugin in MiB and for the last count in milliseconds. */
const TARGETS = { rssPerPluginMb: 16, loadMs: 6_000 } as const;

interface Row {
  readonly plugins: number;
  /** From the start of the guardian until every plugin is `running`. */
  readonly loadMs: number;
  /** Of the kernel's process; null where the system does not tell, here and below. */
  readonly rssMb: number | null;
  /** Of the kernel's process, for a core. */
  readonly cpuPercent: number | null;
  /** What each plugin beyond the first has added; null for the first. */
  readonly rssPerPluginMb: number | null;
}

export interface IdleReport {
  readonly targets: typeof TARGETS;
  readonly rows: readonly Row[];
  /** How long an operator's verbs took, all at once, to load and start as many plugins as make the largest count of one. */
  readonly verbsMs: number;
}

const nameOf = (index: number): string => `idle-${index + 1}`;
const PLUGIN = (name: string): string => `
  import { Type } from '@sinclair/typebox';
  import { definePlugin } from 'bulkhead/protocol';

  export default definePlugin({
    name: '${name}',
    version: '1.0.0',
    async routes(app) {
      app.get('/:id', { schema: { params: Type.Object({ id: Type.Integer({ minimum: 1 }) }), response: { 200: Type.Object({ message: Type.String() }) } } },
        async ({ params }) => ({ message: \`Hello from \${params.id}\` }));
    },
  });`;

export async function measureIdle(): Promise<IdleReport> {
  return withDatabase(async (dataDir, databaseUrl) => {
    const folder = join(dataDir, 'plugins');
    const names = Array.from({ length: COUNTS.at(-1)! }, (_, index) => nameOf(index));
    for (const name of names) {
      await mkdir(join(folder, name), { recursive: true });
      await writeFile(join(folder, name, 'plugin.ts'), PLUGIN(name));
    }
    const rows: Row[] = [];
    let verbsMs = 0;
    for (const plugins of COUNTS) {
      const began = performance.now();
      const server = await startKernel({ DATABASE_URL: databaseUrl, DATA_DIR: dataDir, PLUGINS_DIR: folder, PLUGINS_ENABLED: names.slice(0, plugins).join(',') });
      try {
        const loadMs = performance.now() - began;
        const { rssMb, cpuPercent } = await watch(server, plugins);
        const alone = rows[0] ?? null;
        rows.push({ plugins, loadMs, rssMb, cpuPercent, rssPerPluginMb: alone === null || rssMb === null ? null : (rssMb - alone.rssMb!) / (plugins - alone.plugins) });
        if (alone === null) verbsMs = await loadByVerbs(server.url, names.slice(1));
      } finally {
        await end(server.process);
      }
    }
    return { targets: TARGETS, rows, verbsMs };
  });
}

/** What a kernel has when it is left in peace. */
async function watch({ url, pid }: Server, count: number): Promise<Pick<Row, 'rssMb' | 'cpuPercent'>> {
  await expectRunning(url, count);
  await delay(REST_MS);
  const [before, began] = [await cpuTime(pid), performance.now()];
  await delay(WATCHED_MS);
  const [after, passedMs] = [await cpuTime(pid), performance.now() - began];
  return { rssMb: await residentMb(pid), cpuPercent: before === null || after === null ? null : (after.all - before.all) / 10 / passedMs };
}

/** Returns the milliseconds it took. */
async function loadByVerbs(url: string, names: readonly string[]): Promise<number> {
  const began = performance.now();
  await Promise.all(names.map(async (name) => {
    for (const verb of ['load', 'start']) {
      const answer = await fetch(`${url}/plugins/${verb}/${name}`, { method: 'POST' });
      if (answer.status !== 200) throw new Error(`${verb} of ${name} answered ${answer.status}: ${await answer.text()}`);
      await answer.text();
    }
  }));
  const tookMs = performance.now() - began;
  await expectRunning(url, names.length + 1);
  return tookMs;
}

async function expectRunning(url: string, count: number): Promise<void> {
  const plugins = (await (await fetch(`${url}/plugins`)).json()) as { status: string }[];
  const running = plugins.filter(({ status }) => status === 'running').length;
  if (running !== count) throw new Error(`${running} of ${count} plugins are running`);
}

export function idleTable({ rows, verbsMs }: IdleReport): string {
  const text = (value: number | null, digits: number): string => value?.toFixed(digits) ?? '';
  const last = rows.at(-1)!;
  return [
    table([
      [IDLE, 'RSS MiB', 'per plugin', 'target', 'running after s', 'target', 'CPU, % of a core'],
      ...rows.map((row) => [
        String(row.plugins).padStart(IDLE.length), text(row.rssMb, 0), text(row.rssPerPluginMb, 1), row.rssPerPluginMb === null ? '' : text(TARGETS.rssPerPluginMb, 0),
        text(row.loadMs / 1_000, 1), row === last ? text(TARGETS.loadMs / 1_000, 0) : '', text(row.cpuPercent, 1),
      ]),
    ]),
    `${last.plugins - 1} more, loaded and started by an operator's verbs: ${text(verbsMs / 1_000, 1)} s\n`,
  ].join('');
}
