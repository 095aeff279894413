// Starts Bulkhead as `npm start` does, in processes of its own, and knows them; ends them when the test ends.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Test } from 'tap';
import { bringCluster } from './cluster.js';
import { eventually, FIXTURES, PLUGINS, rawRequest, ROOT, type Answer } from './kernel.js';

export interface Ship {
  readonly url: string;
  readonly dataDir: string;
  /** Of the guardian. */
  readonly pid: number;
  /** Exit code of the guardian, or null after a signal. */
  readonly exited: Promise<number | null>;
  /** All lines logged so far, parsed. */
  readonly logLines: readonly Record<string, any>[];
  /** What was written besides the log. */
  output(): string;
  /** Process of the present kernel. */
  kernelPid(): number;
  request(method: string, path: string, body?: unknown): Promise<Answer>;
  get(path: string): Promise<Answer>;
  verb(verb: string, name: string): Promise<Answer>;
  /** Waits until a line with this text is logged after the first `from` lines; fails with a sentence. */
  logged(text: string, from?: number, timeoutMs?: number): Promise<Record<string, any>>;
  ready(timeoutMs?: number): Promise<void>;
}

/** Of tap's environment nothing but what a terminal has: its hooks would slow every process down. `node` is the executable that runs all of it. */
export async function startShip(t: Test, environment: Record<string, string> = {}, node: string = process.execPath): Promise<Ship> {
  const dataDir = await mkdtemp(join(tmpdir(), 'bulkhead-ship-'));
  const { PATH = '', HOME = '' } = process.env;
  if (environment['DATABASE_URL'] === undefined) await bringCluster(dataDir);
  const port = await freePort();
  const child = spawn(node, [join(ROOT, 'dist/kernel/main.js')], {
    cwd: dataDir, // without an .env
    env: { PATH, HOME, PORT: String(port), DATA_DIR: dataDir, PLUGINS_DIR: `${PLUGINS}:${FIXTURES}`, ...environment },
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const logLines: Record<string, any>[] = [];
  let output = '';
  createInterface({ input: child.stdout }).on('line', (line) => {
    try {
      logLines.push(JSON.parse(line) as Record<string, any>);
    } catch {
      output += `${line}\n`; // of a kernel that died while it wrote
    }
  });
  child.stderr.on('data', (data: Buffer) => (output += data.toString()));
  const exited = once(child, 'exit').then(([code]) => code as number | null);
  t.teardown(async () => {
    const left = [child.pid!, ...(await descendants(child.pid!))];
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    await exited;
    await allGone(left);
    await rm(dataDir, { recursive: true, force: true, maxRetries: 50, retryDelay: 100 });
  });

  const url = `http://127.0.0.1:${port}`;
  const request: Ship['request'] = (method, path, body) => rawRequest(url, method, path, {
    ...(body !== undefined && { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
  });
  return {
    url, dataDir, pid: child.pid!, exited, logLines, request,
    output: () => output,
    kernelPid: () => logLines.findLast((line) => line['url'] !== undefined)!['kernel'] as number,
    get: (path) => request('GET', path),
    verb: (verb, name) => request('POST', `/plugins/${verb}/${name}`),
    logged: (text, from = 0, timeoutMs = 15_000) => eventually(`"${text}" is logged`, timeoutMs, async () => logLines.slice(from).find((line) => String(line['msg']).includes(text))),
    ready: async (timeoutMs = 20_000) => {
      await eventually('the ship is ready', timeoutMs, async () => {
        const answer = await request('GET', '/health/ready').catch(() => null);
        return answer?.status === 200 ? true : undefined;
      }).catch((error: Error) => {
        throw new Error(`${error.message}; it said:\n${output}\n${logLines.map((line) => line['msg']).join('\n')}`);
      });
    },
  };
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** All processes below this one, however deep; needs Linux. */
export async function descendants(pid: number): Promise<number[]> {
  const pids = (await readdir('/proc').catch(() => [])).map(Number).filter((candidate) => candidate > 0);
  const parents = await Promise.all(pids.map(async (candidate) => {
    const text = await readFile(`/proc/${candidate}/stat`, 'utf8').catch(() => '');
    // The name, in brackets, may hold anything; what follows it is the state, then the parent.
    return Number(text.slice(text.lastIndexOf(')') + 2).split(' ')[1]);
  }));
  const below = (parent: number): number[] => pids.filter((_, at) => parents[at] === parent).flatMap((child) => [child, ...below(child)]);
  return below(pid);
}

/** Waits until none of these processes lives; a zombie that nobody has collected does not. */
export async function allGone(pids: readonly number[], timeoutMs = 10_000): Promise<void> {
  await eventually(`the processes ${pids.join(', ')} have ended`, timeoutMs, async () => {
    const living = await Promise.all(pids.map(async (pid) => {
      if (process.platform === 'linux') return /\) [^ZX]/.test(await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ''));
      try {
        return process.kill(pid, 0);
      } catch {
        return false;
      }
    }));
    return living.includes(true) ? undefined : true;
  });
}
