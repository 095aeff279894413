// The folder of each worker: what its plugin may read, linked there, and removed with it. Must not know who lives in it.
import { copyFile, link, mkdir, readdir, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { PLUGIN_FILES_MAX } from '../../protocol/limits.js';

export class Berths {
  readonly #dir: string;
  readonly #taken = new Set<string>();
  /** Berths that are being furnished. */
  readonly #work = new Map<string, Promise<void>>();
  #last = 0;

  /** `dir` is absolute. */
  constructor(dir: string) {
    this.#dir = dir;
  }

  /** Removes what kernels have left behind that did not get to it. */
  async clear(): Promise<void> {
    for (const name of await readdir(this.#dir).catch(() => [])) {
      if (!isRunning(Number(name.split('-')[0]))) await rm(join(this.#dir, name), { recursive: true, force: true });
    }
  }

  /** Berths that were assigned and not left, those that are being removed included. */
  get count(): number {
    return this.#taken.size;
  }

  /** The path of a berth that nobody has had, which `furnish` makes. */
  assign(): string {
    const berth = join(this.#dir, `${process.pid}-${(this.#last += 1)}`);
    this.#taken.add(berth);
    return berth;
  }

  /** The URL that a bundle has in a berth that is furnished with it. */
  bundleIn(berth: string, bundle: string): string {
    return pathToFileURL(join(berth, basename(fileURLToPath(bundle)))).href;
  }

  /**
   * Puts a bundle and the other files of the plugin's folder into a berth, so that paths relative to the plugin file hold. Links and no copies
   * where the file system can; symbolic links, packages and hidden files stay out.
   */
  async furnish(berth: string, bundle: string, folder: string): Promise<void> {
    const work = this.#furnish(berth, bundle, folder).finally(() => this.#work.delete(berth));
    this.#work.set(berth, work);
    return work;
  }

  async #furnish(berth: string, bundle: string, folder: string): Promise<void> {
    const [files] = await Promise.all([listFiles(folder), mkdir(berth, { recursive: true })]);
    for (const { path, isFolder } of files) if (isFolder) await mkdir(join(berth, path));
    await Promise.all([
      linkOrCopy(fileURLToPath(bundle), fileURLToPath(this.bundleIn(berth, bundle))),
      ...files.filter(({ isFolder }) => !isFolder).map(({ path }) => linkOrCopy(join(folder, path), join(berth, path))),
    ]);
  }

  async leave(berth: string): Promise<void> {
    // Its worker may have died before everything was there, which would be there after the removal.
    await this.#work.get(berth)?.catch(() => {});
    // What cannot be removed now is removed by the `clear` of a later kernel.
    await rm(berth, { recursive: true, force: true }).catch(() => {});
    this.#taken.delete(berth);
  }
}

interface Entry {
  /** Relative; a folder comes before what is in it. */
  readonly path: string;
  readonly isFolder: boolean;
}

async function listFiles(folder: string): Promise<Entry[]> {
  const found: Entry[] = [];
  const folders = [''];
  for (let path = folders.shift(); path !== undefined; path = folders.shift()) {
    // A folder that was taken away leaves the plugin its code, which is in the bundle.
    for (const entry of await readdir(join(folder, path), { withFileTypes: true }).catch(() => [])) {
      if (entry.name.startsWith('.') || entry.name === 'node_modules') continue;
      const inside = join(path, entry.name);
      if (entry.isDirectory()) folders.push(inside);
      if (entry.isDirectory() || entry.isFile()) found.push({ path: inside, isFolder: entry.isDirectory() });
      if (found.length > PLUGIN_FILES_MAX) throw new Error(`its folder has more than ${PLUGIN_FILES_MAX} files; keep data elsewhere and ask for the permission to read it`);
    }
  }
  return found;
}

async function linkOrCopy(from: string, to: string): Promise<void> {
  // On another file system, or where links are not allowed.
  await link(from, to).catch(() => copyFile(from, to));
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
