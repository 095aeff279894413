// A folder that appears whole or not at all: filled under a temporary name, then renamed. Must not know what is in it.
import { lstat, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { EMBEDDED_COMMAND_TIMEOUT_MS } from '../../protocol/database-limits.js';

/** Filling takes at most two commands of bounded time (initdb, then the database): what is older, nobody is at work in. */
const ABANDONED_AFTER_MS = 2 * EMBEDDED_COMMAND_TIMEOUT_MS;

/** Names under which attempts are made; every target begins with `postgres`. */
const ATTEMPT = /^postgres.*\.tmp(-\w+)?$/;

/**
 * Makes the folder `target` out of what `fill` puts into the temporary folder (mode 700) that it is given.
 * When someone else made `target` first, theirs stays and ours is thrown away. Throws what `fill` throws.
 */
export async function stageFolder(target: string, fill: (temporary: string) => Promise<void>): Promise<void> {
  await removeAbandoned(dirname(target));
  const temporary = await mkdtemp(`${target}.tmp-`);
  try {
    await fill(temporary);
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    // The first two when a folder is there by now, the last when it is a link to one.
    if (!['ENOTEMPTY', 'EEXIST', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

/** A killed run leaves its attempt behind; it is never used, but takes 40 MB. */
async function removeAbandoned(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (!ATTEMPT.test(name)) continue;
    const path = join(folder, name);
    // Gone by now when it was another start's attempt and has just got its name.
    const found = await lstat(path).catch(() => undefined);
    if (found !== undefined && Date.now() - found.mtimeMs > ABANDONED_AFTER_MS) await rm(path, { recursive: true, force: true });
  }
}
