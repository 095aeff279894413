// The README's commands, run as they stand there: `npm start` in a process of its own, the curls, the first plugin, and the end by signal.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { eventually, ROOT } from '../helpers/kernel.js';
import { freePort } from '../helpers/ship.js';

const README = await readFile(join(ROOT, 'README.md'), 'utf8');
/** Fenced blocks of one language, in order. */
const blocks = (language: string): string[] => [...README.matchAll(new RegExp('^```' + language + '\\n(.*?)^```', 'gms'))].map(([, text]) => text!);
/** The commands of all `sh` blocks that are curls, each split into one command per entry. */
const CURLS = blocks('sh').flatMap((block) => block.split(/\n|&&/)).map((line) => line.replace(/ +#.*$/, '').trim()).filter((line) => line.startsWith('curl'));

/** Of tap's environment nothing but what a terminal has: its hooks would slow every worker down. */
function environment(more: Record<string, string>): Record<string, string> {
  const { PATH = '', HOME = '' } = process.env;
  return { PATH, HOME, ...more };
}

interface Running { readonly process: ChildProcess; readonly url: string; readonly port: number; output(): string; readonly exited: Promise<number | null> }

/** Runs a command in a group of its own, which is ended with the test whatever happens. */
async function run(t: Test, command: string, args: readonly string[], env: Record<string, string>): Promise<Running> {
  const port = await freePort();
  const child = spawn(command, args, { cwd: ROOT, env: environment({ PORT: String(port), ...env }), detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  child.stdout.on('data', (data: Buffer) => (output += data.toString()));
  child.stderr.on('data', (data: Buffer) => (output += data.toString()));
  const exited = once(child, 'exit').then(([code]) => code as number | null);
  t.teardown(async () => {
    try {
      process.kill(-child.pid!, 'SIGKILL');
    } catch {
      // The whole group has ended, as it should.
    }
    await exited;
  });
  return { process: child, url: `http://127.0.0.1:${port}`, port, output: () => output, exited };
}

async function healthy({ url, output }: Running, timeoutMs: number): Promise<void> {
  await eventually('the kernel is ready', timeoutMs, async () => {
    const answer = await fetch(`${url}/health/ready`, { signal: AbortSignal.timeout(5_000) }).catch(() => null);
    return answer?.status === 200 ? true : undefined;
  }).catch((error: Error) => {
    throw new Error(`${error.message}; it said:\n${output()}`);
  });
}

async function shell(command: string): Promise<{ readonly code: number; readonly output: string }> {
  const child = spawn('sh', ['-c', command], { env: environment({}), stdio: ['ignore', 'pipe', 'inherit'], timeout: 30_000 });
  let output = '';
  child.stdout.on('data', (data: Buffer) => (output += data.toString()));
  const [code] = (await once(child, 'close')) as [number];
  return { code, output };
}

async function dataDir(t: Test): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'bulkhead-readme-'));
  // A kernel that was killed leaves a database that is just ending, and still writes while the folder is removed.
  t.teardown(() => rm(dir, { recursive: true, force: true, maxRetries: 50, retryDelay: 100 }));
  return dir;
}

t.test('npm start serves within 15 seconds the first time and again later, and the commands of the README do what it says', async (t) => {
  const dir = await dataDir(t);
  const plugins = join(dir, 'plugins');
  await mkdir(join(plugins, 'greeter'), { recursive: true });
  const [source] = blocks('ts');
  await writeFile(join(plugins, 'greeter', 'plugin.ts'), source!);
  const env = { DATA_DIR: dir, PLUGINS_DIR: `plugins:${plugins}`, PLUGIN_GREETER_WORD: 'Ahoy' };

  const firstAt = performance.now();
  const first = await run(t, 'npm', ['start'], env);
  await healthy(first, 15_000);
  t.comment(`first start: ${Math.round(performance.now() - firstAt)} ms`);

  const shown = blocks('console')[0]!;
  const [prompt = ''] = shown.split('\n');
  const created = await shell(prompt.slice('$ '.length).replaceAll('localhost:8001', `127.0.0.1:${first.port}`).replace('curl', 'curl -s'));
  t.equal(created.code, 0);
  const answer = created.output.replaceAll('\r', '').split('\n');
  for (const line of shown.trim().split('\n').slice(1)) t.ok(answer.includes(line), `the answer has the line "${line}"`);

  t.equal(CURLS.length, 6, 'the README has its curls');
  for (const curl of CURLS) {
    const { code, output } = await shell(`${curl.replaceAll('localhost:8001', `127.0.0.1:${first.port}`)} -s --fail-with-body`);
    t.equal(code, 0, `${curl} succeeds: ${output.slice(0, 200)}`);
    if (curl.includes('/greetings/')) t.strictSame(JSON.parse(output), { message: 'Ahoy, Ada', visitor: 1 });
  }

  process.kill(-first.process.pid!, 'SIGTERM');
  await first.exited;
  const laterAt = performance.now();
  const later = await run(t, 'npm', ['start'], env);
  await healthy(later, 15_000); // four seconds on a machine that does nothing else; here other tests run at the same time
  t.comment(`later start: ${Math.round(performance.now() - laterAt)} ms`);
  const items = await fetch(`${later.url}/items`);
  t.strictSame(await items.json(), [{ id: 1, name: 'anchor', description: null }], 'the data is still there');
  process.kill(-later.process.pid!, 'SIGTERM');
  await later.exited;
});

t.test('a signal ends the kernel with exit code 0, and nothing of it is left', async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const dir = await dataDir(t);
    const kernel = await run(t, process.execPath, ['dist/kernel/main.js'], { DATA_DIR: dir, PLUGINS_ENABLED: 'items' });
    await healthy(kernel, 20_000);
    process.kill(kernel.process.pid!, signal);
    t.equal(await kernel.exited, 0, `${signal} is a clean end`);
    t.notOk((await readdir(join(dir, 'postgres'))).includes('postmaster.pid'), 'the database has stopped');
  }
});

t.test('a second signal does not wait', async (t) => {
  const dir = await dataDir(t);
  const plugins = join(dir, 'plugins');
  await mkdir(join(plugins, 'slow'), { recursive: true });
  await writeFile(join(plugins, 'slow', 'plugin.js'), `export default { name: 'slow', version: '1.0.0', stop: () => new Promise(() => {}) };`);
  const kernel = await run(t, process.execPath, ['dist/kernel/main.js'], { DATA_DIR: dir, PLUGINS_DIR: plugins, PLUGINS_ENABLED: 'slow' });
  await healthy(kernel, 20_000);
  process.kill(kernel.process.pid!, 'SIGTERM');
  await eventually('the first signal is logged', 5_000, async () => (kernel.output().includes('a second signal ends at once') ? true : undefined));
  process.kill(kernel.process.pid!, 'SIGTERM');
  t.equal(await kernel.exited, 130);
});

t.test('a taken port is a clear error', async (t) => {
  const dir = await dataDir(t);
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const kernel = await run(t, process.execPath, ['dist/kernel/main.js'], { DATA_DIR: dir, PORT: String((server.address() as AddressInfo).port) });
  t.equal(await kernel.exited, 1);
  t.match(kernel.output(), /EADDRINUSE/);
});
