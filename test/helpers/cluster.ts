// A new database for a data directory, copied from one that is made once for all tests: to make one takes ten times as long. Must not know who starts it.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { access, mkdir, mkdtemp, readFile, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type * as BinariesModule from '../../kernel/database/postgres-binaries.js';
import type * as ClusterModule from '../../kernel/database/postgres-cluster.js';
import type * as StagedModule from '../../kernel/database/staged-folder.js';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const BUILT = join(ROOT, 'dist/kernel/database');
/** For all test processes; tap's own folder, which git ignores. */
const PATTERNS = join(ROOT, '.tap/clusters');
const log = { info() {}, warn() {} };

/** What the first start in a data directory makes. */
export interface Names { readonly user: string; readonly database: string }

/** Puts the database where a start looks for it. Does nothing where there is one, and where none could be run in this folder. */
export async function bringCluster(dataDir: string, { user, database }: Names = { user: 'bulkhead', database: 'bulkhead' }): Promise<void> {
  const place = join(dataDir, 'postgres');
  if (await exists(place)) return;
  const [{ findBundledPostgres }, { openCluster }] = await Promise.all([
    import(join(BUILT, 'postgres-binaries.js')) as Promise<typeof BinariesModule>,
    import(join(BUILT, 'postgres-cluster.js')) as Promise<typeof ClusterModule>,
  ]);
  const binaries = await findBundledPostgres();
  const origin = [JSON.stringify([binaries, user, database]), await readFile(join(BUILT, 'postgres-cluster.js'), 'utf8')];
  await bringCopy(place, origin, async (folder) => {
    const cluster = await openCluster({ dataDir: folder, user, database, binaries, log });
    return dirname(cluster.folder) === folder ? cluster.folder : null;
  });
}

/**
 * Copies to `place` what `make` has made, in a temporary folder or before that for another test of the same `origin`.
 * It answers where it is; null, when it cannot be copied: then `place` stays empty. Owners are kept, which for root are other accounts.
 */
export async function bringCopy(place: string, origin: readonly string[], make: (folder: string) => Promise<string | null>): Promise<void> {
  const pattern = join(PATTERNS, `postgres-${createHash('sha256').update(JSON.stringify(origin)).digest('hex').slice(0, 12)}`);
  if (!(await exists(pattern))) {
    await mkdir(PATTERNS, { recursive: true });
    const { stageFolder } = await (import(join(BUILT, 'staged-folder.js')) as Promise<typeof StagedModule>);
    const folder = await realpath(await mkdtemp(join(tmpdir(), 'bulkhead-test-')));
    try {
      const made = await make(folder);
      if (made === null) return;
      await stageFolder(pattern, (temporary) => copy(`${made}/.`, temporary));
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
  await copy(pattern, place);
}

const exists = (path: string): Promise<boolean> => access(path).then(() => true, () => false);

const copy = async (from: string, to: string): Promise<void> => void await promisify(execFile)('cp', ['-a', from, to]);
