// Which system user PostgreSQL runs as when the kernel is root, what that user may reach, and the folder kept for what it
// cannot reach elsewhere. Must not know about clusters or servers.
import { execFile } from 'node:child_process';
import { access, chmod, constants, mkdir, readFile } from 'node:fs/promises';
import { EMBEDDED_COMMAND_TIMEOUT_MS } from '../../protocol/database-limits.js';

/** An account to run a child process as; `undefined` in its place means the account the kernel itself runs as. */
export interface SystemAccount {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/** The whole environment of our PostgreSQL processes: fixed, so that PGOPTIONS, locale or time zone of a terminal change nothing. */
export const CHILD_ENVIRONMENT: Readonly<Record<string, string>> = Object.freeze({
  LC_ALL: 'C',
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  TZ: 'UTC',
});

/** Created when first needed, in the place that the file system standard gives to state that outlives a reboot. */
const SHARED_FOLDER = '/var/lib/bulkhead';

/** PostgreSQL's own account first (`_postgres` on macOS), then the one in Node's Docker images, then the one that is everywhere. */
const CANDIDATES = ['postgres', '_postgres', 'node', 'nobody'];

/** Finds an account that root may run PostgreSQL as, which itself refuses root. Throws when /etc/passwd has none of them. */
export async function findUnprivilegedAccount(): Promise<SystemAccount> {
  const accounts = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':'));
  for (const candidate of CANDIDATES) {
    const [name, , uid, gid] = accounts.find((fields) => fields[0] === candidate) ?? [];
    if (name !== undefined && Number(uid) > 0 && Number(gid) >= 0) return { name, uid: Number(uid), gid: Number(gid) };
  }
  throw new Error(
    `PostgreSQL refuses to run as root, and none of the users ${CANDIDATES.join(', ')} exists here. ` +
      'Start Bulkhead as an ordinary user, or set DATABASE_URL to a PostgreSQL of your own.',
  );
}

/** The part of a child process's options that makes it run as that user. */
export function credentials(account: SystemAccount | undefined): { uid?: number; gid?: number } {
  return account === undefined ? {} : { uid: account.uid, gid: account.gid };
}

/** Runs a program to its end and gives its standard output. Throws with what it wrote to standard error, or after 60 s. */
export function run(account: SystemAccount | undefined, program: string, args: readonly string[], input = ''): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { ...credentials(account), cwd: '/', env: CHILD_ENVIRONMENT, timeout: EMBEDDED_COMMAND_TIMEOUT_MS, killSignal: 'SIGKILL' } as const;
    const child = execFile(program, args, options, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(`${program} failed: ${stderr.trim() || error.message}`, { cause: error }));
    });
    // A program that ends without reading its input breaks the pipe; its exit code says what there is to say.
    child.stdin?.on('error', () => {});
    child.stdin?.end(input);
  });
}

/** Whether the user may enter a folder, or run a program, at this path. Tried, not computed: access control lists count too. */
export function mayReach(account: SystemAccount | undefined, path: string): Promise<boolean> {
  const attempt = account === undefined ? access(path, constants.X_OK) : run(account, '/bin/sh', ['-c', 'test -x "$1"', 'sh', path]);
  return attempt.then(() => true, () => false);
}

/** The folder for what an unprivileged user must reach and cannot where it belongs. Throws when root may not write there either. */
export async function sharedFolder(): Promise<string> {
  try {
    const created = await mkdir(SHARED_FOLDER, { recursive: true });
    // The umask of root may have closed it.
    if (created !== undefined) await chmod(SHARED_FOLDER, 0o755);
    return SHARED_FOLDER;
  } catch (error) {
    throw new Error(
      `${SHARED_FOLDER} cannot be made (${(error as Error).message}), and PostgreSQL may not run as root in a folder that only root may enter. ` +
        'Move Bulkhead and DATA_DIR to folders that other users may enter, or set DATABASE_URL.',
      { cause: error },
    );
  }
}
