// Names of topics, and the patterns that subscribers give: what is allowed, and which topics a pattern hears. Must not know who publishes or hears.
import { TOPICS_DECLARED_MAX } from './event-limits.js';
import { SERVICE_NAME_MAX_CHARACTERS } from './limits.js';

/** What a manifest says of one topic that its plugin publishes. */
export interface TopicDeclaration {
  /** Its events are stored and delivered at least once, instead of at most once. */
  readonly durable?: boolean;
}

/** One segment, whatever it is. */
const ONE = '*';
/** One segment or more, at the end. */
const REST = '**';
const SEGMENT = /^[A-Za-z0-9_-]+$/;
const KERNELS_OWN = 'kernel';

/** Why nobody can publish under this name, or null. Only the kernel publishes under `kernel.`; that is no mistake of the name. */
export function topicProblem(topic: unknown): string | null {
  return nameProblem(topic, (segment) => SEGMENT.test(segment));
}

/** Why nobody can subscribe to this, or null. */
export function patternProblem(pattern: unknown): string | null {
  return nameProblem(pattern, (segment, isLast) => SEGMENT.test(segment) || segment === ONE || (segment === REST && isLast));
}

export function isWildcard(pattern: string): boolean {
  return pattern.includes(ONE);
}

/** Whether only the kernel publishes what this names. */
export function isKernels(topic: string): boolean {
  return topic === KERNELS_OWN || topic.startsWith(`${KERNELS_OWN}.`);
}

export function segmentsOf(name: string): readonly string[] {
  return name.split('.');
}

/** Whether the pattern hears the topic, both as segments. Takes one look at each segment. */
export function hears(pattern: readonly string[], topic: readonly string[]): boolean {
  const open = pattern.at(-1) === REST;
  if (open ? topic.length < pattern.length : topic.length !== pattern.length) return false;
  return pattern.every((segment, i) => segment === topic[i] || segment === ONE || (open && i === pattern.length - 1));
}

/** What is wrong with the `topics` of a plugin's manifest. */
export function topicsProblems(topics: unknown): string[] {
  if (typeof topics !== 'object' || topics === null || Array.isArray(topics)) return ['`topics` must be an object such as { "order.placed": { durable: true } }'];
  const entries = Object.entries(topics as Record<string, unknown>);
  if (entries.length > TOPICS_DECLARED_MAX) return [`\`topics\` has more than ${TOPICS_DECLARED_MAX} entries`];
  return entries.flatMap(([topic, declaration]) => {
    const problem = isKernels(topic) ? 'only the kernel publishes under "kernel."' : topicProblem(topic);
    if (problem !== null) return [`\`topics\` has "${topic.slice(0, SERVICE_NAME_MAX_CHARACTERS)}": ${problem}`];
    const { durable = false } = (declaration ?? {}) as { durable?: unknown };
    return typeof declaration === 'object' && declaration !== null && typeof durable === 'boolean' ? [] : [`\`topics["${topic}"]\` must be an object such as { durable: true }`];
  });
}

/** Without what else a manifest may say of them. */
export function readTopics(topics: Readonly<Record<string, TopicDeclaration>>): Readonly<Record<string, TopicDeclaration>> {
  return Object.fromEntries(Object.entries(topics).map(([topic, { durable = false }]) => [topic, { durable }]));
}

function nameProblem(name: unknown, isSegment: (segment: string, isLast: boolean) => boolean): string | null {
  if (typeof name !== 'string') return 'it must be a string';
  if (name.length > SERVICE_NAME_MAX_CHARACTERS) return `it has more than ${SERVICE_NAME_MAX_CHARACTERS} characters`;
  const segments = segmentsOf(name);
  const wrong = segments.find((segment, i) => !isSegment(segment, i === segments.length - 1));
  if (wrong === undefined) return null;
  if (wrong === REST) return '"**" can only be its last segment';
  return wrong === '' ? 'it has an empty segment' : `its segment "${wrong}" has characters that are not allowed; use letters, digits, "_" and "-"`;
}
