// What a plugin lets other plugins do with its tables. Must not know how the database is told.
import { GRANTS_MAX } from './limits.js';

const PRIVILEGES = ['select', 'insert', 'update', 'delete'] as const;

export interface Grant {
  /** Name of a plugin, which need not be there yet. */
  readonly to: string;
  /** In this plugin's own schema, and there when its `init()` is over. */
  readonly tables: readonly string[];
  readonly privileges: readonly (typeof PRIVILEGES)[number][];
}

/** What is wrong with the `grants` of a plugin's manifest; `nameProblem` says what is wrong with a plugin's name. */
export function grantProblems(grants: unknown, plugin: unknown, nameProblem: (name: string) => string | null): string[] {
  if (!Array.isArray(grants)) return ['`grants` must be an array such as [{ to: "analytics", tables: ["items"], privileges: ["select"] }]'];
  if (grants.length > GRANTS_MAX) return [`\`grants\` has more than ${GRANTS_MAX} entries`];
  return grants.flatMap((grant: unknown, i) => {
    const { to, tables, privileges } = (grant ?? {}) as Partial<Record<keyof Grant, unknown>>;
    const problems: string[] = [];
    const problem = typeof to !== 'string' ? 'it must be a string' : to === plugin ? 'what a plugin may do with its own tables needs no grant' : nameProblem(to);
    if (problem !== null) problems.push(`\`grants[${i}].to\` cannot be: ${problem}`);
    if (!isListOf(tables, (table) => typeof table === 'string' && table !== '' && !table.includes('\0'))) problems.push(`\`grants[${i}].tables\` must be names of tables`);
    if (!isListOf(privileges, (privilege) => PRIVILEGES.includes(privilege as never))) problems.push(`\`grants[${i}].privileges\` must be some of ${PRIVILEGES.join(', ')}`);
    return problems;
  });
}

function isListOf(value: unknown, isPart: (part: unknown) => boolean): boolean {
  return Array.isArray(value) && value.length > 0 && value.every(isPart);
}
