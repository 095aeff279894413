// Compiles the system into `dist`. What runs in a process or a thread of its own becomes one file there, which loads several times as fast. Must not know what the parts do.
import { readFile } from 'node:fs/promises';
import { build } from 'esbuild';

const common = { outbase: '.', outdir: 'dist', format: 'esm', platform: 'node', target: 'node20', logLevel: 'warning' };
const bundled = {
  ...common, bundle: true, minifyWhitespace: true, minifySyntax: true, allowOverwrite: true,
  // CommonJS packages inside an ES module need `require`.
  banner: { js: `import { createRequire as bundleRequire } from 'node:module'; const require = bundleRequire(import.meta.url);` },
};

await build({ ...common, entryPoints: ['kernel/**/*.ts', 'protocol/*.ts'] });
await Promise.all([
  build({ ...bundled, entryPoints: ['kernel/process/entry.ts'], external: ['piscina', 'esbuild', '@fastify/swagger-ui'] }),
  build({ ...bundled, entryPoints: ['kernel/host/entry.ts'], external: ['../../protocol/*'] }),
  buildTypeBox(),
]);

/** The package that most plugins use, with all that can be imported from it: workers load it before they know their plugin. */
async function buildTypeBox() {
  const name = '@sinclair/typebox';
  const { exports } = JSON.parse(await readFile(`node_modules/${name}/package.json`, 'utf8'));
  const entryPoints = Object.keys(exports).map((path) => ({ in: `${name}${path.slice(1)}`, out: path === '.' ? 'index' : path.slice(2) }));
  await build({ ...bundled, entryPoints, splitting: true, outdir: 'dist/kernel/host/typebox' });
}
