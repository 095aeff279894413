// What V8 has compiled of the host is used when it is of this host and whole, and else left alone: damaged, it would end the kernel's process at every boot.
import { execFile } from 'node:child_process';
import { copyFile, cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import t from 'tap';

const DIST = join(process.cwd(), 'dist');
const FILES = ['kernel/host/compiled.js', 'kernel/host/main.cjs', 'kernel/host/main.cache'];

t.test('the compiled host', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'bulkhead-compiled-'));
  t.teardown(() => rm(root, { recursive: true, force: true }));
  await mkdir(join(root, 'kernel/host'), { recursive: true });
  await cp(join(DIST, 'protocol'), join(root, 'protocol'), { recursive: true });
  await writeFile(join(root, 'package.json'), '{"type":"module"}');
  for (const file of FILES) await copyFile(join(DIST, file), join(root, file));
  const cache = join(root, 'kernel/host/main.cache');
  const script = join(root, 'kernel/host/main.cjs');
  const [whole, source] = [await readFile(cache), await readFile(script)];
  /** What another process makes of it, with the flags that the guardian gives the kernel. */
  const compiled = async (keep = false): Promise<{ cached: boolean; host: string }> => {
    const code = `
      import { compileHost } from ${JSON.stringify(pathToFileURL(join(root, 'kernel/host/compiled.js')).href)};
      const { host, cached, keep } = compileHost();
      if (${keep}) keep();
      console.log(JSON.stringify({ cached, host: typeof host.runHost }));`;
    const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', '--input-type=module', '--eval', code], { env: {} });
    return JSON.parse(stdout);
  };

  // The build may have been another Node's.
  t.equal((await compiled(true)).host, 'function');
  const kept = await readFile(cache);
  t.strictSame(await compiled(), { cached: true, host: 'function' });

  const damaged = Buffer.from(kept);
  damaged.fill(0, kept.byteLength >> 1, (kept.byteLength >> 1) + 4_096);
  await writeFile(cache, damaged);
  t.strictSame(await compiled(), { cached: false, host: 'function' }, 'with a page of zeros in the middle');
  await writeFile(cache, kept.subarray(0, kept.byteLength >> 1));
  t.strictSame(await compiled(), { cached: false, host: 'function' }, 'cut off');
  await writeFile(cache, '');
  t.strictSame(await compiled(), { cached: false, host: 'function' }, 'empty');
  await rm(cache);
  t.strictSame(await compiled(), { cached: false, host: 'function' }, 'not there');

  await writeFile(cache, kept);
  await writeFile(script, source.toString('latin1').replace('use strict', 'use strikt'), 'latin1');
  t.strictSame(await compiled(), { cached: false, host: 'function' }, 'of another source that is as long');
  t.ok(whole.byteLength > 100_000, 'the build has made one');
});
