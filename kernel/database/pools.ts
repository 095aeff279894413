// The kernel's connections to PostgreSQL: a pg-pool for each login, and one bound for all of them. Must not know plugins, leases or what a failure means.
import type pg from 'pg';
import { Client, type PoolClient, type PoolConfig } from 'pg';
// @ts-expect-error It ships no types; those of pg's own Pool, which derives from it, describe it.
import UntypedPool from 'pg-pool';
import { LEASE_WAIT_MS, POOL_EVICTION_MS } from '../../protocol/database-limits.js';
import { BulkheadError } from '../../protocol/errors.js';
import { closesWithin, socketOf } from './hang-up.js';

export const Pool = UntypedPool as new (options: PoolConfig, client: typeof Client) => pg.Pool;

/** Whom a connection is authenticated as. */
export interface Login {
  readonly user: string;
  /** Null where the server asks for none. */
  readonly password: string | null;
}

export interface PoolsOptions {
  /** What all connections have in common, and the login of the kernel itself. */
  readonly config: PoolConfig;
  /** Most connections of all logins together, idle ones included. */
  readonly max: number;
  readonly onPool: (pool: pg.Pool) => void;
}

export class Pools {
  readonly #options: PoolsOptions;
  /** By user, the kernel's own under the empty name; the one that was used last comes last. */
  readonly #pools = new Map<string, pg.Pool>();
  readonly #out = new Set<PoolClient>();
  /** Connections that are checked out, or on their way to be. */
  #taken = 0;
  /** Those of them for which room is being made. */
  #coming = 0;
  readonly #waiting = new Set<() => void>();

  constructor(options: PoolsOptions) {
    this.#options = options;
  }

  get total(): number {
    return this.#sum(({ totalCount }) => totalCount);
  }

  get idle(): number {
    return this.#sum(({ idleCount }) => idleCount);
  }

  /** Callers of `connect` that wait for others to release. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Whether the next caller of `connect` has to wait for others to release. */
  get full(): boolean {
    return this.#taken >= this.#options.max;
  }

  /** Whether there is an idle connection with this login that nobody waits for. */
  hasSpare(login: Login | null): boolean {
    const pool = this.#pools.get(login?.user ?? '');
    return pool !== undefined && isSpare(pool);
  }

  /** Checks out an idle connection, or a new one, in whose favour an idle one of another login is closed when there are `max`. Rejects with `DATABASE_BUSY`, or with what pg says. */
  async connect(login: Login | null): Promise<PoolClient> {
    await this.#place();
    try {
      const pool = this.#poolOf(login);
      const client = await (isSpare(pool) ? pool.connect() : this.#open(pool));
      this.#out.add(client);
      return client;
    } catch (error) {
      this.#leave();
      throw error;
    }
  }

  /** Ends what is idle, and what is out as soon as it is released. */
  end(): void {
    for (const pool of this.#pools.values()) void pool.end().catch(() => {});
  }

  #sum(count: (pool: pg.Pool) => number): number {
    return [...this.#pools.values()].reduce((all, pool) => all + count(pool), 0);
  }

  #poolOf(login: Login | null): pg.Pool {
    const key = login?.user ?? '';
    const pool = this.#pools.get(key) ?? this.#newPool(login);
    this.#pools.delete(key);
    this.#pools.set(key, pool);
    return pool;
  }

  #newPool(login: Login | null): pg.Pool {
    const { config, max, onPool } = this.#options;
    // The bound is ours: one more is what takes the place of one that is being closed.
    const pool = new Pool({ ...config, ...(login !== null && { user: login.user, password: login.password ?? '' }), max: max + 1 }, Client);
    pool.on('release', (_error, client) => this.#out.delete(client) && this.#leave());
    onPool(pool);
    return pool;
  }

  /** First come, first served. */
  #place(): Promise<void> {
    if (!this.full) {
      this.#taken += 1;
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const enter = (): void => {
        clearTimeout(timer);
        this.#waiting.delete(enter);
        resolve();
      };
      const timer = setTimeout(() => {
        this.#waiting.delete(enter);
        reject(new BulkheadError('DATABASE_BUSY', { reason: `no connection became free within ${LEASE_WAIT_MS} ms` }));
      }, LEASE_WAIT_MS);
      this.#waiting.add(enter);
    });
  }

  /** The place goes to who has waited longest. */
  #leave(): void {
    const [next] = this.#waiting;
    if (next === undefined) this.#taken -= 1;
    else next();
  }

  /** Every connection beyond those that are taken is idle, so there is one to close whenever there are too many. */
  async #open(pool: pg.Pool): Promise<PoolClient> {
    this.#coming += 1;
    try {
      while (this.total + this.#coming > this.#options.max) {
        const other = [...this.#pools.values()].find(isSpare);
        if (other === undefined) break;
        const spare = await other.connect();
        const socket = socketOf(spare);
        spare.release(true);
        await closesWithin(socket, POOL_EVICTION_MS);
      }
    } finally {
      this.#coming -= 1;
    }
    return pool.connect();
  }
}

function isSpare(pool: pg.Pool): boolean {
  return pool.idleCount > pool.waitingCount;
}
