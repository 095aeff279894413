// Checks of arguments and results against the schemas of a plugin's contracts, compiled once. Must not know who calls.
import type { TSchema } from '@sinclair/typebox';
import type { TypeCheck } from '@sinclair/typebox/compiler';
import { isOptional, methodsOf } from '../../protocol/contracts.js';
import { BulkheadError } from '../../protocol/errors.js';
import { promiseOf } from '../../protocol/marks.js';
import type { Load } from './warm-up.js';

/** Each throws when it is given something else than the contract says. */
export interface ContractCheck {
  readonly args: (args: readonly unknown[]) => void;
  readonly result: (value: unknown) => void;
}

/** Built beside the host, and loaded only for plugins that have such schemas. */
const COMPILER = new URL('./typebox/compiler.js', import.meta.url).href;

type Compiler = typeof import('@sinclair/typebox/compiler')['TypeCompiler'];

/** By service and method, as `name method`. Throws what is wrong with a schema. */
export async function compileChecks(services: Readonly<Record<string, object>>, load: Load): Promise<Map<string, ContractCheck>> {
  const checks = new Map<string, ContractCheck>();
  for (const [service, offered] of Object.entries(services)) {
    for (const [method, call] of methodsOf(offered)) {
      const { args, result } = promiseOf(call);
      if (args === undefined && result === undefined) continue;
      const { TypeCompiler } = (await load(COMPILER)) as { TypeCompiler: Compiler };
      const compile = (schema: TSchema): TypeCheck<TSchema> => {
        try {
          return TypeCompiler.Compile(schema);
        } catch (error) {
          throw new TypeError(`a schema of the service "${service}", method "${method}" is none of TypeBox: ${(error as Error).message}`, { cause: error });
        }
      };
      checks.set(`${service} ${method}`, checkOf(`${service}.${method}`, args?.map((schema) => ({ optional: isOptional(schema), check: compile(schema) })), result && compile(result)));
    }
  }
  return checks;
}

function checkOf(service: string, args: readonly { readonly optional: boolean; readonly check: TypeCheck<TSchema> }[] | undefined, result: TypeCheck<TSchema> | undefined): ContractCheck {
  return {
    args(given) {
      if (args === undefined) return;
      if (given.length > args.length) throw new BulkheadError('SERVICE_ARGUMENTS_INVALID', { service, reason: `${given.length} were given, and it takes ${args.length}` });
      args.forEach(({ optional, check }, place) => {
        if ((given[place] === undefined && optional) || check.Check(given[place])) return;
        throw new BulkheadError('SERVICE_ARGUMENTS_INVALID', { service, reason: `argument ${place + 1}${problemOf(check, given[place])}` });
      });
    },
    result(value) {
      if (result === undefined || result.Check(value)) return;
      throw new BulkheadError('SERVICE_RESULT_INVALID', { service, reason: `the value${problemOf(result, value)}` });
    },
  };
}

function problemOf(check: TypeCheck<TSchema>, value: unknown): string {
  const problem = check.Errors(value).First();
  return problem === undefined ? '' : ` ${problem.path === '' ? '' : `at ${problem.path} `}is wrong: ${problem.message}`;
}
