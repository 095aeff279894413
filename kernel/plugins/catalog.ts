// Which plugins there are: the folders below PLUGINS_DIR that hold a plugin file. Must not know which of them are loaded.
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pluginNameProblem } from '../../protocol/plugin.js';

/** In order of preference within one folder. */
const PLUGIN_FILES = ['plugin.ts', 'plugin.js', 'plugin.mjs'] as const;

export interface CatalogEntry {
  readonly name: string;
  /** Absolute path of the plugin's folder. */
  readonly folder: string;
  /** Absolute path of its plugin file. */
  readonly file: string;
}

export class Catalog {
  readonly #dirs: readonly string[];
  #entries: ReadonlyMap<string, CatalogEntry> = new Map();
  #reading: Promise<void> = Promise.resolve();
  #next: Promise<void> | null = null;

  /** `dirs` are absolute; of two plugins with one name, that of the earlier folder counts. */
  constructor(dirs: readonly string[]) {
    this.#dirs = dirs;
  }

  get names(): readonly string[] {
    return [...this.#entries.keys()].sort();
  }

  get(name: string): CatalogEntry | undefined {
    return this.#entries.get(name);
  }

  /** Reads the folders anew. Callers who come while they are being read share the next reading, which begins after they came. */
  scan(): Promise<void> {
    this.#next ??= this.#reading.then(() => {
      this.#next = null;
      return (this.#reading = this.#read());
    });
    return this.#next;
  }

  /** A folder that does not exist is empty: it may be mounted later. */
  async #read(): Promise<void> {
    const entries = new Map<string, CatalogEntry>();
    for (const dir of this.#dirs) {
      const folders = await readdir(dir).catch(() => []);
      for (const entry of await Promise.all(folders.sort().map((name) => findPlugin(dir, name)))) {
        if (entry !== null && !entries.has(entry.name)) entries.set(entry.name, entry);
      }
    }
    this.#entries = entries;
  }
}

async function findPlugin(dir: string, name: string): Promise<CatalogEntry | null> {
  if (pluginNameProblem(name) !== null) return null;
  for (const candidate of PLUGIN_FILES) {
    const file = join(dir, name, candidate);
    const found = await stat(file).catch(() => null);
    if (found?.isFile() === true) return { name, folder: join(dir, name), file };
  }
  return null;
}
