// Each plugin's own part of the database: a schema, and a login role that can use nothing else. Must not know what a plugin does there.
import { createHmac } from 'node:crypto';
import pg, { type PoolClient } from 'pg';
import type { Logger } from 'pino';
import { SCOPE_ATTEMPTS_MAX } from '../../protocol/database-limits.js';
import { BulkheadError, toPlainError } from '../../protocol/errors.js';
import { HAND_OVER, SURVEY, type Survey } from './catalog-queries.js';
import { withKernelClient } from './kernel-client.js';
import { databaseUnavailable, type Database } from './pool.js';
import type { Login } from './pools.js';
import { scramVerifier } from './scram.js';
import { isPassing, sqlState } from './sql-state.js';

export interface Scope {
  readonly schema: string;
  /** Null when all plugins share the kernel's. */
  readonly login: Login | null;
}

export interface ScopesOptions {
  readonly database: Database;
  /** False to let all plugins share the kernel's login. */
  readonly roles: boolean;
  readonly log: Pick<Logger, 'warn'>;
}

export class Scopes {
  readonly #options: ScopesOptions;
  readonly #scopes = new Map<string, Promise<Scope>>();
  /** What is to be done when a plugin first uses the database. */
  readonly #first = new Map<string, () => Promise<void>>();
  readonly #warnings = new Set<string>();

  constructor(options: ScopesOptions) {
    this.#options = options;
  }

  /** Makes schema and role where they are missing. Rejects with `DATABASE_SETUP_FAILED`, `DATABASE_UNAVAILABLE` or `DATABASE_BUSY`; then the next call tries again. */
  of(plugin: string): Promise<Scope> {
    const known = this.#scopes.get(plugin);
    if (known !== undefined) return known;
    const scope = this.#repeatedly(plugin, () => this.#settle(plugin));
    this.#scopes.set(plugin, scope);
    scope.then(() => this.#begin(plugin), () => this.#scopes.get(plugin) === scope && this.#scopes.delete(plugin));
    return scope;
  }

  /** Makes the role of a plugin that others may grant something to, before it comes itself; null when there are no roles. Rejects as `of` does. */
  role(plugin: string): Promise<string | null> {
    const role = nameOf(plugin);
    return this.#repeatedly(plugin, () => this.#withClient(async (client) => {
      const survey = await this.#survey(client, plugin);
      if (!this.#mayHaveRoles(survey)) return null;
      if (!survey.has_role) await client.query(`CREATE ROLE ${quoted(role)} NOLOGIN`);
      return role;
    }));
  }

  /** Whether the plugin has used the database since it was last forgotten. */
  has(plugin: string): boolean {
    return this.#scopes.has(plugin);
  }

  /** Calls `work` once, after the plugin has used the database for the first time from now on. */
  onFirstUse(plugin: string, work: () => Promise<void>): void {
    this.#first.set(plugin, work);
  }

  /** The next call of `of` looks anew: somebody may have changed or removed what was there. */
  forget(plugin: string): void {
    this.#scopes.delete(plugin);
  }

  #begin(plugin: string): void {
    const work = this.#first.get(plugin);
    this.#first.delete(plugin);
    work?.().catch((error: Error) => this.#options.log.warn({ plugin, reason: error.message }, 'the grants of an earlier version of the plugin could not be revoked'));
  }

  async #repeatedly<T>(plugin: string, work: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await work();
      } catch (error) {
        if (error instanceof BulkheadError) throw error;
        // Another kernel on the same database is doing the same at this moment.
        if (attempt < SCOPE_ATTEMPTS_MAX && isRace(error)) continue;
        throw isPassing(error) ? databaseUnavailable(error) : failed(plugin, toPlainError(error).message, error);
      }
    }
  }

  async #settle(plugin: string): Promise<Scope> {
    const schema = nameOf(plugin);
    const settled = await this.#withClient(async (client) => {
      const survey = await this.#survey(client, plugin);
      return this.#mayHaveRoles(survey) && survey.settled;
    });
    // Most often there is nothing to do, unless somebody has changed the password.
    const scope = settled ? await this.#enter(plugin, { user: schema, password: this.#password(schema) }).catch(unlessRefused) : null;
    if (scope !== null) return scope;
    const login = await this.#withClient((client) => this.#prepare(client, plugin, schema));
    return login === null ? { schema, login } : this.#enter(plugin, login);
  }

  /** Rejects with `DATABASE_SETUP_FAILED` when the login is not let in. Nobody gets the kernel's own instead: a plugin can bring about that its role is not let in. */
  async #enter(plugin: string, login: Login): Promise<Scope> {
    try {
      (await this.#options.database.connect({ login })).release();
      return { schema: login.user, login };
    } catch (error) {
      if (sqlState(error) === '' || isPassing(error)) throw error;
      throw failed(plugin, `the server does not let its role ${login.user} in (${(error as Error).message}). Let the roles plugin_* in with passwords, as pg_hba.conf says, or set DATABASE_ROLES=false`, error);
    }
  }

  /** In one transaction. */
  async #prepare(client: PoolClient, plugin: string, schema: string): Promise<Login | null> {
    await client.query('BEGIN');
    const survey = await this.#survey(client, plugin);
    const login = this.#mayHaveRoles(survey) ? await this.#prepareRole(client, plugin, schema, survey) : null;
    if (!survey.has_schema) {
      if (!survey.create_schema) throw failed(plugin, `the database user ${survey.user} may not create the schema ${schema}; let it with GRANT CREATE ON DATABASE ${quoted(survey.database)} TO ${quoted(survey.user)}`);
      await client.query(`CREATE SCHEMA IF NOT EXISTS ${quoted(schema)}${login === null ? '' : ` AUTHORIZATION ${quoted(schema)}`}`);
    } else if (login !== null) {
      await client.query(`ALTER SCHEMA ${quoted(schema)} OWNER TO ${quoted(schema)}`);
      await client.query(HAND_OVER.replaceAll('$role$', pg.escapeLiteral(schema)));
    }
    await client.query('COMMIT');
    return login;
  }

  async #survey(client: PoolClient, plugin: string): Promise<Survey> {
    const { rows: [survey] } = await client.query<Survey>(SURVEY, [nameOf(plugin)]);
    if (survey!.public_open) this.#warnOnce('any database user may create functions in the schema "public", which all plugins look into; forbid it with REVOKE CREATE ON SCHEMA public FROM PUBLIC');
    if (survey!.mighty) throw failed(plugin, `the role ${nameOf(plugin)} may do more than a plugin's may, such as to create roles; take that from it, or drop it`);
    return survey!;
  }

  /** The same answer for all plugins, whatever is the matter with the role of one. */
  #mayHaveRoles({ user, create_role }: Survey): boolean {
    if (!this.#options.roles) return false;
    if (!create_role) this.#warnOnce(`plugins share the database user ${user}, and nothing but their search_path keeps them apart, because it may not create roles; let it with ALTER ROLE ${quoted(user)} CREATEROLE`);
    return create_role;
  }

  async #prepareRole(client: PoolClient, plugin: string, role: string, { database, superuser, has_role, member }: Survey): Promise<Login> {
    const password = this.#password(role);
    const secret = password === null ? 'PASSWORD NULL' : `PASSWORD ${pg.escapeLiteral(scramVerifier(password))}`;
    try {
      // In any case with its password and without settings: the kernel's own may have changed, and a plugin can change its own.
      await client.query(`${has_role ? 'ALTER' : 'CREATE'} ROLE ${quoted(role)} LOGIN ${secret}`);
      if (!superuser && !member) await client.query(`GRANT ${quoted(role)} TO CURRENT_USER`);
      await client.query(`ALTER ROLE ${quoted(role)} RESET ALL; ALTER ROLE ${quoted(role)} IN DATABASE ${quoted(database)} RESET ALL`);
      // Who may look into its schema shall not run what is there with its rights.
      await client.query(`ALTER DEFAULT PRIVILEGES FOR ROLE ${quoted(role)} REVOKE EXECUTE ON ROUTINES FROM PUBLIC`);
    } catch (error) {
      if (sqlState(error) !== '42501') throw error;
      throw failed(plugin, `the database user may not manage the role ${role}, which somebody else has made (${(error as Error).message}); drop the role, or set DATABASE_ROLES=false`, error);
    }
    return { user: role, password };
  }

  /** The same for every kernel with this database user, and known to nobody else. */
  #password(role: string): string | null {
    const { secret } = this.#options.database;
    return secret === null ? null : createHmac('sha256', secret).update(`bulkhead:${role}`).digest('base64url');
  }

  #warnOnce(text: string): void {
    if (!this.#warnings.has(text)) this.#options.log.warn(text);
    this.#warnings.add(text);
  }

  #withClient<T>(use: (client: PoolClient) => Promise<T>): Promise<T> {
    return withKernelClient(this.#options.database, use);
  }
}

export function quoted(identifier: string): string {
  return pg.escapeIdentifier(identifier);
}

function unlessRefused(error: unknown): null {
  if ((error as BulkheadError).code !== 'DATABASE_SETUP_FAILED') throw error;
  return null;
}

function nameOf(plugin: string): string {
  return `plugin_${plugin}`;
}

function failed(plugin: string, reason: string, cause?: unknown): BulkheadError {
  return new BulkheadError('DATABASE_SETUP_FAILED', { name: plugin, reason }, { cause });
}

/** What PostgreSQL says when two create or change the same thing at one moment. */
function isRace(error: unknown): boolean {
  return ['23505', '42710', '42P06', 'XX000'].includes(sqlState(error));
}
