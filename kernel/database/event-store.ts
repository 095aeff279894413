// Durable events in the kernel's own tables: who has subscribed, what waits for whom, and what was given up. Must not know workers or handlers.
import type { PoolClient } from 'pg';
import { DEAD_LETTERS_MAX, DEAD_LETTERS_SHOWN_MAX, DURABLE_SUBSCRIPTIONS_MAX, EVENT_CONNECTIONS_MAX, EVENTS_BACKLOG_MAX, EVENTS_OWNED_MS } from '../../protocol/event-limits.js';
import { BulkheadError, toPlainError } from '../../protocol/errors.js';
import { Turnstile } from '../plugins/turnstile.js';
import * as sql from './event-tables.js';
import { withKernelClient } from './kernel-client.js';
import { databaseUnavailable, type Database } from './pool.js';
import { isPassing, sqlState } from './sql-state.js';

export interface NewEvent {
  readonly topic: string;
  readonly publisher: string;
  readonly key: string | null;
  readonly payload: Uint8Array;
  /** Milliseconds since 1970. */
  readonly at: number;
}

/** An event as it waits for one subscription. */
export interface WaitingEvent extends NewEvent {
  /** Grows in the order of publishing; the same for all subscriptions. */
  readonly event: string;
  /** That have failed. */
  readonly attempts: number;
  readonly dueInMs: number;
}

export interface Refusal {
  /** Which of the events, from 1. */
  readonly n: number;
  /** Name of a plugin for which too many wait. */
  readonly subscriber: string;
  readonly waiting: number;
}

export interface DeadLetter {
  readonly event: string;
  readonly pattern: string;
  readonly topic: string;
  readonly publisher: string;
  readonly key: string | null;
  readonly bytes: number;
  readonly publishedAt: number;
  readonly diedAt: number;
  readonly attempts: number;
  /** Of the last attempt. */
  readonly error: string;
}

/** Every method rejects with what the database says; `storeError` puts it into words. */
export class EventStore {
  readonly #database: Database;
  readonly #connections = new Turnstile(EVENT_CONNECTIONS_MAX);
  #hasTables = false;

  constructor(database: Database) {
    this.#database = database;
  }

  /** The number of the subscription, which is made where it is missing; null when the plugin has too many. */
  subscribe(plugin: string, pattern: string): Promise<string | null> {
    return this.#withClient(async (client) => {
      const find = async (): Promise<string | null> => (await client.query<{ id: string }>(sql.FIND_SUBSCRIPTION, [plugin, pattern])).rows[0]?.id ?? null;
      const known = await find();
      if (known !== null) return known;
      await client.query(sql.ADD_SUBSCRIPTION, [plugin, pattern, DURABLE_SUBSCRIPTIONS_MAX]);
      return find();
    });
  }

  async forget(plugin: string, pattern: string): Promise<void> {
    await this.#withClient((client) => client.query(sql.REMOVE_SUBSCRIPTION, [plugin, pattern]));
  }

  /** Resolves to the numbers of the subscriptions that have got something, and to what was stored for none because too much waits for one. */
  store(events: readonly NewEvent[]): Promise<{ readonly refused: readonly Refusal[]; readonly subscriptions: readonly string[] }> {
    let end = 1; // PostgreSQL counts bytes from 1
    const starts = events.map(({ payload: { byteLength } }) => (end += byteLength) - byteLength);
    const values = [
      events.map(({ topic }) => topic), events.map(({ publisher }) => publisher), events.map(({ key }) => key), starts, events.map(({ payload }) => payload.byteLength),
      Buffer.concat(events.map(({ payload }) => payload)), events.map(({ at }) => at), EVENTS_BACKLOG_MAX,
    ];
    return this.#withClient(async (client) => (await client.query<{ refused: Refusal[]; subscriptions: string[] }>(sql.STORE_EVENTS, values)).rows[0]!);
  }

  /** What waits, the oldest first, without these events and keys; null when another kernel has the subscription, or it is gone. */
  waiting(subscription: string, owner: string, except: { readonly events: readonly string[]; readonly keys: readonly string[] }, limit: number): Promise<WaitingEvent[] | null> {
    return this.#withClient(async (client) => {
      const { rowCount } = await client.query(sql.OWN_SUBSCRIPTION, [subscription, owner, EVENTS_OWNED_MS]);
      if (rowCount === 0) return null;
      return (await client.query<WaitingEvent>(sql.WAITING_EVENTS, [subscription, except.events, except.keys, limit])).rows;
    });
  }

  /** It is still being worked on. */
  async own(subscription: string, owner: string): Promise<void> {
    await this.#withClient((client) => client.query(sql.OWN_SUBSCRIPTION, [subscription, owner, EVENTS_OWNED_MS]));
  }

  async disown(owner: string): Promise<void> {
    await this.#withClient((client) => client.query(sql.DISOWN_SUBSCRIPTIONS, [owner]));
  }

  async remove(subscription: string, events: readonly string[]): Promise<void> {
    await this.#withClient((client) => client.query(sql.REMOVE_EVENTS, [subscription, events]));
  }

  async postpone(subscription: string, event: string, attempts: number, error: string, delayMs: number): Promise<void> {
    await this.#withClient((client) => client.query(sql.POSTPONE_EVENT, [subscription, event, attempts, storable(error), delayMs]));
  }

  /** Makes a dead letter of it. */
  async bury(subscription: string, plugin: string, event: string, attempts: number, error: string): Promise<void> {
    await this.#withClient(async (client) => {
      await client.query(sql.BURY_EVENT, [subscription, event, attempts, storable(error)]);
      await client.query(sql.TRIM_DEAD_LETTERS, [plugin, DEAD_LETTERS_MAX]);
    });
  }

  deadLetters(plugin: string): Promise<DeadLetter[]> {
    return this.#withClient(async (client) => (await client.query<DeadLetter>(sql.DEAD_LETTERS, [plugin, DEAD_LETTERS_SHOWN_MAX])).rows);
  }

  /** Resolves to the subscription of each dead letter that is a waiting event again. */
  revive(plugin: string): Promise<string[]> {
    return this.#withClient(async (client) => (await client.query<{ subscription: string }>(sql.REVIVE_DEAD_LETTERS, [plugin, DEAD_LETTERS_SHOWN_MAX])).rows.map(({ subscription }) => subscription));
  }

  async #withClient<T>(use: (client: PoolClient) => Promise<T>): Promise<T> {
    try {
      return await this.#connections.run(() => withKernelClient(this.#database, async (client) => {
        if (!this.#hasTables) await makeTables(client);
        this.#hasTables = true;
        return use(client);
      }));
    } catch (error) {
      // Somebody has dropped the tables, or the schema.
      if (['42P01', '3F000'].includes(sqlState(error))) this.#hasTables = false;
      throw error;
    }
  }
}

/** What a plugin or an operator hears of it. */
export function storeError(plugin: string, error: unknown): BulkheadError {
  if (error instanceof BulkheadError || isPassing(error)) return databaseUnavailable(error);
  return new BulkheadError('DATABASE_SETUP_FAILED', { name: plugin, reason: `durable events are kept in the schema "bulkhead", which fails: ${toPlainError(error).message}` }, { cause: error });
}

async function makeTables(client: PoolClient): Promise<void> {
  // Who may use them need not be allowed to make them.
  const { rows } = await client.query<{ there: boolean }>(sql.HAS_EVENT_TABLES);
  if (!rows[0]!.there) await client.query(sql.EVENT_TABLES);
}

/** PostgreSQL has no NUL in its text. */
function storable(text: string): string {
  return text.replaceAll('\0', '');
}
