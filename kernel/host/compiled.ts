// The host's one file, compiled: from what V8 made of it when the system was built, if this V8 is like that one. Must not know what is in it.
import { createHash } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { Script } from 'node:vm';
import * as errors from '../../protocol/errors.js';

type Host = typeof import('./main.js');

const FILE = fileURLToPath(new URL('main.cjs', import.meta.url));
/** Compiled functions behind their checksum. They spare a worker a third to half of its boot. */
const CACHE_FILE = fileURLToPath(new URL('main.cache', import.meta.url));
const CHECKSUM_BYTES = 32;

/** What comes out of V8's cache cannot import. */
export const load = (url: string): Promise<unknown> => import(url);

export interface CompiledHost {
  readonly host: Host;
  /** Whether V8 has used what was kept. */
  readonly cached: boolean;
  /** Keeps what has been compiled by now for the workers to come. */
  readonly keep: () => void;
}

export function compileHost(): CompiledHost {
  // esbuild writes ASCII only, and of the encodings this one takes the least memory.
  const source = `(function (require, module, __filename) {${readFileSync(FILE, 'latin1')}\n})`;
  const cachedData = readCache(source);
  // V8 leaves alone what was compiled by another version or with other flags, and compiles anew.
  const script = new Script(source, { filename: FILE, ...(cachedData !== null && { cachedData }) });
  const run = script.runInThisContext() as (require: (name: string) => unknown, module: { exports: object }, filename: string) => void;
  const module = { exports: {} };
  const require = createRequire(FILE);
  run((name) => (name === '../../protocol/errors.js' ? errors : require(name)), module, FILE);
  const keep = (): void => {
    const compiled = script.createCachedData();
    // In one step, because a worker may boot at this moment, and somebody else build.
    const own = `${CACHE_FILE}.${process.pid}`;
    writeFileSync(own, Buffer.concat([checksum(source, compiled), compiled]));
    renameSync(own, CACHE_FILE);
  };
  return { host: module.exports as Host, cached: script.cachedDataRejected === false, keep };
}

/** V8 looks at the length of the source only, and what is damaged would end the process. */
function readCache(source: string): Buffer | null {
  try {
    const file = readFileSync(CACHE_FILE);
    const compiled = file.subarray(CHECKSUM_BYTES);
    return checksum(source, compiled).equals(file.subarray(0, CHECKSUM_BYTES)) ? compiled : null;
  } catch {
    return null; // the host is slower without, and the same
  }
}

function checksum(source: string, compiled: Buffer): Buffer {
  return createHash('sha256').update(source, 'latin1').update(compiled).digest();
}
