// Compiles the system into `dist`. What runs in a process or a thread of its own becomes one file there, which loads several times as fast. Must not know what the parts do.
import { execFileSync } from 'node:child_process';
import { readFile, rm } from 'node:fs/promises';
import { resolve } from 'node:path';
import { build } from 'esbuild';

const common = { outbase: '.', outdir: 'dist', format: 'esm', platform: 'node', target: 'node20', logLevel: 'warning' };
const bundled = { ...common, bundle: true, minifyWhitespace: true, minifySyntax: true, allowOverwrite: true };
// CommonJS packages inside an ES module need `require`.
const withRequire = { banner: { js: `import { createRequire as bundleRequire } from 'node:module'; const require = bundleRequire(import.meta.url);` } };
/** The host's errors are the plugin's, and those are what `bulkhead/protocol` has: a second copy would be another class. */
const errorsOfProtocol = {
  name: 'errors-of-protocol',
  setup({ onResolve }) {
    onResolve({ filter: /\/errors\.js$/ }, ({ path, resolveDir }) => (resolve(resolveDir, path) === resolve('protocol/errors.js') ? { path: '../../protocol/errors.js', external: true } : null));
  },
};

// No ES module, because Node gives V8's compiled code only to a script.
const script = { format: 'cjs', outExtension: { '.js': '.cjs' }, banner: { js: `const scriptUrl = require('node:url').pathToFileURL(__filename).href;` }, define: { 'import.meta.url': 'scriptUrl' } };

await rm('dist/kernel/host/main.cache', { force: true });
await build({ ...common, entryPoints: ['kernel/**/*.ts', 'protocol/*.ts'] });
await build({ ...common, format: 'cjs', outExtension: { '.js': '.cjs' }, entryPoints: ['kernel/host/entry.cts'] });
await Promise.all([
  build({ ...bundled, ...withRequire, entryPoints: ['kernel/process/entry.ts'], external: ['piscina', 'esbuild', '@fastify/swagger-ui'] }),
  build({ ...bundled, ...script, entryPoints: ['kernel/host/main.ts'], plugins: [errorsOfProtocol] }),
  buildTypeBox(),
]);
// With the flags that the guardian gives the kernel: compiled code is of use to a V8 with the same ones.
execFileSync(process.execPath, ['--expose-gc', 'dist/kernel/host/compile.js'], { env: {}, stdio: 'inherit' });

/** The package that most plugins use, with all that can be imported from it: workers load it before they know their plugin. */
async function buildTypeBox() {
  const name = '@sinclair/typebox';
  const { exports } = JSON.parse(await readFile(`node_modules/${name}/package.json`, 'utf8'));
  const entryPoints = Object.keys(exports).map((path) => ({ in: `${name}${path.slice(1)}`, out: path === '.' ? 'index' : path.slice(2) }));
  await build({ ...bundled, ...withRequire, entryPoints, splitting: true, outdir: 'dist/kernel/host/typebox' });
}
