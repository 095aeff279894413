// Whether a new version of a service breaks who uses it: the promises of both are compared, as data. Must not know who uses it, nor what becomes of the answer.
import type { MethodContract, ServiceContract } from '../../protocol/contracts.js';
import { COMPATIBILITY_BREACHES_MAX, COMPATIBILITY_STEPS_MAX } from '../../protocol/service-limits.js';
import { obstaclesBetween, type Obstacle } from './schema-inclusion.js';
import { same, Steps } from './schema-cases.js';
import { cut, shown } from './schema-words.js';

/** Arguments have to be taken as before, so that the newer schema is the wider one; of results it is the other way round. */
type Side = 'argument' | 'result';

/**
 * What would break for who uses `service` when the one that is there after is no longer the one before; empty when nothing does. Each is a phrase that names method and field, such as
 * `find: argument 1: "name" is required now`, `find: result: "price" is gone`, `it is gone` or `count is gone`. Who compares several services gives them the same `steps`, which bound the work on all of them.
 */
export function breaches(before: ServiceContract, after: ServiceContract | undefined, steps = new Steps(COMPATIBILITY_STEPS_MAX)): string[] {
  if (after === undefined) return ['it is gone'];
  const found = new Set<string>();
  for (const [name, promised] of Object.entries(before)) {
    for (const breach of breachesOf(cut(name), promised, Object.hasOwn(after, name) ? after[name] : undefined, steps)) found.add(breach);
    if (found.size >= COMPATIBILITY_BREACHES_MAX) break;
  }
  return [...found].slice(0, COMPATIBILITY_BREACHES_MAX);
}

function breachesOf(method: string, before: MethodContract, after: MethodContract | undefined, steps: Steps): string[] {
  if (after === undefined) return [`${method} is gone`];
  const found = before.idempotent && !after.idempotent ? ['it is not idempotent any more'] : [];
  // Arguments that were not checked were not promised to be taken; those that are not checked any more all are.
  if (before.args !== null && after.args !== null) found.push(...breachesOfArguments(before, after, before.args, after.args, steps));
  if (before.result !== null) found.push(...(after.result === null ? ['result: is not promised any more'] : breachesBetween('result', 'result', before.result, after.result, steps)));
  return found.map((breach) => `${method}: ${breach}`);
}

function breachesOfArguments(was: MethodContract, is: MethodContract, before: readonly unknown[], after: readonly unknown[], steps: Steps): string[] {
  const found: string[] = [];
  for (let place = 0; place < Math.max(before.length, after.length) && found.length < COMPATIBILITY_BREACHES_MAX; place += 1) {
    const name = `argument ${place + 1}`;
    if (place >= after.length) found.push(`${name} is gone`);
    else if (place >= before.length) found.push(...(place < is.required ? [`${name} is new`] : []));
    else {
      if (place >= was.required && place < is.required) found.push(`${name} is required now`);
      found.push(...breachesBetween(name, 'argument', before[place], after[place], steps));
    }
  }
  return found;
}

function breachesBetween(name: string, side: Side, before: unknown, after: unknown, steps: Steps): string[] {
  // To read both once is no more work than it was to receive them, and what is unchanged is never too large.
  if (same(before, after, new Steps(Infinity), false)) return [];
  const obstacles = side === 'argument' ? obstaclesBetween(after, before, steps) : obstaclesBetween(before, after, steps);
  if (steps.over) return [`${name}: cannot be compared, its schema is too large`];
  return obstacles.map((obstacle) => `${name}${obstacle.at}: ${phraseOf(obstacle, side)}`);
}

function phraseOf(obstacle: Obstacle, side: Side): string {
  const isArgument = side === 'argument';
  switch (obstacle.kind) {
    case 'missing': return `${shown(obstacle.name)} is ${isArgument ? 'required now' : obstacle.known ? 'optional now' : 'gone'}`;
    case 'values': {
      if (!isArgument) return `may be ${obstacle.what} now`;
      return /^any/.test(obstacle.what) ? `not ${obstacle.what.replace(/^any /, 'every ').replace('anything', 'everything')} is allowed any more` : `${obstacle.what} is not allowed any more`;
    }
    case 'further': {
      const what = obstacle.name === null ? 'further properties' : shown(obstacle.name);
      if (isArgument) return `${what} ${obstacle.name === null ? 'are' : 'is'} not allowed any more`;
      return `may have ${what} now`;
    }
    case 'keyword': return isArgument ? changeOf(obstacle.keyword, obstacle.narrow, obstacle.wide) : changeOf(obstacle.keyword, obstacle.wide, obstacle.narrow);
  }
}

function changeOf(keyword: string, before: unknown, after: unknown): string {
  const name = shown(keyword);
  if (after === undefined) return `${name} is gone`;
  if (typeof after === 'object') return `${name} is another now`;
  return `${name} is ${shown(after)} now${before === undefined || typeof before === 'object' ? '' : `, it was ${shown(before)}`}`;
}
