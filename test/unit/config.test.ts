// Configuration: the environment and `.env` in, one frozen Config out, or everything that is wrong with them.
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseEnv } from 'node:util';
import t, { type Test } from 'tap';
import { loadConfig, parseConfig, pluginSettings, type Config } from '../../kernel/config.js';
import { BulkheadError } from '../../protocol/errors.js';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const DIRECTORY = '/srv/ship';

const DEFAULTS: Config = {
  appName: 'Bulkhead', debug: false, host: '127.0.0.1', port: 8001, logLevel: 'info', databaseUrl: null, databasePoolMax: 10, databaseRoles: true, databaseWaitMs: 30_000,
  embedded: { user: 'bulkhead', database: 'bulkhead', connections: 40 }, pluginsEnabled: [], pluginsDirs: ['/srv/ship/plugins'], dataDir: '/srv/ship/.data', standbyWorkers: 1,
  trustProxy: false, operatorToken: null, pluginVariables: {},
};

/** The lines of the error, without their bullets; fails when there is no error. */
function problemsOf(t: Test, work: () => unknown): string[] {
  try {
    work();
  } catch (error) {
    t.ok(error instanceof BulkheadError && error.code === 'CONFIG_INVALID', 'it is CONFIG_INVALID');
    return (error as Error).message.split('\n').slice(1).map((line) => line.replace(/^ {2}- /, ''));
  }
  t.fail('the configuration was taken for valid');
  return [];
}

async function folderWith(t: Test, env: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'config-test-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  await writeFile(join(folder, '.env'), env);
  return folder;
}

t.test('nothing set means the defaults, and so does everything empty', async (t) => {
  t.strictSame(parseConfig({}, DIRECTORY), DEFAULTS);
  const names = ['APP_NAME', 'DEBUG', 'HOST', 'PORT', 'LOG_LEVEL', 'POSTGRES_USER', 'POSTGRES_PASSWORD', 'POSTGRES_DB', 'DATABASE_URL', 'DATABASE_POOL_MAX', 'DATABASE_ROLES', 'DATABASE_WAIT_MS', 'PLUGINS_ENABLED', 'PLUGINS_DIR', 'DATA_DIR', 'STANDBY_WORKERS', 'TRUST_PROXY', 'OPERATOR_TOKEN'];
  t.strictSame(parseConfig(Object.fromEntries(names.map((name) => [name, ''])), DIRECTORY), DEFAULTS);
  t.strictSame(parseConfig(Object.fromEntries(names.map((name) => [name, undefined])), DIRECTORY), DEFAULTS);
});

t.test('every variable has its effect', async (t) => {
  const config = parseConfig({
    APP_NAME: 'Black Pearl', DEBUG: 'true', HOST: '0.0.0.0', PORT: '9000', LOG_LEVEL: 'debug', POSTGRES_USER: 'jack', POSTGRES_DB: 'ship', DATABASE_URL: 'postgres://a:b@c/d', DATABASE_POOL_MAX: '3', DATABASE_ROLES: 'false', DATABASE_WAIT_MS: '0',
    PLUGINS_ENABLED: ' hello, items ,,hello', PLUGINS_DIR: 'mine', DATA_DIR: '/var/data', STANDBY_WORKERS: '3', TRUST_PROXY: 'loopback, 10.0.0.0/8', OPERATOR_TOKEN: 'a-long-secret', PLUGIN_HELLO_GREETING: 'ahoy', PATH: '/bin', HOME: '/root',
  }, DIRECTORY);
  t.strictSame(config, {
    appName: 'Black Pearl', debug: true, host: '0.0.0.0', port: 9000, logLevel: 'debug', databaseUrl: 'postgres://a:b@c/d', databasePoolMax: 3, databaseRoles: false, databaseWaitMs: 0, embedded: { user: 'jack', database: 'ship', connections: 26 },
    pluginsEnabled: ['hello', 'items'], pluginsDirs: ['/srv/ship/mine'], dataDir: '/var/data', standbyWorkers: 3, trustProxy: ['loopback', '10.0.0.0/8'], operatorToken: 'a-long-secret', pluginVariables: { PLUGIN_HELLO_GREETING: 'ahoy' },
  });
  for (const part of [config, config.embedded, config.pluginsEnabled, config.pluginsDirs, config.pluginVariables, config.trustProxy]) t.ok(Object.isFrozen(part), 'nobody can change it');
});

t.test('the plugins\' folders may be several, and each is made absolute', async (t) => {
  const cases: [value: string, dirs: string[]][] = [
    ['plugins:/opt/more', ['/srv/ship/plugins', '/opt/more']], ['./a:../b', ['/srv/ship/a', '/srv/b']], [':a::b:', ['/srv/ship/a', '/srv/ship/b']], ['/x', ['/x']], ['.', ['/srv/ship']], [' a : b ', ['/srv/ship/a', '/srv/ship/b']],
  ];
  for (const [value, dirs] of cases) t.strictSame(parseConfig({ PLUGINS_DIR: value }, DIRECTORY).pluginsDirs, dirs, value);
  t.equal(parseConfig({ DATA_DIR: '../elsewhere' }, DIRECTORY).dataDir, '/srv/elsewhere');
});

t.test('a wrong value is refused with its name, the rule and the value', async (t) => {
  const cases: [name: string, rule: RegExp, values: string[]][] = [
    ['APP_NAME', /must not be blank/, [' ', '\t']],
    ['DATABASE_ROLES', /must be "true" or "false"/, ['yes', '0']],
    ['DEBUG', /must be "true" or "false"/, ['yes', '1', 'TRUE', ' true', 'no']],
    ['HOST', /must be a host name or an address/, ['a b', ' ']],
    ['PORT', /must be a whole number from 0 to 65535/, ['65536', '-1', '80.5', 'abc', '0x50', '1e3', ' 80', '99999999', 'NaN', '8001 ']],
    ['LOG_LEVEL', /must be one of trace, debug, info, warn, error, fatal, silent/, ['verbose', 'INFO', 'information', 'trace|debug']],
    ['POSTGRES_USER', /must be a plain PostgreSQL name/, ['a b', '1a', 'a-b', 'a"; DROP', 'a'.repeat(64)]],
    ['POSTGRES_DB', /must be a plain PostgreSQL name/, ['a/b', 'ä', '?']],
    ['DATABASE_POOL_MAX', /must be a whole number from 1 to 1000/, ['0', '1001', 'ten', '-5']],
    ['DATABASE_WAIT_MS', /must be a whole number from 0 to 3600000/, ['-1', '3600001', '1s']],
    ['PLUGINS_DIR', /must be one or several folders/, [':', ':::']],
    ['DATA_DIR', /must be a folder/, [' ']],
  ];
  for (const [name, rule, values] of cases) {
    for (const value of values) {
      const problems = problemsOf(t, () => parseConfig({ [name]: value }, DIRECTORY));
      t.equal(problems.length, 1, `${name}=${value} is one problem`);
      t.match(problems[0], rule);
      t.ok(problems[0]?.startsWith(`${name} `) && problems[0].endsWith(`not ${JSON.stringify(value)}`), String(problems[0]));
    }
  }
  for (const [name, value] of [['PORT', '0'], ['PORT', '65535'], ['DATABASE_POOL_MAX', '1'], ['DATABASE_POOL_MAX', '1000'], ['POSTGRES_USER', 'a'.repeat(63)], ['POSTGRES_DB', '_a1'], ['HOST', '::1'], ['LOG_LEVEL', 'silent'], ['OPERATOR_TOKEN', '12345678']] as const) {
    t.doesNotThrow(() => parseConfig({ [name]: value }, DIRECTORY), `${name}=${value} is the last that is right`);
  }
});

t.test('whose forwarded headers are believed is a switch or a list of addresses', async (t) => {
  for (const [value, trusted] of [['true', true], ['false', false], ['127.0.0.1', ['127.0.0.1']], ['::1/128,uniquelocal', ['::1/128', 'uniquelocal']]] as const) {
    t.strictSame(parseConfig({ TRUST_PROXY: value }, DIRECTORY).trustProxy, trusted, value);
  }
  for (const value of ['2', 'yes', '10.0.0.0/33', '10.0.0.0/0', '999.1.1.1', 'example.org', '10.0.0.1/8/8', '10.0.0.1/']) {
    const problems = problemsOf(t, () => parseConfig({ TRUST_PROXY: `loopback,${value}` }, DIRECTORY));
    t.equal(problems.length, 1, value);
    t.match(problems[0], `TRUST_PROXY has "${value}"; it must be`);
  }
});

t.test('a plugin\'s name that is none is refused', async (t) => {
  for (const name of ['Hello', '../x', 'load', '__proto__', 'constructor', 'a b', '1a', 'a'.repeat(55)]) {
    const problems = problemsOf(t, () => parseConfig({ PLUGINS_ENABLED: `hello,${name},items` }, DIRECTORY));
    t.equal(problems.length, 1);
    t.ok(problems[0]?.startsWith(`PLUGINS_ENABLED has "${name}"`), String(problems[0]));
  }
  t.strictSame(parseConfig({ PLUGINS_ENABLED: `${'a'.repeat(54)},a_b-c9` }, DIRECTORY).pluginsEnabled, ['a'.repeat(54), 'a_b-c9']);
});

t.test('all problems are told at once', async (t) => {
  const problems = problemsOf(t, () => parseConfig({
    PORT: '99999', DEBUG: 'maybe', LOG_LEVEL: 'loud', POSTGRES_USER: 'a b', DATABASE_URL: 'mysql://u:geheim@h/d', DATABASE_POOL_MAX: '0', PLUGINS_ENABLED: 'UPPER,load', OPERATOR_TOKEN: 'short', HOST: 'x',
  }, DIRECTORY));
  t.strictSame(problems.map((problem) => problem.split(' ')[0]).sort(), ['DATABASE_POOL_MAX', 'DATABASE_URL', 'DEBUG', 'LOG_LEVEL', 'OPERATOR_TOKEN', 'PLUGINS_ENABLED', 'PLUGINS_ENABLED', 'PORT', 'POSTGRES_USER']);
});

t.test('DATABASE_URL has the form postgresql://user:password@host:port/database', async (t) => {
  const good = [
    'postgresql://user:password@localhost:5432/shop', 'postgres://user:password@localhost:5432/shop', 'postgresql://user@db/shop', 'postgresql://db/shop', 'postgresql://user:p%40ss%2Fword@10.0.0.1:6543/shop',
    'postgresql://user:password@[::1]:5432/shop', 'postgresql://user@localhost:5432/shop?host=%2Fvar%2Frun&sslmode=disable', 'postgresql://user:password@db.example.com/shop?sslmode=require', 'postgresql:///shop?host=/var/run/postgresql',
  ];
  for (const url of good) t.equal(parseConfig({ DATABASE_URL: url }, DIRECTORY).databaseUrl, url);
  const bad: [url: string, why: RegExp][] = [
    ['geheim', /must have the form/], ['localhost:5432/geheim', /must have the form/], ['user:geheim@localhost:5432/shop', /must have the form/], ['//user:geheim@localhost/shop', /must have the form/], ['postgresql:user:geheim@localhost/shop', /must have the form/],
    ['mysql://user:geheim@localhost:3306/shop', /not mysql:/], ['http://user:geheim@localhost/shop', /not http:/], ['postgresql+asyncpg://user:geheim@localhost/shop', /not postgresql\+asyncpg:/],
    ['postgresql://user:geheim@localhost:5432', /names no database/], ['postgresql://user:geheim@localhost:5432/', /names no database/], ['postgresql://user:geheim@localhost:5432?x=1', /names no database/],
    ['postgresql:///shop?password=geheim', /names no host/], ['postgresql://user:geheim@localhost:99999/shop', /must have the form/], ['postgresql://user:geheim@localhost:port/shop', /must have the form/],
    ['postgresql://user:geheim@/shop', /must have the form/], ['postgresql://user:geheim#x@localhost/shop', /must have the form/], [' ', /must have the form/],
  ];
  for (const [url, why] of bad) {
    const problems = problemsOf(t, () => parseConfig({ DATABASE_URL: url }, DIRECTORY));
    t.equal(problems.length, 1, url);
    t.match(problems[0], /^DATABASE_URL must have the form postgresql:\/\/user:password@host:port\/database/, url);
    t.match(problems[0], why, url);
    t.notMatch(problems[0], /geheim/, `${url}: the password is not shown`);
  }
});

t.test('a secret that is refused is not shown', async (t) => {
  for (const token of ['geheim', 'ge heim geheim', 'geheim\tgeheim']) {
    const problems = problemsOf(t, () => parseConfig({ OPERATOR_TOKEN: token, DATABASE_URL: `postgresql://u:${token}@h` }, DIRECTORY));
    t.strictSame(problems.map((problem) => problem.split(' ')[0]).sort(), ['DATABASE_URL', 'OPERATOR_TOKEN']);
    t.match(problems.find((problem) => problem.startsWith('OPERATOR_TOKEN')), /at least 8 characters and no spaces/);
    t.notMatch(problems.join('\n'), /heim/);
  }
});

t.test('the .env file is read, with comments and quotes', async (t) => {
  const folder = await folderWith(t, `# a comment\nAPP_NAME="The Ship" # and one behind\nPORT=9100\n\nexport LOG_LEVEL=warn\nPLUGINS_ENABLED='hello,items'\nPLUGIN_HELLO_GREETING="a # b"\nPLUGINS_DIR=one:two\n`);
  const config = await loadConfig(folder, {});
  t.match(config, { appName: 'The Ship', port: 9100, logLevel: 'warn', pluginsEnabled: ['hello', 'items'], pluginVariables: { PLUGIN_HELLO_GREETING: 'a # b' } });
  t.strictSame(config.pluginsDirs, [join(folder, 'one'), join(folder, 'two')], 'paths begin where the file lies');
});

t.test('the environment wins over the file, also with an empty value', async (t) => {
  const folder = await folderWith(t, 'PORT=9100\nAPP_NAME=File\nDATABASE_URL=postgresql://u:p@h/d\nPLUGIN_A_X=file\nPLUGIN_A_Y=file\n');
  const config = await loadConfig(folder, { PORT: '9200', DATABASE_URL: '', PLUGIN_A_X: 'environment' });
  t.match(config, { port: 9200, appName: 'File', databaseUrl: null, pluginVariables: { PLUGIN_A_X: 'environment', PLUGIN_A_Y: 'file' } });
  t.equal((await loadConfig(folder, {})).databaseUrl, 'postgresql://u:p@h/d');
});

t.test('no .env is no problem, one that cannot be read is', async (t) => {
  const folder = await folderWith(t, '');
  await rm(join(folder, '.env'));
  t.equal((await loadConfig(folder, { PORT: '1' })).port, 1);
  await mkdir(join(folder, '.env'));
  await t.rejects(loadConfig(folder, {}), { code: 'CONFIG_INVALID', message: /\.env cannot be read/ });
});

t.test('the .env of the repository has every documented variable, with the documented defaults', async (t) => {
  const file = parseEnv(await readFile(join(ROOT, '.env'), 'utf8'));
  t.strictSame(Object.keys(file).sort(), ['APP_NAME', 'DATABASE_URL', 'DATA_DIR', 'DEBUG', 'HOST', 'LOG_LEVEL', 'OPERATOR_TOKEN', 'PLUGINS_DIR', 'PLUGINS_ENABLED', 'PORT', 'POSTGRES_DB', 'POSTGRES_PASSWORD', 'POSTGRES_USER']);
  const config = await loadConfig(ROOT, {});
  t.strictSame(config, {
    ...DEFAULTS, debug: true, pluginsEnabled: ['hello', 'analytics', 'items'], pluginsDirs: [join(ROOT, 'plugins')], dataDir: join(ROOT, '.data'),
  });
  t.notOk(file['POSTGRES_PASSWORD'] === '', 'compose needs a password');
});

t.test('a variable belongs to the plugin with the longest fitting name', async (t) => {
  const variables = { PLUGIN_A_KEY: '1', PLUGIN_A_B_KEY: '2', PLUGIN_A_B: '3', PLUGIN_AB_KEY: '4', PLUGIN_A_: '5', PLUGIN_A_B_C_KEY: '6', PLUGIN_A_BC_KEY: '7' };
  const cases: [name: string, known: string[], config: Record<string, string>][] = [
    ['a', ['a'], { KEY: '1', B_KEY: '2', B: '3', B_C_KEY: '6', BC_KEY: '7' }],
    ['a', ['a', 'a-b'], { KEY: '1', B: '3', BC_KEY: '7' }],
    ['a', ['a', 'a_b'], { KEY: '1', B: '3', BC_KEY: '7' }],
    ['a-b', ['a', 'a-b'], { KEY: '2', C_KEY: '6' }],
    ['a-b', ['a', 'a-b', 'a-b-c'], { KEY: '2' }],
    ['a-b-c', ['a', 'a-b', 'a-b-c'], { KEY: '6' }],
    ['ab', ['a', 'ab'], { KEY: '4' }],
    ['b', ['a', 'b'], {}],
  ];
  for (const [name, known, config] of cases) {
    const settings = pluginSettings(variables, name, known);
    t.strictSame(settings.config, config, `${name} among ${known.join(', ')}`);
    const prefix = `PLUGIN_${name.toUpperCase().replaceAll('-', '_')}_`;
    t.strictSame(settings.environment, Object.fromEntries(Object.entries(config).map(([key, value]) => [prefix + key, value])), 'and under the full names');
  }
  t.strictSame(pluginSettings(parseConfig({ PLUGIN_HELLO_X: '', DATABASE_URL: 'postgres://a:b@c/d', PLUGIN_hello_Y: 'small', OPERATOR_TOKEN: '12345678' }, DIRECTORY).pluginVariables, 'hello', ['hello']),
    { environment: { PLUGIN_HELLO_X: '' }, config: { X: '' }, granted: [], threads: null }, 'nothing but its own variables');
});

t.test('what is granted to a plugin is no setting of its own, and must be known', async (t) => {
  const { pluginVariables } = parseConfig({ PLUGIN_HELLO_PERMISSIONS: 'network, write:/var/x', PLUGIN_HELLO_X: '1' }, DIRECTORY);
  t.strictSame(pluginSettings(pluginVariables, 'hello', ['hello']), { environment: { PLUGIN_HELLO_X: '1' }, config: { X: '1' }, granted: ['network', 'write:/var/x'], threads: null });
  t.match(problemsOf(t, () => parseConfig({ PLUGIN_HELLO_PERMISSIONS: 'network,root,write:x,read:/a/../b,read:/*' }, DIRECTORY)),
    ['root', 'write:x', 'read:/a/../b', 'read:/*'].map((entry) => new RegExp(`^PLUGIN_HELLO_PERMISSIONS has "${entry.replaceAll('*', '\\*')}", which is no permission`)));
});

t.test('how many workers a plugin has is no setting of its own, and must be a number', async (t) => {
  const { pluginVariables } = parseConfig({ PLUGIN_HELLO_THREADS: '3', PLUGIN_HELLO_X: '1', PLUGIN_A_THREADS: '', PLUGIN_A_B_THREADS: '2' }, DIRECTORY);
  t.match(pluginSettings(pluginVariables, 'hello', ['hello']), { config: { X: '1' }, threads: 3 });
  t.equal(pluginSettings(pluginVariables, 'a', ['a', 'a-b']).threads, null, 'an empty one is none');
  t.equal(pluginSettings(pluginVariables, 'a-b', ['a', 'a-b']).threads, 2);
  t.doesNotThrow(() => parseConfig({ PLUGINS_ENABLED: 'hello', PLUGIN_HELLO_ENCODER_THREADS: 'auto' }, DIRECTORY), 'a setting of the plugin\'s own is its own');
  for (const value of ['0', '17', '1.5', 'all', '-1']) {
    t.match(problemsOf(t, () => parseConfig({ PLUGINS_ENABLED: 'hello', PLUGIN_HELLO_THREADS: value }, DIRECTORY)), [`PLUGIN_HELLO_THREADS must be a whole number from 1 to 16, not "${value}"`]);
  }
});

/** Runs the built program in an empty folder; it must end by itself. */
async function runMain(t: Test, environment: Record<string, string>): Promise<{ code: number | null; stderr: string; stdout: string; ms: number }> {
  const folder = await folderWith(t, '');
  const began = Date.now();
  const child = spawn(process.execPath, [join(ROOT, 'dist/kernel/main.js')], { cwd: folder, env: { PATH: process.env['PATH'], ...environment }, stdio: ['ignore', 'pipe', 'pipe'], timeout: 20_000, killSignal: 'SIGKILL' });
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) child[name].on('data', (chunk: Buffer) => { output[name] += chunk.toString(); });
  const code = await new Promise<number | null>((settle, reject) => child.once('error', reject).once('close', settle));
  return { code, ...output, ms: Date.now() - began };
}

t.test('the program ends with 78 and says everything that is wrong', async (t) => {
  const { code, stderr, stdout, ms } = await runMain(t, { PORT: 'many', DEBUG: 'perhaps', DATABASE_URL: 'postgresql://u:geheim@host', PLUGINS_ENABLED: 'load' });
  t.equal(code, 78);
  t.match(stderr, /^The configuration is not valid:\n/);
  for (const name of ['PORT', 'DEBUG', 'DATABASE_URL', 'PLUGINS_ENABLED']) t.match(stderr, new RegExp(`^  - ${name} `, 'm'));
  t.equal(stderr.trim().split('\n').length, 5, 'a line each and no stack');
  t.notMatch(stdout + stderr, /geheim/);
  t.ok(ms < 15_000, 'at once');
});
