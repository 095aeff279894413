// Which plugin answers under which path prefix. Must not know whether it runs.

export interface Mounted<T> {
  readonly prefix: string;
  readonly owner: T;
}

export class Mounts<T> {
  readonly #table = new Map<string, T>();
  #longest = 0;
  #version = 0;

  /** Changes with every change of the table. */
  get version(): number {
    return this.#version;
  }

  /** The owner of this very prefix. */
  owner(prefix: string): T | undefined {
    return this.#table.get(prefix);
  }

  /** The first of these prefixes that belongs to somebody else. */
  taken(owner: T, prefixes: readonly string[]): Mounted<T> | undefined {
    for (const prefix of prefixes) {
      const present = this.#table.get(prefix);
      if (present !== undefined && present !== owner) return { prefix, owner: present };
    }
    return undefined;
  }

  /** Replaces all prefixes of an owner; none of them may belong to another. */
  set(owner: T, prefixes: readonly string[]): void {
    for (const [prefix, present] of this.#table) if (present === owner) this.#table.delete(prefix);
    for (const prefix of prefixes) this.#table.set(prefix, owner);
    this.#longest = Math.max(0, ...[...this.#table.keys()].map((prefix) => prefix.split('/').length - 1));
    this.#version += 1;
  }

  /** Finds the longest prefix, in whole segments, of a path without its query. */
  resolve(path: string): Mounted<T> | undefined {
    let end = 0;
    let found: Mounted<T> | undefined;
    for (let segment = 0; segment < this.#longest && end < path.length; segment += 1) {
      const next = path.indexOf('/', end + 1);
      end = next === -1 ? path.length : next;
      const prefix = path.slice(0, end);
      const owner = this.#table.get(prefix);
      if (owner !== undefined) found = { prefix, owner };
    }
    return found;
  }
}
