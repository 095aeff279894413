// The one place that reads the environment: variables in, one frozen Config out, or all that is wrong with them. Must not know who uses a value.
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { resolve } from 'node:path';
import { parseEnv } from 'node:util';
import { Type, type Static } from '@sinclair/typebox';
import { Value } from '@sinclair/typebox/value';
import { BulkheadError } from '../protocol/errors.js';
import { permissionProblems } from '../protocol/permissions.js';
import { THREADS_MAX } from '../protocol/limits.js';
import { isThreads, pluginNameProblem } from '../protocol/plugin.js';

type Environment = Readonly<Record<string, string | undefined>>;

const PLUGIN_VARIABLE = /^PLUGIN_[A-Z0-9_]+$/;
/** What the operator grants, and no setting of the plugin's own. */
const PERMISSIONS_VARIABLE = /^PLUGIN_[A-Z0-9_]+_PERMISSIONS$/;

const Switch = Type.Union([Type.Literal('true'), Type.Literal('false')], { errorMessage: 'must be "true" or "false"' });
const whole = (min: number, max: number, fallback: string) =>
  Type.String({ pattern: '^[0-9]{1,7}$', minimum: min, maximum: max, default: fallback, errorMessage: `must be a whole number from ${min} to ${max}` });
const text = (fallback: string, pattern = '', errorMessage = '') => Type.String({ default: fallback, ...(pattern !== '' && { pattern, errorMessage }) });

/** Every variable with its default and the sentence that says what is allowed. */
const Variables = Type.Object({
  APP_NAME: text('Bulkhead', '\\S', 'must not be blank'),
  DEBUG: { ...Switch, default: 'false' },
  HOST: text('127.0.0.1', '^\\S+$', 'must be a host name or an address'),
  PORT: whole(0, 65_535, '8001'),
  LOG_LEVEL: text('info', '^(trace|debug|info|warn|error|fatal|silent)$', 'must be one of trace, debug, info, warn, error, fatal, silent'),
  POSTGRES_USER: text('bulkhead', '^[A-Za-z_][A-Za-z0-9_]{0,62}$', 'must be a plain PostgreSQL name'),
  POSTGRES_PASSWORD: text(''),
  POSTGRES_DB: text('bulkhead', '^[A-Za-z_][A-Za-z0-9_]{0,62}$', 'must be a plain PostgreSQL name'),
  DATABASE_URL: text(''),
  DATABASE_POOL_MAX: whole(1, 1_000, '10'),
  DATABASE_ROLES: { ...Switch, default: 'true' },
  DATABASE_WAIT_MS: whole(0, 3_600_000, '30000'),
  PLUGINS_ENABLED: text(''),
  PLUGINS_DIR: text('plugins', '[^:]', 'must be one or several folders, separated by ":"'),
  DATA_DIR: text('.data', '\\S', 'must be a folder'),
  STANDBY_WORKERS: whole(0, 16, '1'),
  TRUST_PROXY: text('false'),
  OPERATOR_TOKEN: { ...text('', '^(\\S{8,})?$', 'must have at least 8 characters and no spaces, or be empty'), secret: true },
});
type Variables = Static<typeof Variables>;

export interface Config {
  readonly appName: string;
  /** Whether clients see the text of unexpected errors in plugins. */
  readonly debug: boolean;
  readonly host: string;
  /** 0 for any free port. */
  readonly port: number;
  readonly logLevel: string;
  /** Null for the embedded default database. */
  readonly databaseUrl: string | null;
  /** Most connections of the kernel's pool. */
  readonly databasePoolMax: number;
  /** Whether each plugin logs in as a role of its own. */
  readonly databaseRoles: boolean;
  /** How long the boot waits for the database before the log says that it is missing. */
  readonly databaseWaitMs: number;
  /** User and database of the embedded default, and most connections to it: those of this kernel, of another that is being replaced, and some for tools. */
  readonly embedded: { readonly user: string; readonly database: string; readonly connections: number };
  /** Loaded and started at boot, in this order. */
  readonly pluginsEnabled: readonly string[];
  /** Absolute paths. */
  readonly pluginsDirs: readonly string[];
  /** Absolute path. */
  readonly dataDir: string;
  /** Booted workers that wait for a plugin to die. */
  readonly standbyWorkers: number;
  /** Null when the operator's routes are open. */
  readonly operatorToken: string | null;
  /** Whose `X-Forwarded-*` headers are believed, as Fastify's option of the same name takes it. */
  readonly trustProxy: boolean | readonly string[];
  /** All `PLUGIN_*` variables; see `pluginSettings`. */
  readonly pluginVariables: Readonly<Record<string, string>>;
}

/**
 * Reads `.env` in `directory` and the process's environment, which wins.
 * Throws `CONFIG_INVALID` with all problems at once.
 */
export async function loadConfig(directory: string = process.cwd(), environment: Environment = process.env): Promise<Config> {
  const file = await readFile(resolve(directory, '.env'), 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '';
    throw new BulkheadError('CONFIG_INVALID', { problems: [`.env cannot be read: ${error.message}`] });
  });
  return parseConfig({ ...parseEnv(file), ...environment }, directory);
}

/** Paths are resolved against `directory`. An empty variable means its default. Throws `CONFIG_INVALID`. */
export function parseConfig(environment: Environment, directory: string): Config {
  const given = Object.fromEntries(Object.keys(Variables.properties).flatMap((name) => (environment[name] ? [[name, environment[name]]] : [])));
  const variables = Value.Default(Variables, given) as Variables;
  const problems = [...variableProblems(variables), ...urlProblems(variables.DATABASE_URL), ...proxyProblems(variables.TRUST_PROXY)];
  const pluginsEnabled = splitList(variables.PLUGINS_ENABLED, ',');
  for (const name of pluginsEnabled) {
    const problem = pluginNameProblem(name);
    if (problem !== null) problems.push(`PLUGINS_ENABLED has "${name}", which cannot be the name of a plugin: ${problem}`);
  }
  for (const [name, value = ''] of Object.entries(environment)) if (PERMISSIONS_VARIABLE.test(name)) problems.push(...permissionProblems(name, splitList(value, ',')));
  for (const variable of pluginsEnabled.map(threadsVariable)) {
    const value = environment[variable] ?? '';
    if (value !== '' && !isThreads(Number(value))) problems.push(`${variable} must be a whole number from 1 to ${THREADS_MAX}, not ${JSON.stringify(value)}`);
  }
  if (problems.length > 0) throw new BulkheadError('CONFIG_INVALID', { problems });

  return Object.freeze({
    appName: variables.APP_NAME,
    debug: variables.DEBUG === 'true',
    host: variables.HOST,
    port: Number(variables.PORT),
    logLevel: variables.LOG_LEVEL,
    databaseUrl: variables.DATABASE_URL === '' ? null : variables.DATABASE_URL,
    databasePoolMax: Number(variables.DATABASE_POOL_MAX),
    databaseRoles: variables.DATABASE_ROLES === 'true',
    databaseWaitMs: Number(variables.DATABASE_WAIT_MS),
    embedded: Object.freeze({ user: variables.POSTGRES_USER, database: variables.POSTGRES_DB, connections: 2 * Number(variables.DATABASE_POOL_MAX) + 20 }),
    pluginsEnabled: Object.freeze([...new Set(pluginsEnabled)]),
    pluginsDirs: Object.freeze(splitList(variables.PLUGINS_DIR, ':').map((dir) => resolve(directory, dir))),
    dataDir: resolve(directory, variables.DATA_DIR),
    standbyWorkers: Number(variables.STANDBY_WORKERS),
    operatorToken: variables.OPERATOR_TOKEN === '' ? null : variables.OPERATOR_TOKEN,
    trustProxy: variables.TRUST_PROXY === 'true' || (variables.TRUST_PROXY !== 'false' && Object.freeze(splitList(variables.TRUST_PROXY, ','))),
    pluginVariables: Object.freeze(Object.fromEntries(Object.entries(environment).flatMap(([name, value]) => (value !== undefined && PLUGIN_VARIABLE.test(name) ? [[name, value]] : [])))),
  });
}

/** Where programs and certificates are, and how text and time are written. */
const KERNEL_VARIABLE = /^(PATH|HOME|TZ|LANG|LC_[A-Z]+|TMPDIR|NODE_EXTRA_CA_CERTS|SSL_CERT_FILE|SSL_CERT_DIR)$/;

/** What the kernel's process gets of the environment: nothing secret, and nothing that changes how Node treats heaps or loads code. */
export function kernelEnvironment(environment: Environment = process.env): Record<string, string> {
  return Object.fromEntries(Object.entries(environment).flatMap(([name, value]) => (value !== undefined && KERNEL_VARIABLE.test(name) ? [[name, value]] : [])));
}

/** The part of `pluginVariables` that belongs to one plugin. */
export interface PluginSettings {
  /** Under their full names: `PLUGIN_HELLO_GREETING`. */
  readonly environment: Readonly<Record<string, string>>;
  /** Without the prefix: `GREETING`. */
  readonly config: Readonly<Record<string, string>>;
  /** From `PLUGIN_<NAME>_PERMISSIONS`. */
  readonly granted: readonly string[];
  /** From `PLUGIN_<NAME>_THREADS`, NaN when that is no number; null leaves it to the manifest. */
  readonly threads: number | null;
}

/** A variable belongs to the known plugin with the longest fitting name: `PLUGIN_A_B_KEY` to `a-b` if there is one, else to `a`. */
export function pluginSettings(variables: Readonly<Record<string, string>>, name: string, known: readonly string[]): PluginSettings {
  const prefix = prefixOf(name);
  const longer = known.map(prefixOf).filter((other) => other.length > prefix.length && other.startsWith(prefix));
  const all = Object.entries(variables).filter(([variable]) => variable.startsWith(prefix) && variable.length > prefix.length && !longer.some((other) => variable.startsWith(other)));
  const permissions = permissionsVariable(name);
  const threads = threadsVariable(name);
  const own = all.filter(([variable]) => variable !== permissions && variable !== threads);
  const value = (variable: string): string => all.find(([other]) => other === variable)?.[1] ?? '';
  return {
    environment: Object.fromEntries(own),
    config: Object.fromEntries(own.map(([variable, value]) => [variable.slice(prefix.length), value])),
    granted: splitList(value(permissions), ','),
    threads: value(threads) === '' ? null : Number(value(threads)),
  };
}

/** The variable that grants permissions to a plugin. */
export function permissionsVariable(name: string): string {
  return `${prefixOf(name)}PERMISSIONS`;
}

/** The variable that says how many workers a plugin has. */
export function threadsVariable(name: string): string {
  return `${prefixOf(name)}THREADS`;
}

function prefixOf(name: string): string {
  return `PLUGIN_${name.toUpperCase().replaceAll('-', '_')}_`;
}

function variableProblems(variables: Variables): string[] {
  return Object.entries(Variables.properties).flatMap(([name, schema]) => {
    const value = variables[name as keyof Variables];
    const { minimum = 0, maximum = Infinity, errorMessage, secret = false } = schema as { minimum?: number; maximum?: number; errorMessage?: string; secret?: boolean };
    const inRange = maximum === Infinity || (Number(value) >= minimum && Number(value) <= maximum);
    return Value.Check(schema, value) && inRange ? [] : [`${name} ${errorMessage}${secret ? '' : `, not ${JSON.stringify(value)}`}`];
  });
}

/** Names that stand for networks, as the package proxy-addr has them. */
const NETWORK_NAMES: ReadonlySet<string> = new Set(['loopback', 'linklocal', 'uniquelocal']);

function proxyProblems(text: string): string[] {
  if (text === 'true' || text === 'false') return [];
  return splitList(text, ',').filter((proxy) => !NETWORK_NAMES.has(proxy) && !isNetwork(proxy))
    .map((proxy) => `TRUST_PROXY has ${JSON.stringify(proxy)}; it must be "true", "false", or a list of addresses and networks such as 10.0.0.0/8, loopback, linklocal and uniquelocal`);
}

function isNetwork(text: string): boolean {
  const [address = '', bits = '1', ...rest] = text.split('/');
  return rest.length === 0 && isIP(address) !== 0 && /^[1-9]\d{0,2}$/.test(bits) && Number(bits) <= (isIP(address) === 4 ? 32 : 128);
}

/** Says what is wrong with a URL without showing it: it holds the password. */
function urlProblems(url: string): string[] {
  if (url === '') return [];
  const form = 'DATABASE_URL must have the form postgresql://user:password@host:port/database';
  if (!URL.canParse(url)) return [form];
  const { protocol, pathname, hostname, searchParams } = new URL(url);
  if (protocol !== 'postgresql:' && protocol !== 'postgres:') return [`${form}, not ${protocol}//...`];
  if (pathname.length < 2) return [`${form}; it names no database`];
  return hostname === '' && !searchParams.has('host') ? [`${form}; it names no host`] : [];
}

function splitList(list: string, separator: string): string[] {
  return list.split(separator).map((part) => part.trim()).filter((part) => part !== '');
}
