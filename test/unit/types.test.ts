// The types that plugin authors write against: the snippets of the README compile, and what does not fit does not.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import ts from 'typescript';
import { ROOT } from '../helpers/kernel.js';

const README = await readFile(join(ROOT, 'README.md'), 'utf8');
const SNIPPETS = [...README.matchAll(/^```ts[^\n]*\n(.*?)^```/gms)].map(([, text]) => text!).filter((text) => text.includes('import '));

/** Each line ends with a pattern of the error that it is to have; one without has to compile. */
const SERVICES = `
import { Type } from '@sinclair/typebox';
import { definePlugin, method, type PluginContext, type Remote, type ServiceMap } from 'bulkhead/protocol';
class Ledger { readonly owner = 'me'; #sum = 0; add(by: number): number { return (this.#sum += by); } async sum(): Promise<number> { return this.#sum; } }
declare module 'bulkhead/protocol' { interface ServiceMap { 'typed.count': (name: string) => number; 'typed.ledger': Ledger; 'typed.lines': () => AsyncGenerator<string> } }
export const use = async ({ services }: PluginContext) => {
  const n: number = await services.get('typed.count')('x');
  const sum: number = await services.get('typed.ledger').sum();
  for await (const line of services.get('typed.lines')()) line.toUpperCase();
  for await (const line of await services.get('typed.lines')()) line.toUpperCase();
  services.get('typed.missing'); // Argument of type '"typed.missing"' is not assignable
  services.get('typed.count')(5); // 'number' is not assignable to parameter of type 'string'
  services.get('typed.count')(); // Expected 1 arguments
  services.get('typed.ledger').subtract(1); // Property 'subtract' does not exist
  services.get('typed.ledger').owner; // Property 'owner' does not exist
  const wrong: string = await services.get('typed.count')('x'); // Type 'number' is not assignable to type 'string'
  const early: number = services.get('typed.count')('x'); // 'Promise<number>' is not assignable to type 'number'
  services.get('typed.count', () => 'none'); // Type 'string' is not assignable
  services.get('typed.count', () => 1);
  return [n, sum, wrong, early];
};
export const remote = (handle: Remote<ServiceMap['typed.count']>): Promise<number> => handle('x');
export const good = definePlugin({ name: 'a', version: '1', requires: ['typed.count'], services: { 'typed.count': (name) => name.length } });
export const misnamed = definePlugin({ name: 'a', version: '1', requires: ['typed.missing'] }); // Type '"typed.missing"' is not assignable
export const misprovided = definePlugin({ name: 'a', version: '1', services: { 'typed.count': () => 'text' } }); // Type 'string' is not assignable to type 'number'
export const unknown = definePlugin({ name: 'a', version: '1', services: { 'typed.other': () => 1 } }); // known properties, and ''typed.other'' does not exist
export const kernels = definePlugin({ name: 'a', version: '1', services: { 'kernel.clock': () => 1 } }); // known properties, and ''kernel.clock'' does not exist
export const fits = method({ args: [Type.String()], result: Type.Integer() }, (text) => text.length);
export const misfits = method({ args: [Type.String()] }, (n: number) => n); // No overload matches this call
export const lies = method({ result: Type.Integer() }, () => 'text'); // No overload matches this call
`;

/** The errors of these sources, as if each were a file of the project, by line. */
function compile(sources: Readonly<Record<string, string>>): Map<string, Map<number, string>> {
  const { config } = ts.readConfigFile(join(ROOT, 'tsconfig.json'), (path) => ts.sys.readFile(path)) as { config: { compilerOptions: object } };
  const { options } = ts.convertCompilerOptionsFromJson({ ...config.compilerOptions, noUnusedLocals: false, noUnusedParameters: false, skipLibCheck: true }, ROOT);
  const files = new Map(Object.entries(sources).map(([name, text]) => [join(ROOT, 'test', name), text]));
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists, readFile: read } = host;
  host.fileExists = (path) => files.has(path) || fileExists(path);
  host.readFile = (path) => files.get(path) ?? read(path);
  host.getSourceFile = (path, version, ...rest) => (files.has(path) ? ts.createSourceFile(path, files.get(path)!, version) : getSourceFile(path, version, ...rest));
  const program = ts.createProgram([...files.keys()], options, host);
  const errors = new Map([...files.keys()].map((path): [string, Map<number, string>] => [path, new Map()]));
  for (const { file, start, messageText } of ts.getPreEmitDiagnostics(program)) {
    const path = file?.fileName ?? 'the program';
    const line = file === undefined ? 0 : file.getLineAndCharacterOfPosition(start!).line;
    const found = errors.get(path) ?? new Map<number, string>();
    errors.set(path, found.set(line, `${found.get(line) ?? ''}${ts.flattenDiagnosticMessageText(messageText, ' ')} `));
  }
  return new Map([...errors].map(([path, found]) => [path.slice(join(ROOT, 'test').length + 1), found]));
}

const errors = compile({ 'services.ts': SERVICES, ...Object.fromEntries(SNIPPETS.map((text, i) => [`snippet-${i}.ts`, text])) });

t.test('the snippets of the README compile', async (t) => {
  t.ok(SNIPPETS.length >= 2, `${SNIPPETS.length} snippets are found`);
  for (let i = 0; i < SNIPPETS.length; i += 1) t.strictSame([...errors.get(`snippet-${i}.ts`)!], [], `snippet ${i + 1}`);
});

t.test('wrong names, arguments and results of services do not compile, and right ones do', async (t) => {
  for (const [number, line] of SERVICES.split('\n').entries()) {
    const [, expected] = /;(?: \}\);)? \/\/ (.*)$/.exec(line) ?? [];
    const found = errors.get('services.ts')!.get(number) ?? '';
    if (expected === undefined) t.equal(found, '', line);
    else t.ok(found.includes(expected), `${line}: ${found}`);
  }
});
