// What a worker may touch of the machine: Node's permission model, set up for one worker through its options. Must not know plugins.
import { realpathSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { reportPermissions } from './nowhere.js';

const HERE = dirname(fileURLToPath(import.meta.url));
const FLAGS = process.allowedNodeEnvironmentFlags;
const FLAG_OF_SWITCH: Readonly<Record<string, string>> = {
  'network': '--allow-net', 'child-process': '--allow-child-process', 'worker': '--allow-worker', 'addons': '--allow-addons', 'wasi': '--allow-wasi',
};

/** The packages that Bulkhead itself was installed with. */
export const OWN_PACKAGES = realpathSync(resolve(HERE, '../../../node_modules'));

/** All that a host needs to run: itself, the contract, and packages. Nothing else of the kernel. */
const HOST_FILES = [resolve(HERE, '../host'), resolve(HERE, '../../protocol'), OWN_PACKAGES];

/** Options for the worker that lives in `folder` and has these permissions besides. */
export function execArgv(folder: string, granted: readonly string[]): string[] {
  const paths = (kind: 'read' | 'write'): string[] => granted.filter((permission) => permission.startsWith(`${kind}:`)).map((permission) => permission.slice(kind.length + 1));
  return [
    FLAGS.has('--permission') ? '--permission' : '--experimental-permission',
    // On Node 20 it says at each start that it is experimental.
    '--disable-warning=ExperimentalWarning',
    // From Node 22 on, a thread without a script of its own on the command line is granted its working directory, which is the
    // kernel's and has the .env. One that would read its commands from a terminal is not; a worker never does.
    '--interactive',
    // With the star, because the folder is not there yet.
    ...outermost([...[...HOST_FILES, folder].map((path) => `${path}/*`), ...paths('read')]).map((path) => `--allow-fs-read=${path}`),
    ...outermost([...reportPermissions(), ...paths('write')]).map((path) => `--allow-fs-write=${path}`),
    ...granted.map((permission) => FLAG_OF_SWITCH[permission]).filter((flag) => flag !== undefined && FLAGS.has(flag)) as string[],
  ];
}

/** Without those inside of others: of two of which one begins with the other, Node 20 aborts. */
function outermost(paths: readonly string[]): string[] {
  const plain = (path: string): string => path.replace(/\/\*?$/, '');
  return paths.filter((path, i) => !paths.some((other, j) => (plain(path) === plain(other) ? j < i : plain(path).startsWith(`${plain(other)}/`))));
}
