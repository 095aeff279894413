// The keys that are known, compared without telling how near a guess was.
import { createHash, timingSafeEqual } from 'node:crypto';

export class Keys {
  /** Digests have one length, so that a comparison tells nothing of a key's. */
  readonly #digests: readonly Buffer[];

  /** From a list with commas. Throws when it has none. */
  constructor(list = '') {
    this.#digests = list.split(',').map((key) => key.trim()).filter((key) => key !== '').map(digest);
    if (this.#digests.length === 0) throw new Error('there are no keys: set PLUGIN_AUTH_KEYS to one or more, separated by commas');
  }

  has(key: string): boolean {
    const given = digest(key);
    let known = false;
    // All of them, so that the time does not tell which one it was.
    for (const one of this.#digests) known = timingSafeEqual(one, given) || known;
    return known;
  }
}

function digest(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}
