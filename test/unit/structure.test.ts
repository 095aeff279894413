// The rules of the layout, read from the source text: who imports whom, how long a file is, where bounds and errors live.
import { readdir, readFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import t from 'tap';
import { BulkheadError, ERRORS, toPlainError, type ErrorCode } from '../../protocol/errors.js';
import * as databaseLimits from '../../protocol/database-limits.js';
import * as eventLimits from '../../protocol/event-limits.js';
import * as guardianLimits from '../../protocol/guardian-limits.js';
import * as interceptorLimits from '../../protocol/interceptor-limits.js';
import * as generalLimits from '../../protocol/limits.js';
import * as serviceLimits from '../../protocol/service-limits.js';
import { ROOT } from '../helpers/kernel.js';

interface SourceLine { readonly path: string; readonly line: number; readonly text: string }

const FILE_MAX_LINES = 260;

async function sources(...folders: readonly string[]): Promise<string[]> {
  const found = await Promise.all(folders.map(async (folder) => {
    const entries = await readdir(join(ROOT, folder), { recursive: true, withFileTypes: true });
    return entries.filter((entry) => entry.isFile() && /\.c?ts$/.test(entry.name)).map((entry) => relative(ROOT, join(entry.parentPath, entry.name)));
  }));
  return found.flat().sort();
}

async function lines(path: string): Promise<SourceLine[]> {
  return (await readFile(join(ROOT, path), 'utf8')).split('\n').map((text, index) => ({ path, line: index + 1, text }));
}

/** The module a line imports, if it does; types alone cost nothing at run time and are told apart. */
function importOf(text: string): { readonly module: string; readonly typeOnly: boolean } | null {
  const match = /^(?:import|export)\s+(type\s)?.*?from\s+'([^']+)'|^import\s+'([^']+)'|import\(\s*'([^']+)'\s*\)|require\(\s*'([^']+)'\s*\)/.exec(text.trim());
  if (match === null) return null;
  return { module: match[2] ?? match[3] ?? match[4] ?? match[5] ?? '', typeOnly: match[1] !== undefined };
}

t.test('imports go in the allowed directions only', async (t) => {
  /** Which folder may not import what, with the rule that is printed. */
  const rules: readonly { readonly within: RegExp; readonly forbidden: RegExp; readonly except?: RegExp; readonly rule: string; readonly typesToo?: boolean }[] = [
    { within: /^protocol\//, forbidden: /(^|\/)(kernel|plugins)\//, rule: 'protocol imports neither kernel nor plugins', typesToo: true },
    { within: /^kernel\//, forbidden: /^(\.\.\/)+plugins\/(hello|items|analytics)/, rule: 'the kernel never imports a plugin', typesToo: true },
    { within: /^kernel\/host\//, forbidden: /^\.\.\/(?!\.\.\/protocol\/)/, rule: 'the host imports only protocol', typesToo: true },
    { within: /^kernel\/(?!host\/)/, forbidden: /\/host\//, rule: 'the kernel thread never imports the host', typesToo: true },
    { within: /^kernel\/(main\.ts|guardian)/, forbidden: /^(@?fastify|piscina|comlink|pg|esbuild)|\/(http|dispatch|services|host|process)\/|\/kernel\.js$/, rule: 'the guardian runs nothing of an application', typesToo: true },
    { within: /^kernel\/(?!main\.ts|guardian|process\/)/, forbidden: /guardian/, rule: 'the kernel does not know its guardian', typesToo: true },
    { within: /^plugins\//, forbidden: /^\.\.\/|kernel/, rule: 'a plugin imports bulkhead/protocol and its own folder, nothing else of ours', typesToo: true },
    { within: /^(kernel|protocol|plugins)\//, forbidden: /^piscina$/, except: /^kernel\/plugins\/generation\.ts$/, rule: 'piscina is imported in one file' },
    { within: /^(kernel|protocol|plugins)\//, forbidden: /^comlink/, except: /^kernel\/(plugins\/control|host\/main)\.ts$/, rule: 'comlink is imported in two files, one each side' },
    { within: /^(kernel|protocol|plugins)\//, forbidden: /^pg(-pool)?$/, except: /^kernel\/(database|host)\//, rule: 'pg is imported in kernel/database and kernel/host' },
    { within: /^plugins\/[^/]+\/routes\.ts$/, forbidden: /crud|models/, rule: 'routes use services, schemas and middleware' },
    { within: /^plugins\/[^/]+\/services\.ts$/, forbidden: /routes|middleware|models/, rule: 'services use crud and utils', typesToo: true },
    { within: /^plugins\/[^/]+\/crud\.ts$/, forbidden: /routes|services|middleware|schemas/, rule: 'crud uses models', typesToo: true },
  ];
  for (const path of await sources('kernel', 'protocol', 'plugins')) {
    for (const { line, text } of await lines(path)) {
      const imported = importOf(text);
      if (imported === null) continue;
      for (const { within, forbidden, except, rule, typesToo } of rules) {
        const broken = within.test(path) && forbidden.test(imported.module) && except?.test(path) !== true && (typesToo === true || !imported.typeOnly);
        if (broken) t.fail(`${path}:${line}: ${rule} (it imports ${imported.module})`);
      }
    }
  }
  t.strictSame(importOf(`import type { Pool } from 'pg';`), { module: 'pg', typeOnly: true }, 'an import of types is recognised');
  t.strictSame(importOf(`const { build } = await import('esbuild');`), { module: 'esbuild', typeOnly: false }, 'a dynamic import is recognised');
});

t.test('every file is short and begins by saying what it owns', async (t) => {
  const files = await sources('kernel', 'protocol', 'plugins');
  t.ok(files.length > 40, 'the sources are found');
  for (const path of files) {
    const text = await lines(path);
    t.ok(text.length <= FILE_MAX_LINES, `${path} has ${text.length} lines, at most ${FILE_MAX_LINES}`);
    t.match(text[0]!.text, /^\/\/ [A-Z].*[a-z]/, `${path}:1 is a sentence about the file`);
  }
});

t.test('the environment is read in one file', async (t) => {
  for (const path of await sources('kernel', 'protocol', 'plugins')) {
    for (const { line, text } of await lines(path)) {
      // The host does not read: it gives its worker the variables of the plugin.
      if (path === 'kernel/config.ts' || text.includes('Object.assign(process.env')) continue;
      if (/process\.env/.test(text.replace(/(\/\/|\*).*$/, ''))) t.fail(`${path}:${line}: process.env belongs into kernel/config.ts`);
    }
  }
  t.pass('all sources were read');
});

t.test('every number of the limits is in bounds and has its unit in its name', async (t) => {
  for (const [name, value] of Object.entries({ ...generalLimits, ...databaseLimits, ...eventLimits, ...guardianLimits, ...interceptorLimits, ...serviceLimits })) {
    if (typeof value === 'number') {
      t.ok(Number.isSafeInteger(value) && value > 0, `${name} is a positive whole number`);
      t.match(name, /_(MS|BYTES|MB|FRAMES|MESSAGES|ENTRIES|CHARACTERS|MAX|PENDING|QUARANTINE|PERCENT|MIN)$/, `${name} says what it counts`);
    }
  }
});

t.test('every error of the design has its status and a message that says what to do', async (t) => {
  const table: Readonly<Record<string, number>> = {
    INTERCEPTOR_FAILED: 503,
    PLUGIN_UNKNOWN: 404, PLUGIN_NAME_INVALID: 400, PLUGIN_NOT_RUNNING: 503, PLUGIN_QUARANTINED: 503, PLUGIN_CRASHED: 502, PLUGIN_UNRESPONSIVE: 504,
    PLUGIN_OVERLOADED: 503, PLUGIN_TIMEOUT: 504, PLUGIN_LOAD_FAILED: 422, PLUGIN_START_FAILED: 422, PLUGIN_CONFLICT: 409, SERVICE_UNKNOWN: 500,
    SERVICE_UNAVAILABLE: 503, SERVICE_FORBIDDEN: 500, DEPENDENCY_MISSING: 409, DEPENDENCY_CYCLE: 409, DATABASE_UNAVAILABLE: 503, DATABASE_BUSY: 503, DATABASE_SETUP_FAILED: 500, PLUGIN_MIGRATION_FAILED: 422, PAYLOAD_TOO_LARGE: 413, OPERATOR_UNAUTHORIZED: 401, OPERATOR_FORBIDDEN: 403, KERNEL_STOPPING: 503,
  };
  for (const [code, status] of Object.entries(table)) t.equal(ERRORS[code as ErrorCode]?.status, status, `${code} is ${status}`);

  const everything = {
    name: 'shop', known: ['a'], reason: 'why', status: 'stopped', silentMs: 1, concurrency: 1, queue: 1, timeoutMs: 1, method: 'GET', url: '/x', allowed: 'POST',
    service: 's', topic: 't', bytes: 2, maxBytes: 1, limitBytes: 1, perSecond: 1, refusedMs: 1_000, problems: ['p'], migration: '0001-a.sql', services: ['s'], path: ['a', 'b'],
    subscriber: 'audit', waiting: 1,
  };
  for (const code of Object.keys(ERRORS) as ErrorCode[]) {
    const error = new BulkheadError(code, everything as never);
    t.match(error.message, /^\S.{10,}/s, `${code} has a sentence`);
    t.notMatch(error.message, /undefined|\[object/, `${code} fills its sentence`);
    t.equal(toPlainError(error).code, code, `${code} keeps its code on the way to another thread`);
  }
});

t.test('an error of the catalogue that is thrown somewhere is documented in the README', async (t) => {
  const readme = await readFile(join(ROOT, 'README.md'), 'utf8');
  for (const code of Object.keys(ERRORS)) t.ok(readme.includes(`\`${code}\``), `the README explains ${code}`);
});

t.test('any thrown value can cross a thread', async (t) => {
  t.equal(toPlainError('text').message, 'text');
  t.equal(toPlainError(null).message, 'null');
  t.equal(toPlainError(Object.create(null)).message, 'a value that cannot be shown');
  t.strictSame(toPlainError({ name: 5, message: {}, code: 7 }), { name: 'Error', message: '[object Object]' });
});
