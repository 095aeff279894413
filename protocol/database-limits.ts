// Every bound of the database, lent or embedded, as in limits.ts. Must not know how a bound is enforced.

/** Wait for a free PostgreSQL connection: longer means that the pool is too small, and the client should hear so. */
export const LEASE_WAIT_MS = 5_000;
/** A connection that a plugin has not used for this long goes back: idle loans serve nobody. */
export const LEASE_IDLE_MS = 2_000;
/** Time for one health query of the kernel: a load balancer asks every few seconds. */
export const DATABASE_PING_TIMEOUT_MS = 2_000;

/** What a plugin's own pool waits for a connection: the kernel's error says more, so it gets a second to arrive. */
export const LEASE_POOL_WAIT_MS = LEASE_WAIT_MS + 1_000;
/** A backend costs the server some MB; one that nobody has needed for this long is let go. */
export const DATABASE_IDLE_MS = 30_000;
/** A statement of the kernel's own is short: longer means that the server is stuck. */
export const DATABASE_STATEMENT_TIMEOUT_MS = DATABASE_PING_TIMEOUT_MS;
/** A peer that vanished without a word is noticed within some 20 s instead of hours: the system asks ten times, each second. */
export const DATABASE_KEEP_ALIVE_DELAY_MS = 10_000;
/** Waits for the server to hang up, with a cancel request after each: the first spares an idle backend the request; under a second in all. */
export const DATABASE_HANG_UP_WAITS_MS: readonly number[] = [5, 50, 100, 200, 400];
/** A cancel request is one packet; the server answers it by closing. */
export const DATABASE_CANCEL_TIMEOUT_MS = 1_000;
/** Time for connections to say goodbye when the kernel ends. */
export const DATABASE_CLOSE_TIMEOUT_MS = 1_000;

/** Start of the embedded PostgreSQL: 60 ms here, 230 ms after a crash; a minute replays more than `max_wal_size` from a slow disk. */
export const EMBEDDED_START_TIMEOUT_MS = 60_000;
/** End of the embedded PostgreSQL: its watching shell takes at most 5 s, unless somebody has killed it. */
export const EMBEDDED_STOP_TIMEOUT_MS = 6_000;
/** initdb and its kin: half a second here, a minute on a machine that swaps. */
export const EMBEDDED_COMMAND_TIMEOUT_MS = 60_000;
