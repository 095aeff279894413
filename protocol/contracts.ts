// What a service promises, as data: its methods, which of them may be repeated, and the schemas of their arguments and results. Must not know how calls travel.
import { SERVICE_NAME_MAX_CHARACTERS } from './limits.js';
import { SERVICES_MAX, SERVICE_CONTRACTS_MAX_CHARACTERS } from './service-limits.js';
import { promiseOf } from './marks.js';

type JsonSchema = Readonly<Record<string, unknown>>;

export interface MethodContract {
  /** Whether a call may be made again when its provider has died in the middle of it. */
  readonly idempotent: boolean;
  /** Of the arguments in their order, or null when they are not checked. */
  readonly args: readonly JsonSchema[] | null;
  /** How many of them must be given: the others come last. */
  readonly required: number;
  readonly result: JsonSchema | null;
}

/** By the name of the method. A service that is a function has the one method ITSELF. */
export type ServiceContract = Readonly<Record<string, MethodContract>>;
/** By the name of the service. */
export type ServiceContracts = Readonly<Record<string, ServiceContract>>;

export const ITSELF = '()';

/** The services that every plugin has; no plugin provides one of these names. */
export const OWN_PREFIX = 'kernel.';

type AnyFunction = (...args: never[]) => unknown;

/** The functions of a service by name, bound to it. What is inherited counts as well, so that the instance of a class can be a service. */
export function methodsOf(service: object): Map<string, AnyFunction> {
  if (typeof service === 'function') return new Map([[ITSELF, service as AnyFunction]]);
  const methods = new Map<string, AnyFunction>();
  for (let holder: object | null = service; holder !== null && holder !== Object.prototype; holder = Object.getPrototypeOf(holder) as object | null) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(holder))) {
      if (typeof value === 'function' && name !== 'constructor' && !methods.has(name)) methods.set(name, value as AnyFunction);
    }
  }
  return methods;
}

/** Of services as a plugin offers them. */
export function contractsOf(services: Readonly<Record<string, object>>): ServiceContracts {
  // Only what JSON can say leaves the worker: schemas hold symbols.
  return JSON.parse(JSON.stringify(Object.fromEntries(Object.entries(services).map(([name, service]) => [
    name,
    Object.fromEntries([...methodsOf(service)].map(([method, call]): [string, MethodContract] => {
      const { idempotent = false, args = null, result = null } = promiseOf(call);
      return [method, { idempotent, args, required: requiredOf(args ?? []), result } as MethodContract];
    })),
  ])))) as ServiceContracts;
}

/** As TypeBox marks what may be left out; JSON has no word for it. */
export const isOptional = (schema: object): boolean => Object.getOwnPropertySymbols(schema).includes(Symbol.for('TypeBox.Optional'));

const requiredOf = (args: readonly object[]): number => args.findLastIndex((schema) => !isOptional(schema)) + 1;

/** What is wrong with services as a plugin offers them. */
export function offerProblems(offered: unknown): string[] {
  if (typeof offered !== 'object' || offered === null) return ['`services` must be an object of services by name, or a function that returns one'];
  const services = Object.entries(offered);
  if (services.length > SERVICES_MAX) return [`\`services\` has more than ${SERVICES_MAX} entries`];
  return services.flatMap(([name, service]: [string, unknown]) => {
    const problems = serviceNameProblems('`services`', name);
    if (typeof service !== 'function' && (typeof service !== 'object' || service === null)) problems.push(`the service "${name}" must be a function or an object with methods`);
    else if (methodsOf(service).size === 0) problems.push(`the service "${name}" has no methods`);
    return problems;
  });
}

/** What is wrong with the names of services that a plugin needs. */
export function needProblems(field: string, names: unknown): string[] {
  if (!Array.isArray(names) || names.length > SERVICES_MAX) return [`${field} must be an array of at most ${SERVICES_MAX} names of services`];
  return names.flatMap((name: unknown) => (typeof name === 'string' ? serviceNameProblems(field, name) : [`${field} has ${JSON.stringify(name)} where the name of a service belongs`]));
}

function serviceNameProblems(field: string, name: string): string[] {
  if (name === '' || name.length > SERVICE_NAME_MAX_CHARACTERS || name === '__proto__') return [`${field} has the name ${JSON.stringify(name)}; a service's has 1 to ${SERVICE_NAME_MAX_CHARACTERS} characters`];
  return name.startsWith(OWN_PREFIX) ? [`${field} has "${name}", but names with ${OWN_PREFIX} are the kernel's own: every plugin has those services`] : [];
}

/** Reads contracts that come from a worker, which may say anything. Throws what is wrong with them. */
export function readContracts(claimed: unknown): ServiceContracts {
  const problem = (typeof claimed !== 'object' || claimed === null ? ['its services are no object'] : Object.keys(claimed).flatMap((name) => serviceNameProblems('`services`', name)))[0];
  if (problem !== undefined) throw new TypeError(problem);
  // A small graph whose parts are shared can be an endless text.
  if (!isSmall(claimed, { left: SERVICE_CONTRACTS_MAX_CHARACTERS })) throw new RangeError(`the contracts of its services have more than ${SERVICE_CONTRACTS_MAX_CHARACTERS} parts`);
  const text = JSON.stringify(claimed);
  if (text.length > SERVICE_CONTRACTS_MAX_CHARACTERS) throw new RangeError(`the contracts of its services have ${text.length} characters, and ${SERVICE_CONTRACTS_MAX_CHARACTERS} are allowed`);
  const contracts = JSON.parse(text) as Record<string, Record<string, Partial<MethodContract>>>;
  if (Object.keys(contracts).length > SERVICES_MAX) throw new RangeError(`it provides more than ${SERVICES_MAX} services`);
  for (const [name, contract] of Object.entries(contracts)) {
    if (typeof contract !== 'object' || contract === null || !Object.values(contract).every(isMethodContract)) throw new TypeError(`the contract of its service "${name}" is none`);
  }
  return contracts as ServiceContracts;
}

/** Whether it has no more parts than these, each counted wherever it occurs; what is cyclic has more. */
function isSmall(value: unknown, parts: { left: number }): boolean {
  if ((parts.left -= 1) < 0) return false;
  return typeof value !== 'object' || value === null || Object.values(value).every((part) => isSmall(part, parts));
}

function isMethodContract(method: Partial<MethodContract> | null): boolean {
  if (typeof method !== 'object' || method === null) return false;
  const isSchema = (value: unknown): boolean => typeof value === 'object' && value !== null && !Array.isArray(value);
  return typeof method.idempotent === 'boolean' && Number.isInteger(method.required) && (method.args === null || (Array.isArray(method.args) && method.args.every(isSchema))) && (method.result === null || isSchema(method.result));
}
