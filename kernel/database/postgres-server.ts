// One life of a PostgreSQL server process, from its start to its end. Must not know who starts it again.
import { spawn } from 'node:child_process';
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { chown, mkdir, rm } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { EMBEDDED_START_TIMEOUT_MS, EMBEDDED_STOP_TIMEOUT_MS } from '../../protocol/database-limits.js';
import type { Cluster, DatabaseLog } from './postgres-cluster.js';
import { readLock, waitUntilFree } from './postgres-lock.js';
import { CHILD_ENVIRONMENT, credentials } from './system-account.js';

const READY_POLL_MS = 10;
/** Backends that outlive their server hold its output open; they leave within milliseconds, those that compute with their client. */
const ORPHANS_TIMEOUT_MS = 1_000;
/** Enough for an error with its details and hints. */
const TAIL_MAX_LINES = 20;

/**
 * Runs under `sh` and keeps this side's promise when Node cannot: its standard input ends when the kernel closes it or dies,
 * be it by `kill -9`, and then the server is shut down. SIGINT is a fast shutdown, which took 40 ms here; it is repeated because
 * a server that is just starting ignores the first. SIGQUIT, after 4 s, costs a recovery at the next start, but no row.
 * Arguments: the socket folder, removed at the end; the command.
 */
const WATCHER = `
socket_folder=$1; shift
exec 3<&0 </dev/null
"$@" 3<&- >&2 &
server=$!
echo "$server"
{
  read -r _ <&3
  for second in 1 2 3 4; do kill -INT "$server"; sleep 1; done
  kill -QUIT "$server"; sleep 1
  kill -KILL "$server"
} 2>/dev/null &
exec 3<&-
wait "$server" 2>/dev/null
status=$?
rmdir "$socket_folder" 2>/dev/null
trap '' TERM
kill -TERM 0
exit "$status"
`;

/** On the command line they win over the cluster's own files, where a superuser's ALTER SYSTEM may have left anything. */
const SETTINGS: Readonly<Record<string, string>> = {
  listen_addresses: '',
  port: '5432',
  // A quarter of PostgreSQL's default: with it all processes together took 22 MB.
  shared_buffers: '32MB',
  // The default of 1 GB would be most of what a small database takes on disk, and long to replay.
  max_wal_size: '256MB',
  // A statement whose client has gone, a dead plugin say, ends within a second instead of running to its end.
  client_connection_check_interval: '1s',
  // The client hears of its errors; here belongs what concerns the server, and never a statement's text.
  log_min_messages: 'log',
  log_min_error_statement: 'panic',
  log_checkpoints: 'off',
  log_line_prefix: '',
  log_destination: 'stderr',
  logging_collector: 'off',
};

export interface ServerOptions {
  /** Most connections at one time; each place costs little until it is used. */
  readonly connections: number;
  readonly cluster: Cluster;
  /** Made anew for the server, entered only by its account and root. */
  readonly socketFolder: string;
  /** Aborting it shuts the server down: fast, then immediately, then by force, within 7 s in all. */
  readonly signal: AbortSignal;
  readonly log: DatabaseLog;
}

export interface Server {
  readonly pid: number;
  /** Resolves with how it ended, once no process of it is left; never rejects. */
  readonly ended: Promise<string>;
}

/**
 * Starts the server and waits until it takes connections. Throws, and leaves no process, when the cluster is in use, when the
 * server does not start within 60 s, and when the signal is aborted first.
 */
export async function startServer({ cluster, connections, socketFolder, signal, log }: ServerOptions): Promise<Server> {
  const { account, binaries, folder } = cluster;
  const formerPid = await waitUntilFree(folder);
  await rm(socketFolder, { recursive: true, force: true });
  await mkdir(socketFolder, { mode: 0o700 });
  if (account !== undefined) await chown(socketFolder, account.uid, account.gid);
  signal.throwIfAborted();

  const settings = { ...SETTINGS, max_connections: String(connections), unix_socket_directories: `"${socketFolder}"` };
  const command = [binaries.postgres, '-D', folder, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])];
  const child = spawn('/bin/sh', ['-c', WATCHER, 'bulkhead-postgres', socketFolder, ...command], {
    ...credentials(account),
    cwd: '/',
    // PostgreSQL's own protection against two servers is left in place. It only must not take a stranger, who has got the
    // number of the dead server, for that server; this is how pg_ctl keeps it from minding pg_ctl's parent.
    env: formerPid === undefined ? CHILD_ENVIRONMENT : { ...CHILD_ENVIRONMENT, PG_GRANDPARENT_PID: String(formerPid) },
    // A session of its own: Ctrl-C in a terminal goes to the kernel alone, which stops the server when nobody needs it any more.
    detached: true,
    stdio: 'pipe',
  });
  return new ServerProcess(child, signal, log).ready(folder);
}

class ServerProcess {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #log: DatabaseLog;
  readonly #tail: string[] = [];
  readonly #ended: Promise<string>;
  #state: 'starting' | 'serving' | 'stopping' | 'ended' = 'starting';
  #pid: number | undefined;

  constructor(child: ChildProcessWithoutNullStreams, signal: AbortSignal, log: DatabaseLog) {
    this.#child = child;
    this.#log = log;
    this.#ended = this.#watchEnd();
    // It breaks when the shell ends first, which #watchEnd hears of.
    child.stdin.on('error', () => {});
    createInterface({ input: child.stdout }).once('line', (line) => { this.#pid = Number(line); });
    createInterface({ input: child.stderr }).on('line', (line) => this.#note(line));
    const stop = (): void => this.#stop();
    signal.addEventListener('abort', stop);
    void this.#ended.then(() => signal.removeEventListener('abort', stop));
  }

  async ready(folder: string): Promise<Server> {
    const began = performance.now();
    for (;;) {
      const lock = await readLock(folder);
      if (this.#state === 'starting' && lock?.status === 'ready' && lock.pid === this.#pid) {
        this.#state = 'serving';
        return { pid: lock.pid, ended: this.#ended };
      }
      if (performance.now() - began > EMBEDDED_START_TIMEOUT_MS) this.#stop();
      if (this.#state !== 'starting') {
        const how = await this.#ended;
        // Another one may have been faster by a moment: its name says more than PostgreSQL's words.
        await waitUntilFree(folder);
        const lines = this.#tail.join('\n');
        throw new Error(`The embedded PostgreSQL ${how} before it was ready:\n${lines}\nTo use a PostgreSQL of your own, set DATABASE_URL.`);
      }
      await sleep(READY_POLL_MS);
    }
  }

  #watchEnd(): Promise<string> {
    const child = this.#child;
    return new Promise((resolve) => {
      child.once('error', (error) => {
        this.#state = 'ended';
        resolve(`could not be run (${error.message})`);
      });
      child.once('exit', (code, signal) => {
        this.#state = 'ended';
        // Somebody has killed the shell, and the server may live: nobody would stop it.
        if (signal !== null) this.#killGroup();
        const closing = setTimeout(() => { child.stdout.destroy(); child.stderr.destroy(); }, ORPHANS_TIMEOUT_MS);
        child.once('close', () => {
          clearTimeout(closing);
          resolve(describeEnd(code, signal));
        });
      });
    });
  }

  #stop(): void {
    if (this.#state === 'ended') return;
    this.#state = 'stopping';
    this.#child.stdin.destroy();
    const force = setTimeout(() => {
      if (this.#state === 'stopping') this.#killGroup();
    }, EMBEDDED_STOP_TIMEOUT_MS);
    void this.#ended.then(() => clearTimeout(force));
  }

  /** The shell leads a process group of its own, with the server in it; backends leave when they see the server gone. */
  #killGroup(): void {
    try {
      process.kill(-this.#child.pid!, 'SIGKILL');
    } catch {
      // Nobody was left in it.
    }
  }

  #note(line: string): void {
    this.#tail.push(line);
    if (this.#tail.length > TAIL_MAX_LINES) this.#tail.shift();
    // Starting and stopping are reported by those who ask for them.
    if (this.#state !== 'serving') return;
    if (/^(WARNING|FATAL|PANIC):/.test(line)) this.#log.warn({ pid: this.#pid }, `postgres: ${line}`);
    else this.#log.info({ pid: this.#pid }, `postgres: ${line}`);
  }
}

/** The shell reports a signal to the server as an exit code of 128 and the signal's number. */
function describeEnd(code: number | null, signal: string | null): string {
  if (code === null) return `lost its shell to ${signal}`;
  return code > 128 ? `was ended by signal ${code - 128}` : `ended with exit code ${code}`;
}
