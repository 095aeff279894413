// Where a data directory's cluster is, which account owns it, and how it is first made. Must not know how a server runs.
import { randomUUID } from 'node:crypto';
import { chmod, chown, lchown, lstat, mkdir, readFile, readdir, realpath, rm, stat, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { prepareBinaries } from './postgres-binaries.js';
import type { PostgresBinaries } from './postgres-binaries.js';
import { stageFolder } from './staged-folder.js';
import { findUnprivilegedAccount, mayReach, run, sharedFolder } from './system-account.js';
import type { SystemAccount } from './system-account.js';

export interface ClusterOptions {
  /** Absolute; made when it is not there. */
  readonly dataDir: string;
  /** Superuser and database that a new cluster gets. */
  readonly user: string;
  readonly database: string;
  readonly binaries: PostgresBinaries;
  readonly log: DatabaseLog;
}

export interface DatabaseLog {
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
}

/** A cluster that exists, and what it takes to run its server. */
export interface Cluster {
  /** Absolute, without links. */
  readonly folder: string;
  readonly account: SystemAccount | undefined;
  readonly binaries: PostgresBinaries;
}

/**
 * Finds the cluster `<dataDir>/postgres`, which may be a link, or makes it. Throws when it is another account's, another
 * version's or no cluster, and when it cannot be made.
 */
export async function openCluster(options: ClusterOptions): Promise<Cluster> {
  await mkdir(options.dataDir, { recursive: true });
  const dataDir = await realpath(options.dataDir);
  const place = join(dataDir, 'postgres');
  const existing = await findFolder(place);
  const account = process.getuid?.() === 0 ? await chooseAccount(existing) : undefined;
  const binaries = await prepareBinaries(options.binaries, account, dataDir);
  const reachable = await admit(account, dataDir);
  if (existing !== undefined) {
    await checkCluster(existing, account, binaries.majorVersion);
    return { folder: existing, account, binaries };
  }

  const began = performance.now();
  const fill = (temporary: string): Promise<void> => createCluster(temporary, account, binaries, options);
  if (reachable) await stageFolder(place, fill);
  else await stageElsewhere(place, fill);
  const folder = await realpath(place);
  const details = { folder, runsAs: account?.name, ms: Math.round(performance.now() - began) };
  if (reachable) options.log.info(details, 'database made');
  else options.log.warn(details, `database made outside ${dataDir}, which the user ${account?.name} may not enter; a link there leads to it`);
  return { folder, account, binaries };
}

async function findFolder(place: string): Promise<string | undefined> {
  try {
    return await realpath(place);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  const link = await lstat(place).catch(() => undefined);
  if (!link?.isSymbolicLink()) return undefined;
  throw new Error(`The database that ${place} links to is gone. Bring it back, or remove the link to begin with an empty one.`);
}

/** A cluster keeps its owner, so that one start with sudo does not lock an ordinary user out. */
async function chooseAccount(cluster: string | undefined): Promise<SystemAccount> {
  const owner = cluster === undefined ? undefined : await stat(cluster);
  if (owner === undefined || owner.uid === 0) return findUnprivilegedAccount();
  return { name: String(owner.uid), uid: owner.uid, gid: owner.gid };
}

/** Lets the account pass through the data directory when that is all it takes; false when it cannot get there. */
async function admit(account: SystemAccount | undefined, dataDir: string): Promise<boolean> {
  if (account === undefined || (await mayReach(account, dataDir))) return true;
  const { mode, uid } = await stat(dataDir);
  // Root's own closed folder, as mktemp makes them, is opened for passage only; a folder that somebody shares is not touched.
  if (uid === 0 && (mode & 0o077) === 0 && (await mayReach(account, dirname(dataDir)))) {
    await chown(dataDir, uid, account.gid);
    await chmod(dataDir, 0o710);
  }
  // Asked again in any case: another start on the same folder may have opened it in between.
  return mayReach(account, dataDir);
}

async function checkCluster(folder: string, account: SystemAccount | undefined, majorVersion: number): Promise<void> {
  const { uid } = await stat(folder);
  if (account === undefined && uid !== process.getuid?.()) {
    throw new Error(
      `The database in ${folder} belongs to the user with id ${uid}. Start Bulkhead as that user or as root, or set DATA_DIR to another folder.`,
    );
  }
  // A backup that root has put back.
  if (account !== undefined && uid !== account.uid) await chownTree(folder, account);
  if (!(await mayReach(account, folder))) {
    throw new Error(
      `The user ${account?.name} may not enter ${folder}. Move the database to a folder that other users may enter, and set DATA_DIR to that.`,
    );
  }
  const found = (await readFile(join(folder, 'PG_VERSION'), 'utf8').catch(() => '')).trim();
  if (found === '') throw new Error(`${folder} is not a PostgreSQL cluster. Move it away, or set DATA_DIR to another folder.`);
  if (Number(found) !== majorVersion) {
    throw new Error(
      `The database in ${folder} was made by PostgreSQL ${found}, and this is PostgreSQL ${majorVersion}, which cannot read it. ` +
        `Dump it with the programs of version ${found} (pg_dumpall), move the folder away, start again and restore; ` +
        'or set DATA_DIR to another folder.',
    );
  }
}

async function chownTree(folder: string, account: SystemAccount): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) await chownTree(path, account);
    else await lchown(path, account.uid, account.gid);
  }
  // Last, so that a start that is killed half-way is repeated by the next one.
  await chown(folder, account.uid, account.gid);
}

/** The name says whose it is; its random end keeps a data directory that was emptied from finding what it had before. */
async function stageElsewhere(place: string, fill: (temporary: string) => Promise<void>): Promise<void> {
  const name = dirname(place).replaceAll(/[^A-Za-z0-9.]+/g, '-').slice(-100);
  const folder = join(await sharedFolder(), `postgres${name}-${randomUUID().slice(0, 8)}`);
  await stageFolder(folder, fill);
  try {
    await symlink(folder, place);
  } catch (error) {
    await rm(folder, { recursive: true });
    // Somebody else was faster: theirs is the database.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

async function createCluster(
  folder: string,
  account: SystemAccount | undefined,
  binaries: PostgresBinaries,
  names: Pick<ClusterOptions, 'user' | 'database'>,
): Promise<void> {
  if (account !== undefined) await chown(folder, account.uid, account.gid);
  // The builtin collation gives the same order on every system; older versions have only the C library's.
  const locale = binaries.majorVersion >= 17 ? ['--locale-provider=builtin', '--builtin-locale=C.UTF-8'] : [];
  const args = ['-D', folder, '-U', names.user, '-A', 'trust', '-E', 'UTF8', ...locale, '--locale=C', '--no-instructions'];
  try {
    await run(account, binaries.initdb, args);
    if (names.database === 'postgres') return;
    // In single-user mode and before the folder gets its name: there is never a cluster without its database.
    const statement = `CREATE DATABASE "${names.database.replaceAll('"', '""')}"\n`;
    await run(account, binaries.postgres, ['--single', '-D', folder, '-c', 'exit_on_error=on', 'template1'], statement);
  } catch (error) {
    const reason = (error as Error).message;
    throw new Error(`The embedded database could not be made: ${reason}\nTo use a PostgreSQL of your own, set DATABASE_URL.`, { cause: error });
  }
}
