// Every bound of the database, lent or embedded, as in limits.ts. Must not know how a bound is enforced.

/** Wait for a free PostgreSQL connection: longer means that the pool is too small, and the client should hear so. */
export const LEASE_WAIT_MS = 5_000;
/** A connection that a plugin has not used for this long goes back: idle loans serve nobody. */
export const LEASE_IDLE_MS = 2_000;
/** How long a plugin that was told that no further connection is free makes do with those that it has before it asks again. */
export const CROWDED_RETRY_MS = 500;
/** How long a connection that another plugin waits for may rest with who has it: ten times a pause between two statements. */
export const LOAN_RECALLED_REST_MS = 1_000;
/** Wait for the lock on a plugin's migrations: longer, and another kernel is running them, or a plugin keeps them from running. */
export const MIGRATIONS_LOCK_WAIT_MS = 10_000;
/** How often a plugin's loans are looked at: a tenth of a second is the most by which a limit is passed, besides LOAN_GRACE_MS. */
export const LOAN_LOOK_INTERVAL_MS = 100;
/** How much later than the server the kernel ends what takes too long: time for the server to cancel and to say so. */
export const LOAN_GRACE_MS = 500;
/** Time to give back a connection that was lent for long enough: what is being done with it may take as long as a request. */
export const LOAN_RECALL_MS = 30_000;
/** Time for one health query of the kernel: a load balancer asks every few seconds. */
export const DATABASE_PING_TIMEOUT_MS = 2_000;

/** What a plugin's own pool waits for a connection: the kernel's error says more, so it gets a second to arrive. */
export const LEASE_POOL_WAIT_MS = LEASE_WAIT_MS + 1_000;
/** A backend costs the server some MB; one that nobody has needed for this long is let go. */
export const DATABASE_IDLE_MS = 30_000;
/** Time for an idle connection to close in favour of one with another login: its server process ends within 5 ms, and one more for a moment does no harm. */
export const POOL_EVICTION_MS = 100;
/** How often the kernel asks for a database that is away: it is back for all plugins a quarter of a second after it is back. */
export const DATABASE_WATCH_INTERVAL_MS = 250;
/** Attempts to make a plugin's schema and role, when another kernel makes the same at the same moment: it is done by the second. */
export const SCOPE_ATTEMPTS_MAX = 5;
/** A statement of the kernel's own is short: longer means that the server is stuck. */
export const DATABASE_STATEMENT_TIMEOUT_MS = DATABASE_PING_TIMEOUT_MS;
/** A peer that vanished without a word is noticed within some 20 s instead of hours: the system asks ten times, each second. */
export const DATABASE_KEEP_ALIVE_DELAY_MS = 10_000;
/** Waits for the server to hang up, with a cancel request after each: the first spares an idle backend the request; under a second in all. */
export const DATABASE_HANG_UP_WAITS_MS: readonly number[] = [5, 50, 100, 200, 400];
/** Wait for the server to hang up on a connection without a statement: a hundred at once took 60 ms. */
export const DATABASE_IDLE_HANG_UP_MS = 200;
/** A cancel request is one packet; the server answers it by closing. */
export const DATABASE_CANCEL_TIMEOUT_MS = 1_000;
/** Time for one file of a plugin's migrations: longer than to rewrite a table of some hundred million rows. */
export const MIGRATIONS_TIMEOUT_MS = 600_000;
/** Time for connections to say goodbye when the kernel ends. */
export const DATABASE_CLOSE_TIMEOUT_MS = 1_000;

/** Start of the embedded PostgreSQL: 60 ms here, 230 ms after a crash; a minute replays more than `max_wal_size` from a slow disk. */
export const EMBEDDED_START_TIMEOUT_MS = 60_000;
/** End of the embedded PostgreSQL: its watching shell takes at most 5 s, unless somebody has killed it. */
export const EMBEDDED_STOP_TIMEOUT_MS = 6_000;
/** initdb and its kin: half a second here, a minute on a machine that swaps. */
export const EMBEDDED_COMMAND_TIMEOUT_MS = 60_000;
