// Starts a whole kernel, as built, in the test's own process, with a data directory, a database and a port of its own; ends it when the test ends.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import type { Test } from 'tap';
import type * as ConfigModule from '../../kernel/config.js';
import type * as EmbeddedModule from '../../kernel/database/embedded.js';
import type * as KernelModule from '../../kernel/kernel.js';
import type * as LoggerModule from '../../kernel/logger.js';
import type { PluginDetails } from '../../kernel/plugins/status.js';
import { bringCluster } from './cluster.js';

export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
export const FIXTURES = join(ROOT, 'test/fixtures/plugins');
export const PLUGINS = join(ROOT, 'plugins');

/** A module of the system as it was built. */
export const built = <T>(module: string): Promise<T> => import(join(ROOT, 'dist/kernel', module)) as Promise<T>;

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** The body as JSON; undefined when it is none. */
  readonly json: any;
}

export interface TestKernel {
  readonly url: string;
  readonly databaseUrl: string;
  readonly dataDir: string;
  /** Folder in which `writePlugin` puts plugins; part of PLUGINS_DIR. */
  readonly pluginsDir: string;
  readonly kernel: KernelModule.Kernel;
  /** All lines logged so far, parsed. */
  readonly logLines: readonly Record<string, any>[];
  /** A body that is no string is sent as JSON. */
  request(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer>;
  get(path: string): Promise<Answer>;
  verb(verb: 'load' | 'start' | 'stop' | 'unload' | 'restart', name: string): Promise<Answer>;
  status(name: string): Promise<PluginDetails>;
  /** Asks the database as its administrator. */
  query<R extends pg.QueryResultRow>(sql: string, values?: unknown[]): Promise<R[]>;
  /** Waits, at most `timeoutMs`, until the plugin has one of these states; fails with a sentence. */
  until(name: string, statuses: string | readonly string[], timeoutMs?: number): Promise<PluginDetails>;
  /** Writes `<pluginsDir>/<name>/<file>`. */
  writePlugin(name: string, source: string, file?: string): Promise<void>;
  stop(): Promise<void>;
}

/** `environment` is what a real environment would hold; plugins come from the repository, the fixtures and `pluginsDir`. `onListening` is called before they have booted. */
export async function startTestKernel(t: Pick<Test, 'teardown'>, environment: Record<string, string> = {}, onListening = (_url: string): void => {}): Promise<TestKernel> {
  const [{ parseConfig }, { startKernel }, { createLogger }, { startEmbeddedDatabase }] = await Promise.all([
    built<typeof ConfigModule>('config.js'), built<typeof KernelModule>('kernel.js'), built<typeof LoggerModule>('logger.js'), built<typeof EmbeddedModule>('database/embedded.js'),
  ]);
  const dataDir = await mkdtemp(join(tmpdir(), 'bulkhead-test-'));
  const pluginsDir = join(dataDir, 'plugins');
  await mkdir(pluginsDir);
  const logLines: Record<string, any>[] = [];
  const logger = createLogger(environment['LOG_LEVEL'] ?? 'info', {
    write: (lines: string) => {
      for (const line of lines.split('\n')) if (line !== '') logLines.push(JSON.parse(line) as Record<string, any>);
    },
  });
  const config = parseConfig({ PLUGINS_DIR: [PLUGINS, FIXTURES, pluginsDir].join(':'), DATA_DIR: dataDir, ...environment }, ROOT);
  if (config.databaseUrl === null) await bringCluster(config.dataDir, config.embedded);
  const embedded = config.databaseUrl === null ? await startEmbeddedDatabase({ dataDir: config.dataDir, ...config.embedded, log: logger.log }) : null;
  const databaseUrl = config.databaseUrl ?? embedded!.url;
  const kernel = await startKernel({ config, databaseUrl, logger });
  // In the guardian's place.
  const harbour = createServer({ pauseOnConnect: true, noDelay: true }, (socket) => kernel.accept(socket));
  await new Promise<void>((resolve) => harbour.listen(0, config.host, resolve));
  const url = `http://${config.host}:${(harbour.address() as AddressInfo).port}`;
  let admin: pg.Pool | null = null;
  const stop = async (): Promise<void> => {
    harbour.close();
    await kernel.stop();
    await admin?.end();
    admin = null;
    await embedded?.stop();
  };
  t.teardown(async () => {
    await stop();
    await rm(dataDir, { recursive: true, force: true });
  });
  onListening(url);
  await kernel.booted;

  const request: TestKernel['request'] = async (method, path, body, headers = {}) => {
    const json = body !== undefined && typeof body !== 'string' && !(body instanceof Uint8Array);
    const answer = await fetch(url + path, {
      method,
      headers: { ...(json && { 'content-type': 'application/json' }), ...headers },
      ...(body !== undefined && { body: (json ? JSON.stringify(body) : body) as RequestInit['body'] }),
      redirect: 'manual',
      signal: AbortSignal.timeout(30_000),
    } as RequestInit);
    const text = await answer.text();
    return { status: answer.status, headers: answer.headers, text, json: parsed(text) };
  };
  const status = async (name: string): Promise<PluginDetails> => (await request('GET', `/plugins/status/${name}`)).json as PluginDetails;
  return {
    url, databaseUrl, dataDir, pluginsDir, kernel, logLines, request, status, stop,
    async query<R extends pg.QueryResultRow>(sql: string, values: unknown[] = []) {
      admin ??= new pg.Pool({ connectionString: databaseUrl, max: 1, application_name: 'test' }).on('error', () => {});
      return (await admin.query<R>(sql, values)).rows;
    },
    get: (path) => request('GET', path),
    verb: (verb, name) => request('POST', `/plugins/${verb}/${name}`),
    until: (name, statuses, timeoutMs = 10_000) => eventually(`${name} is ${String(statuses)}`, timeoutMs, async () => {
      const details = await status(name);
      return [statuses].flat().includes(details.status) ? details : undefined;
    }),
    writePlugin: async (name, source, file = 'plugin.ts') => {
      const path = join(pluginsDir, name, file);
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, source);
    },
  };
}

/** Asks every 20 ms until there is an answer; throws a sentence with `what` when there is none in time. */
export async function eventually<T>(what: string, timeoutMs: number, ask: () => Promise<T | undefined>): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() > deadline) throw new Error(`after ${timeoutMs} ms it is still not true that ${what}`);
    await delay(20);
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** One request exactly as written: the path is not normalised and headers such as Origin are allowed, unlike with fetch. */
export async function rawRequest(url: string, method: string, path: string, { headers = {}, body }: { headers?: Record<string, string>; body?: string | Uint8Array } = {}): Promise<Answer> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest({ hostname, port, method, path, headers, agent: false, signal: AbortSignal.timeout(30_000) }, (incoming) => {
      const chunks: Buffer[] = [];
      incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
      incoming.once('error', reject);
      incoming.once('end', () => {
        const text = Buffer.concat(chunks).toString();
        const pairs = Object.entries(incoming.headers).map(([name, value]): [string, string] => [name, String(value)]);
        resolve({ status: incoming.statusCode ?? 0, headers: new Headers(pairs), text, json: parsed(text) });
      });
    });
    outgoing.once('error', reject);
    outgoing.end(body);
  });
}
