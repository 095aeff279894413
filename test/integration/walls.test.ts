// What a plugin may touch of the machine: its own files and packages, and nothing else that it was not granted.
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import t, { type Test } from 'tap';
import { eventually, FIXTURES, PLUGINS, ROOT, startTestKernel, type TestKernel } from '../helpers/kernel.js';

const NETWORK_HAS_A_WALL = process.allowedNodeEnvironmentFlags.has('--allow-net');

/** What Node's permission model says, and what the host says for what that leaves open. */
const DENIED = 'ERR_ACCESS_DENIED';

/** Files that would tell or change too much: of the operator, of the kernel, of others. */
interface Targets { readonly secret: string; readonly writable: string }

/** A file like the operator's `.env`, and a folder that anyone may write to. */
async function targets(t: Test): Promise<Targets> {
  const dir = await mkdtemp(join(tmpdir(), 'bulkhead-walls-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  await writeFile(join(dir, '.env'), 'OPERATOR_TOKEN=very-secret');
  return { secret: join(dir, '.env'), writable: join(dir, 'over') };
}

async function climb(kernel: TestKernel, way: string, path = '', plugin = 'climber'): Promise<{ readonly did?: unknown; readonly refused?: string; readonly message?: string }> {
  return (await kernel.get(`/plugins/${plugin}/climb/${way}?path=${encodeURIComponent(path)}`)).json;
}

async function assertWalled(t: Test, kernel: TestKernel, { secret, writable }: Targets): Promise<void> {
  const refused = async (way: string, path: string, what: string): Promise<void> => { t.match(await climb(kernel, way, path), { refused: DENIED }, `${what}: refused`); };
  for (const way of ['read', 'import'] as const) await refused(way, secret, `${way} a .env`);
  await refused('read', join(ROOT, '.env'), 'read a .env beside the kernel, whether there is one or not');
  await refused('read', join(ROOT, 'package.json'), 'read a file of the working directory');
  await refused('read', join(PLUGINS, 'hello/plugin.ts'), "read another plugin's code");
  await refused('list', join(FIXTURES, 'observer'), "list another plugin's folder");
  await refused('read', join(FIXTURES, 'climber/plugin.ts'), 'read its own source, which is not what it runs');
  for (const dir of ['', 'berths', 'bundles', 'postgres']) await refused('list', join(kernel.dataDir, dir), `list DATA_DIR/${dir}`);
  for (const way of ['read', 'import'] as const) await refused(way, join(ROOT, 'dist/kernel/config.js'), `${way} the kernel's code`);
  await refused('read', '/etc/passwd', 'read /etc/passwd');
  await refused('read', '/proc/self/environ', 'read the environment of the process');
  await refused('write', writable, 'write to the folder for temporary files');
  await refused('write', join(kernel.dataDir, 'over'), 'write to DATA_DIR');
  await refused('write-own-folder', '', 'write to its own folder');
  await refused('link', secret, 'a symbolic link to a secret');
  for (const way of ['child-process', 'worker', 'kill', 'kill-below', 'priority', 'binding', 'v8-flags', 'heap-limit', 'main-thread', 'debugger']) await refused(way, '', way);
  t.match(await climb(kernel, 'report'), { refused: 'TypeError' }, 'report: it has none');
  await refused('heap-snapshot', writable, 'write a heap snapshot');
  // What Node itself gives to no worker, or to none of this version.
  for (const way of ['chdir', 'abort']) t.match(await climb(kernel, way), { refused: 'ERR_WORKER_UNSUPPORTED_OPERATION' }, `${way}: no worker can`);
  for (const way of ['debug-process', 'user']) t.match(await climb(kernel, way), { refused: /^(ERR_ACCESS_DENIED|ERR_WORKER_UNSUPPORTED_OPERATION|TypeError)$/ }, `${way}: refused`);
  const { port } = new URL(kernel.url);
  t.match(await climb(kernel, 'network', port), NETWORK_HAS_A_WALL ? { refused: DENIED } : { did: 'connected' }, NETWORK_HAS_A_WALL ? 'network: refused' : 'network: this Node has no wall there');

  const seen = (await kernel.get('/plugins/climber/seen')).json;
  t.strictSame(seen.environment, { PLUGIN_CLIMBER_WORD: 'mast' }, 'it sees its own variables only');
  t.match(seen, { execArgv: [], parentPort: null, workerData: null }, 'and neither flags nor ports');

  t.strictSame(await climb(kernel, 'own-file'), { did: 'ahoy\n' }, 'a file beside its code can be read');
  t.strictSame(await climb(kernel, 'own-folder'), { did: ['ahoy\n', true] }, 'and by the path of its folder');
}

t.test('the walls of a worker', async (t) => {
  const goal = await targets(t);
  for (const [name, value] of [['DATABASE_URL', 'postgresql://a:secret@b/c'], ['OPERATOR_TOKEN', 'very-secret-token']] as const) {
    process.env[name] = value;
    t.teardown(() => { delete process.env[name]; });
  }
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'hello,observer,climber', PLUGIN_CLIMBER_WORD: 'mast' });

  t.test('of one that was booted for its plugin', async (t) => assertWalled(t, kernel, goal));

  t.test('of one that came from the standby', async (t) => {
    const { generation } = await kernel.status('climber');
    await eventually('a standby waits', 10_000, async () => (kernel.kernel.supervisor.census().standbys === 1 ? true : undefined));
    // Threads are numbered as they come: one with a smaller number than this was there before the death.
    const marker = new Worker('', { eval: true });
    const { threadId } = marker;
    await once(marker, 'exit');
    await kernel.request('POST', '/plugins/climber/die');
    const details = await eventually('it is back', 10_000, async () => {
      const now = await kernel.status('climber');
      return now.status === 'running' && now.generation === generation + 1 ? now : undefined;
    });
    t.ok(details.worker!.threadId! < threadId, 'its worker was the standby');
    await assertWalled(t, kernel, goal);
  });

  t.test('nothing of all this has reached anybody', async (t) => {
    t.equal(await readFile(goal.secret, 'utf8'), 'OPERATOR_TOKEN=very-secret');
    await t.rejects(readFile(goal.writable), { code: 'ENOENT' });
    t.equal((await kernel.get('/plugins/hello/')).status, 200);
    t.equal((await kernel.get('/health')).status, 200);
  });
});

t.test('gates in the walls, which the manifest asks for and the operator grants', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'bulkhead-gates-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  for (const folder of ['shop', 'shop/deep', 'shopping']) await mkdir(join(dir, folder));
  const shop = join(dir, 'shop');
  const permissions = { writer: `write:${shop}`, reader: `read:${shop}`, caller: 'child-process', nester: 'worker' };
  const kernel = await startTestKernel(t, {
    PLUGIN_WRITER_PERMISSIONS: `write:${shop},read:${shop}`, PLUGIN_READER_PERMISSIONS: `read:${dir}`, PLUGIN_CALLER_PERMISSIONS: 'child-process', PLUGIN_NESTER_PERMISSIONS: 'worker', PLUGIN_HALF_PERMISSIONS: 'worker',
  });
  const write = async (name: string, asks: readonly string[]): Promise<void> => {
    const source = await readFile(join(FIXTURES, 'climber/plugin.ts'), 'utf8');
    await kernel.writePlugin(name, source.replace("name: 'climber',", `name: '${name}', permissions: ${JSON.stringify(asks)} as never,`));
  };
  const start = async (name: string): Promise<void> => { for (const verb of ['load', 'start'] as const) t.equal((await kernel.verb(verb, name)).status, 200, `${verb} ${name}`); };

  t.test('what is not granted is listed, with the way to grant it', async (t) => {
    await write('half', [`write:${shop}`, 'worker', 'child-process']);
    const { status, json } = await kernel.verb('load', 'half');
    t.strictSame([status, json.code], [422, 'PLUGIN_LOAD_FAILED']);
    t.ok(json.message.includes(`PLUGIN_HALF_PERMISSIONS=worker,write:${shop},child-process`), json.message);
    t.match(await kernel.status('half'), { status: 'failed', worker: null });
    await write('half', ['worker']);
    t.equal((await kernel.verb('load', 'half')).status, 200, 'one that asks for what it has is loaded');
  });

  t.test('a permission that there is none of is refused by name', async (t) => {
    await write('half', ['everything', 'write:relative', 'read:/a/../b']);
    const { status, json } = await kernel.verb('restart', 'half');
    t.equal(status, 422);
    for (const word of ['"everything"', '"write:relative"', '"read:/a/../b"']) t.match(json.message, word);
  });

  t.test('a folder may be written to, and no other', async (t) => {
    await write('writer', [permissions.writer, permissions.reader]);
    await start('writer');
    for (const path of ['over', 'deep/over']) {
      t.strictSame(await climb(kernel, 'write', join(shop, path), 'writer'), { did: null });
      t.equal(await readFile(join(shop, path), 'utf8'), 'over');
    }
    t.match(await climb(kernel, 'write', join(dir, 'shopping/over'), 'writer'), { refused: DENIED }, 'not even one whose name begins with the same letters');
    t.match(await climb(kernel, 'write', join(dir, 'over'), 'writer'), { refused: DENIED });
    t.match(await climb(kernel, 'child-process', '', 'writer'), { refused: DENIED }, 'and the other walls stand');
  });

  t.test('a folder below a granted one may be read', async (t) => {
    await writeFile(join(shop, 'deep/price'), '12');
    await write('reader', [permissions.reader]);
    await start('reader');
    t.strictSame(await climb(kernel, 'read', join(shop, 'deep/price'), 'reader'), { did: 2 });
    t.match(await climb(kernel, 'write', join(shop, 'deep/price'), 'reader'), { refused: DENIED }, 'and not written');
  });

  for (const [name, way] of [['caller', 'child-process'], ['nester', 'worker']] as const) {
    t.test(`${way} works where it is granted, also after a death, and only there`, async (t) => {
      await write(name, [way]);
      await start(name);
      const other = way === 'worker' ? 'child-process' : 'worker';
      const assertGate = async (): Promise<void> => {
        t.match(await climb(kernel, way, '', name), { did: way === 'worker' ? 0 : process.version }, 'works');
        t.match(await climb(kernel, other, '', name), { refused: DENIED }, `${other} does not`);
      };
      await assertGate();
      const { generation } = await kernel.status(name);
      await kernel.request('POST', `/plugins/${name}/die`);
      await eventually('it is back', 15_000, async () => {
        const now = await kernel.status(name);
        return now.status === 'running' && now.generation > generation ? true : undefined;
      });
      await assertGate();
    });
  }
});
