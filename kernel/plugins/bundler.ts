// Turns a plugin's folder into one JavaScript file that a plain worker can import. Must not know what a plugin is or does.
import { mkdir, readdir, rename, stat, unlink, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { BuildFailure, BuildOptions, OutputFile, Plugin } from 'esbuild';
import { BUNDLER_IDLE_MS } from '../../protocol/limits.js';
import { OWN_PACKAGES } from './walls.js';

/** Of the built kernel: `dist/protocol/index.js`. */
const PROTOCOL = new URL('../../protocol/index.js', import.meta.url).href;

/** CommonJS packages inside an ES module need `require`. */
const BANNER = `import { createRequire as bulkheadCreateRequire } from 'node:module'; const require = bulkheadCreateRequire(import.meta.url);`;

/** Of the built kernel: one file for each path of the package. */
const TYPEBOX = new URL('../host/typebox/', import.meta.url).href;
const TYPEBOX_FOLDER = join(OWN_PACKAGES, '@sinclair/typebox');
/** Marks the question of where a path leads that is asked to answer another. */
const ASKED = {};

/** One copy of the protocol for host and plugin, wherever the plugin's folder is; native modules stay where they are. */
const externals: Plugin = {
  name: 'bulkhead-externals',
  setup(build) {
    build.onResolve({ filter: /^bulkhead\/protocol$/ }, () => ({ path: PROTOCOL, external: true }));
    // A worker has loaded Bulkhead's own TypeBox before it gets its plugin. One that the plugin brings along goes into its bundle.
    build.onResolve({ filter: /^@sinclair\/typebox(\/\w+)?$/ }, async ({ path, kind, importer, resolveDir, pluginData }) => {
      if (pluginData === ASKED || kind === 'require-call') return null;
      const { path: file } = await build.resolve(path, { kind, importer, resolveDir, pluginData: ASKED });
      return file.startsWith(TYPEBOX_FOLDER) ? { path: `${TYPEBOX}${path.split('/')[2] ?? 'index'}.js`, external: true } : null;
    });
    build.onResolve({ filter: /\.node$/ }, ({ path, resolveDir }) => ({ path: resolve(resolveDir, path), external: true }));
  },
};

/** esbuild's child process, of which there is one, whoever asks for it. To end it would leave who is asking without an answer for ever. */
class Compiler {
  #asking = 0;
  #idle: NodeJS.Timeout | null = null;

  async build(options: BuildOptions & { readonly write: false }): Promise<OutputFile[]> {
    this.#asking += 1;
    clearTimeout(this.#idle ?? undefined);
    try {
      const { build } = await import('esbuild');
      return (await build(options)).outputFiles;
    } finally {
      this.#asking -= 1;
      this.#idle = setTimeout(() => void this.rest(), BUNDLER_IDLE_MS).unref();
    }
  }

  /** Ends it when nobody is asking. */
  async rest(): Promise<void> {
    clearTimeout(this.#idle ?? undefined);
    const { stop } = await import('esbuild');
    if (this.#asking === 0) await stop();
  }
}

const compiler = new Compiler();

export class Bundler {
  readonly #cacheDir: string;

  constructor(cacheDir: string) {
    this.#cacheDir = cacheDir;
  }

  /**
   * Bundles a plugin. What `present` is the URL of, an older bundle, is kept. Returns the URL of the bundle, whose name contains a hash of its content.
   * Throws an Error whose message lists `file:line: text` for each problem.
   */
  async bundle(name: string, entry: string, present?: string): Promise<string> {
    try {
      const [output] = await compiler.build({
        entryPoints: [entry], bundle: true, write: false, platform: 'node', format: 'esm', target: 'node20', sourcemap: 'inline', sourcesContent: false,
        banner: { js: BANNER }, nodePaths: [OWN_PACKAGES], // a plugin outside of Bulkhead's folder may use its packages too
        plugins: [externals], logLevel: 'silent', absWorkingDir: dirname(entry),
      });
      return await this.#store(name, output!, present);
    } catch (error) {
      throw new Error(readable(error as BuildFailure), { cause: error });
    }
  }

  /** Ends the bundler's child process. */
  close(): Promise<void> {
    return compiler.rest();
  }

  async #store(name: string, output: OutputFile, present: string | undefined): Promise<string> {
    // esbuild has hashed the content already, in its own process.
    const file = join(this.#cacheDir, `${name}-${Buffer.from(output.hash, 'base64').toString('hex')}.mjs`);
    await mkdir(this.#cacheDir, { recursive: true });
    if (!(await stat(file).catch(() => null))) {
      await writeFile(`${file}.tmp`, output.contents);
      await rename(`${file}.tmp`, file);
    }
    await this.#forgetOthers(name, present === undefined ? [file] : [file, fileURLToPath(present)]);
    return pathToFileURL(file).href;
  }

  /** Older bundles of this plugin; a running worker has read its own into memory. */
  async #forgetOthers(name: string, keep: readonly string[]): Promise<void> {
    const pattern = new RegExp(`^${name}-[0-9a-f]+\\.mjs$`);
    const old = (await readdir(this.#cacheDir)).map((file) => join(this.#cacheDir, file)).filter((file) => !keep.includes(file) && pattern.test(file.slice(this.#cacheDir.length + 1)));
    await Promise.all(old.map((file) => unlink(file).catch(() => {})));
  }
}

function readable(failure: BuildFailure): string {
  if (!Array.isArray(failure.errors)) return failure.message;
  return failure.errors.map(({ location, text }) => (location === null ? text : `${location.file}:${location.line}: ${text}`)).join('; ');
}
