// What a plugin may touch of the machine: its own files and packages, and nothing else that it was not granted. Asked of a guardian and its
// kernel's process, as `npm start` has them, because the kernel's own process decides on a part of the flags. The environment variable
// NODE_ALSO may name the executable of another Node: then all of it is asked of that one, too.
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { PluginDetails } from '../../kernel/plugins/status.js';
import { eventually, FIXTURES, PLUGINS, ROOT } from '../helpers/kernel.js';
import { startShip, type Ship } from '../helpers/ship.js';

interface Node {
  readonly path: string;
  readonly version: string;
  /** Whether it can keep a thread from the network. */
  readonly networkHasAWall: boolean;
}

/** Asked of the executable itself, which may be another than the one that runs this test. */
function nodeAt(path: string): Node {
  const [version = '', networkHasAWall] = execFileSync(path, ['-p', "`${process.version} ${process.allowedNodeEnvironmentFlags.has('--allow-net')}`"], { encoding: 'utf8' }).trim().split(' ');
  return { path, version, networkHasAWall: networkHasAWall === 'true' };
}

/** What Node's permission model says, and what the host says for what that leaves open. */
const DENIED = 'ERR_ACCESS_DENIED';

/** Files that would tell or change too much: of the operator, of the kernel, of others. */
interface Targets { readonly secret: string; readonly writable: string }

/** A file like the operator's `.env`, and a folder that anyone may write to. */
async function targets(t: Test): Promise<Targets> {
  const dir = await folder(t, 'walls');
  await writeFile(join(dir, '.env'), 'OPERATOR_TOKEN=very-secret');
  return { secret: join(dir, '.env'), writable: join(dir, 'over') };
}

async function folder(t: Test, name: string): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), `bulkhead-${name}-`));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

async function status(ship: Ship, name: string): Promise<PluginDetails> {
  return (await ship.get(`/plugins/status/${name}`)).json as PluginDetails;
}

/** Ends the plugin's worker and waits for the next one. */
async function reborn(ship: Ship, name: string): Promise<PluginDetails> {
  const { generation } = await status(ship, name);
  await ship.request('POST', `/plugins/${name}/die`);
  return eventually('it is back', 15_000, async () => {
    const now = await status(ship, name);
    return now.status === 'running' && now.generation > generation ? now : undefined;
  });
}

async function climb(ship: Ship, way: string, path = '', plugin = 'climber'): Promise<{ readonly did?: unknown; readonly refused?: string; readonly message?: string }> {
  return (await ship.get(`/plugins/${plugin}/climb/${way}?path=${encodeURIComponent(path)}`)).json;
}

async function assertWalled(t: Test, ship: Ship, { version, networkHasAWall }: Node, { secret, writable }: Targets): Promise<void> {
  const refused = async (way: string, path: string, what: string): Promise<void> => { t.match(await climb(ship, way, path), { refused: DENIED }, `${what}: refused`); };
  for (const way of ['read', 'import'] as const) await refused(way, secret, `${way} a .env`);
  for (const way of ['read', 'import'] as const) await refused(way, join(ship.dataDir, '.env'), `${way} the .env of the folder in which Bulkhead was started`);
  await refused('read', '.env', 'read a .env in the working directory');
  await refused('list', '.', 'list the working directory');
  await refused('read', join(ROOT, 'package.json'), 'read a file beside the kernel');
  await refused('read', join(PLUGINS, 'hello/plugin.ts'), "read another plugin's code");
  await refused('list', join(FIXTURES, 'observer'), "list another plugin's folder");
  await refused('read', join(FIXTURES, 'climber/plugin.ts'), 'read its own source, which is not what it runs');
  for (const dir of ['', 'berths', 'bundles', 'postgres']) await refused('list', join(ship.dataDir, dir), `list DATA_DIR/${dir}`);
  for (const way of ['read', 'import'] as const) await refused(way, join(ROOT, 'dist/kernel/config.js'), `${way} the kernel's code`);
  await refused('read', '/etc/passwd', 'read /etc/passwd');
  await refused('read', '/proc/self/environ', 'read the environment of the process');
  await refused('write', writable, 'write to the folder for temporary files');
  await refused('write', join(ship.dataDir, 'over'), 'write to DATA_DIR');
  t.notOk('did' in (await climb(ship, 'write', 'over')), 'write to the working directory: it is nowhere');
  await assertReports(t, ship, version);
  await refused('write-own-folder', '', 'write to its own folder');
  await refused('link', secret, 'a symbolic link to a secret');
  for (const way of ['child-process', 'worker', 'kill', 'kill-below', 'priority', 'binding', 'v8-flags', 'heap-limit', 'main-thread', 'debugger']) await refused(way, '', way);
  t.match(await climb(ship, 'report'), { refused: 'TypeError' }, 'report: it has none');
  await refused('heap-snapshot', writable, 'write a heap snapshot');
  // What Node itself gives to no worker, or to none of this version.
  for (const way of ['chdir', 'abort']) t.match(await climb(ship, way), { refused: 'ERR_WORKER_UNSUPPORTED_OPERATION' }, `${way}: no worker can`);
  for (const way of ['debug-process', 'user']) t.match(await climb(ship, way), { refused: /^(ERR_ACCESS_DENIED|ERR_WORKER_UNSUPPORTED_OPERATION|TypeError)$/ }, `${way}: refused`);
  const { port } = new URL(ship.url);
  t.match(await climb(ship, 'network', port), networkHasAWall ? { refused: DENIED } : { did: 'connected' }, networkHasAWall ? 'network: refused' : 'network: this Node has no wall there');

  const seen = (await ship.get('/plugins/climber/seen')).json;
  t.strictSame(seen.environment, { PLUGIN_CLIMBER_WORD: 'mast' }, 'it sees its own variables only');
  t.match(seen, { execArgv: [], parentPort: null, workerData: null }, 'and neither flags nor ports');

  t.strictSame(await climb(ship, 'own-file'), { did: 'ahoy\n' }, 'a file beside its code can be read');
  t.strictSame(await climb(ship, 'own-folder'), { did: ['ahoy\n', true] }, 'and by the path of its folder');
}

/** What the walls leave open so that Node can say who took the kernel down: from Node 22 on the reports' folder, to write to and not to read. */
async function assertReports(t: Test, ship: Ship, version: string): Promise<void> {
  const reports = join(ship.dataDir, 'reports');
  await mkdir(join(reports, 'deep'), { recursive: true });
  const open = process.platform === 'linux' && !version.startsWith('v20.');
  t.match(await climb(ship, 'write', join(reports, 'over')), open ? { did: null } : { refused: DENIED }, `write to the folder of reports: ${open ? 'Node needs it' : 'refused'}`);
  t.match(await climb(ship, 'list', reports), { refused: DENIED }, 'list the folder of reports: refused');
  t.match(await climb(ship, 'read', join(reports, 'over')), { refused: DENIED }, 'read in the folder of reports: refused');
}

async function wallsOf(t: Test, node: Node): Promise<void> {
  const goal = await targets(t);
  const ship = await startShip(t, {
    PLUGINS_ENABLED: 'hello,climber', PLUGIN_CLIMBER_WORD: 'mast', PLUGIN_HELLO_WORD: 'of another', PLUGIN_ECHO_PERMISSIONS: 'worker', POSTGRES_PASSWORD: 'very-secret', SHORE_TOKEN: 'very-secret-token',
  }, node.path);
  await ship.ready();
  await writeFile(join(ship.dataDir, '.env'), 'OPERATOR_TOKEN=very-secret'); // where a kernel that stayed where it was started would have it

  await t.test('of one that was booted for its plugin', async (t) => {
    if (process.platform === 'linux') t.match(await readlink(`/proc/${ship.kernelPid()}/cwd`), /^\/proc\/\d+\/fdinfo$/, 'the working directory of the kernel is nowhere');
    await assertWalled(t, ship, node, goal);
  });

  await t.test('of one that came from the standby', async (t) => {
    await delay(1_000); // the standby boots when the plugins have
    // Threads are numbered as they come, and a plugin that is granted something never gets the standby: a thread with a smaller number than its worker's was there before.
    await ship.verb('load', 'echo');
    const { workers: [marker] } = (await ship.verb('start', 'echo')).json as PluginDetails;
    const { workers: [worker] } = await reborn(ship, 'climber');
    t.ok(worker!.threadId! < marker!.threadId!, 'its worker was the standby');
    await assertWalled(t, ship, node, goal);
  });

  await t.test('nothing of all this has reached anybody', async (t) => {
    t.equal(await readFile(goal.secret, 'utf8'), 'OPERATOR_TOKEN=very-secret');
    await t.rejects(readFile(goal.writable), { code: 'ENOENT' });
    t.equal((await ship.get('/plugins/hello/')).status, 200);
    t.equal((await ship.get('/health')).status, 200);
    t.equal(ship.logLines.filter(({ url }) => url !== undefined).length, 1, 'it is still the first kernel');
  });
}

/** Gates in the walls, which the manifest asks for and the operator grants. */
async function gatesOf(t: Test, { path, version }: Node): Promise<void> {
  const dir = await folder(t, 'gates');
  for (const folder of ['shop', 'shop/deep', 'shopping']) await mkdir(join(dir, folder));
  const shop = join(dir, 'shop');
  const permissions = { writer: `write:${shop}`, reader: `read:${shop}`, caller: 'child-process', nester: 'worker' };
  const pluginsDir = await folder(t, 'plugins');
  const ship = await startShip(t, {
    PLUGINS_DIR: pluginsDir,
    PLUGIN_WRITER_PERMISSIONS: `write:${shop},read:${shop}`, PLUGIN_READER_PERMISSIONS: `read:${dir}`, PLUGIN_CALLER_PERMISSIONS: 'child-process', PLUGIN_NESTER_PERMISSIONS: 'worker', PLUGIN_HALF_PERMISSIONS: 'worker',
  }, path);
  await ship.ready();
  const write = async (name: string, asks: readonly string[]): Promise<void> => {
    const source = await readFile(join(FIXTURES, 'climber/plugin.ts'), 'utf8');
    await mkdir(join(pluginsDir, name), { recursive: true });
    await writeFile(join(pluginsDir, name, 'plugin.ts'), source.replace("name: 'climber',", `name: '${name}', permissions: ${JSON.stringify(asks)} as never,`));
  };
  const start = async (name: string): Promise<void> => { for (const verb of ['load', 'start'] as const) t.equal((await ship.verb(verb, name)).status, 200, `${verb} ${name}`); };

  await t.test('what is not granted is listed, with the way to grant it', async (t) => {
    await write('half', [`write:${shop}`, 'worker', 'child-process']);
    const { status: code, json } = await ship.verb('load', 'half');
    t.strictSame([code, json.code], [422, 'PLUGIN_LOAD_FAILED']);
    t.ok(json.message.includes(`PLUGIN_HALF_PERMISSIONS=worker,write:${shop},child-process`), json.message);
    t.match(await status(ship, 'half'), { status: 'failed', workers: [] });
    await write('half', ['worker']);
    t.equal((await ship.verb('load', 'half')).status, 200, 'one that asks for what it has is loaded');
  });

  await t.test('a permission that there is none of is refused by name', async (t) => {
    await write('half', ['everything', 'write:relative', 'read:/a/../b']);
    const { status: code, json } = await ship.verb('restart', 'half');
    t.equal(code, 422);
    for (const word of ['"everything"', '"write:relative"', '"read:/a/../b"']) t.match(json.message, word);
  });

  await t.test('a folder may be written to, and no other', async (t) => {
    await write('writer', [permissions.writer, permissions.reader]);
    await start('writer');
    for (const path of ['over', 'deep/over']) {
      t.strictSame(await climb(ship, 'write', join(shop, path), 'writer'), { did: null });
      t.equal(await readFile(join(shop, path), 'utf8'), 'over');
    }
    t.match(await climb(ship, 'write', join(dir, 'shopping/over'), 'writer'), { refused: DENIED }, 'not even one whose name begins with the same letters');
    t.match(await climb(ship, 'write', join(dir, 'over'), 'writer'), { refused: DENIED });
    t.match(await climb(ship, 'child-process', '', 'writer'), { refused: DENIED }, 'and the other walls stand');
  });

  await t.test('a folder below a granted one may be read', async (t) => {
    await writeFile(join(shop, 'deep/price'), '12');
    await write('reader', [permissions.reader]);
    await start('reader');
    t.strictSame(await climb(ship, 'read', join(shop, 'deep/price'), 'reader'), { did: 2 });
    t.match(await climb(ship, 'write', join(shop, 'deep/price'), 'reader'), { refused: DENIED }, 'and not written');
  });

  for (const [name, way] of [['caller', 'child-process'], ['nester', 'worker']] as const) {
    await t.test(`${way} works where it is granted, also after a death, and only there`, async (t) => {
      await write(name, [way]);
      await start(name);
      const other = way === 'worker' ? 'child-process' : 'worker';
      const assertGate = async (): Promise<void> => {
        t.match(await climb(ship, way, '', name), { did: way === 'worker' ? 0 : version }, 'works');
        t.match(await climb(ship, other, '', name), { refused: DENIED }, `${other} does not`);
      };
      await assertGate();
      await reborn(ship, name);
      await assertGate();
    });
  }
}

const { NODE_ALSO } = process.env;
for (const node of [process.execPath, ...(NODE_ALSO ? [NODE_ALSO] : [])].map(nodeAt)) {
  t.test(`the walls of a worker, ${node.version}`, (t) => wallsOf(t, node));
  t.test(`the gates in them, ${node.version}`, (t) => gatesOf(t, node));
}
if (!NODE_ALSO) t.comment(`NODE_ALSO names no other Node: nothing but ${process.version} was asked`);
