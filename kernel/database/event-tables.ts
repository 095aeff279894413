// The kernel's own tables, where durable events are kept, and what it asks of them. Must not know when.

/** Apart from all plugins' schemas: their roles cannot enter it. Two kernels take turns. */
export const EVENT_TABLES = `
  BEGIN;
  SELECT pg_advisory_xact_lock(hashtext('bulkhead'), hashtext('events'));
  CREATE SCHEMA IF NOT EXISTS bulkhead;
  CREATE SEQUENCE IF NOT EXISTS bulkhead.event_ids;
  CREATE TABLE IF NOT EXISTS bulkhead.event_subscriptions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plugin text NOT NULL,
    pattern text NOT NULL,
    owner text,
    owned_until timestamptz,
    UNIQUE (plugin, pattern)
  );
  CREATE TABLE IF NOT EXISTS bulkhead.event_deliveries (
    subscription bigint NOT NULL REFERENCES bulkhead.event_subscriptions ON DELETE CASCADE,
    event bigint NOT NULL,
    topic text NOT NULL,
    publisher text NOT NULL,
    key text,
    payload bytea NOT NULL,
    published_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL DEFAULT now(),
    error text,
    PRIMARY KEY (subscription, event)
  );
  CREATE TABLE IF NOT EXISTS bulkhead.event_dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plugin text NOT NULL,
    pattern text NOT NULL,
    event bigint NOT NULL,
    topic text NOT NULL,
    publisher text NOT NULL,
    key text,
    payload bytea NOT NULL,
    published_at timestamptz NOT NULL,
    attempts integer NOT NULL,
    error text NOT NULL,
    died_at timestamptz NOT NULL DEFAULT now()
  );
  CREATE INDEX IF NOT EXISTS event_dead_letters_of_plugin ON bulkhead.event_dead_letters (plugin, id);
  COMMIT`;

export const HAS_EVENT_TABLES = `SELECT to_regclass('bulkhead.event_dead_letters_of_plugin') IS NOT NULL AS there`;

export const FIND_SUBSCRIPTION = 'SELECT id FROM bulkhead.event_subscriptions WHERE plugin = $1 AND pattern = $2';

/** Unless the plugin `$1` has `$3` of them already. */
export const ADD_SUBSCRIPTION = `
  INSERT INTO bulkhead.event_subscriptions (plugin, pattern)
  SELECT $1, $2 WHERE (SELECT count(*) FROM bulkhead.event_subscriptions WHERE plugin = $1) < $3
  ON CONFLICT (plugin, pattern) DO NOTHING`;

/** With all that waits for it. */
export const REMOVE_SUBSCRIPTION = 'DELETE FROM bulkhead.event_subscriptions WHERE plugin = $1 AND pattern = $2';

/** As `hears` in protocol/topics.ts. */
const HEARS = `
  CASE WHEN s.parts[cardinality(s.parts)] = '**' THEN cardinality(i.parts) >= cardinality(s.parts) ELSE cardinality(i.parts) = cardinality(s.parts) END
  AND NOT EXISTS (SELECT FROM unnest(s.parts) WITH ORDINALITY AS p (part, place) WHERE p.part NOT IN ('*', '**') AND p.part <> i.parts[p.place])`;

/**
 * Stores events, in their order, for each subscription that hears them: a copy each, so that one is done with it without a look at the others. Their payloads are `$6`, one after the other, each from its
 * start in `$4` with its length in `$5`. One for which any subscription has `$8` waiting is stored for none; the answer names it.
 */
export const STORE_EVENTS = `
  WITH incoming AS MATERIALIZED (
    SELECT nextval('bulkhead.event_ids') AS event, string_to_array(u.topic, '.') AS parts, u.*
    FROM (SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::int[], $7::float8[]) WITH ORDINALITY AS v (topic, publisher, key, start, length, at, n) ORDER BY n) u
  ), subscriptions AS MATERIALIZED (
    SELECT id, plugin, string_to_array(pattern, '.') AS parts FROM bulkhead.event_subscriptions FOR KEY SHARE
  ), targets AS MATERIALIZED (
    SELECT i.n, s.id, s.plugin, row_number() OVER (PARTITION BY s.id ORDER BY i.n) AS nth FROM incoming i JOIN subscriptions s ON ${HEARS}
  ), backlogs AS MATERIALIZED (
    SELECT t.id, (SELECT count(*) FROM (SELECT FROM bulkhead.event_deliveries d WHERE d.subscription = t.id LIMIT $8) AS few) AS waiting FROM (SELECT DISTINCT id FROM targets) t
  ), refused AS MATERIALIZED (
    SELECT DISTINCT ON (t.n) t.n::int AS n, t.plugin AS subscriber, b.waiting::int AS waiting FROM targets t JOIN backlogs b ON b.id = t.id WHERE b.waiting + t.nth > $8 ORDER BY t.n, t.plugin
  ), stored AS (
    INSERT INTO bulkhead.event_deliveries (subscription, event, topic, publisher, key, payload, published_at)
    SELECT t.id, i.event, i.topic, i.publisher, i.key, substring($6::bytea FROM i.start FOR i.length), to_timestamp(i.at / 1000)
    FROM targets t JOIN incoming i ON i.n = t.n WHERE NOT EXISTS (SELECT FROM refused r WHERE r.n = t.n)
    RETURNING subscription
  )
  SELECT (SELECT coalesce(json_agg(refused), '[]') FROM refused) AS refused, (SELECT coalesce(array_agg(DISTINCT subscription::text), '{}') FROM stored) AS subscriptions`;

/** For `$3` milliseconds, unless another kernel has it. */
export const OWN_SUBSCRIPTION = `
  UPDATE bulkhead.event_subscriptions SET owner = $2, owned_until = now() + $3 * interval '1 ms'
  WHERE id = $1 AND (owner IS NULL OR owner = $2 OR owned_until < now())`;

export const DISOWN_SUBSCRIPTIONS = 'UPDATE bulkhead.event_subscriptions SET owner = NULL WHERE owner = $1';

/** The oldest, but for the events `$2` and the keys `$3`. */
export const WAITING_EVENTS = `
  SELECT event, topic, publisher, key, payload, (extract(epoch FROM published_at) * 1000)::float8 AS at, attempts, greatest(0, extract(epoch FROM due_at - now()) * 1000)::float8 AS "dueInMs"
  FROM bulkhead.event_deliveries WHERE subscription = $1 AND event <> ALL ($2::bigint[]) AND (key IS NULL OR key <> ALL ($3::text[]))
  ORDER BY event LIMIT $4`;

export const REMOVE_EVENTS = 'DELETE FROM bulkhead.event_deliveries WHERE subscription = $1 AND event = ANY ($2::bigint[])';

export const POSTPONE_EVENT = `UPDATE bulkhead.event_deliveries SET attempts = $3, error = $4, due_at = now() + $5 * interval '1 ms' WHERE subscription = $1 AND event = $2`;

export const BURY_EVENT = `
  WITH dead AS (DELETE FROM bulkhead.event_deliveries WHERE subscription = $1 AND event = $2 RETURNING *)
  INSERT INTO bulkhead.event_dead_letters (plugin, pattern, event, topic, publisher, key, payload, published_at, attempts, error)
  SELECT s.plugin, s.pattern, dead.event, dead.topic, dead.publisher, dead.key, dead.payload, dead.published_at, $3, $4 FROM dead JOIN bulkhead.event_subscriptions s ON s.id = dead.subscription`;

/** All of the plugin but the newest `$2`. */
export const TRIM_DEAD_LETTERS = `
  DELETE FROM bulkhead.event_dead_letters WHERE plugin = $1 AND id <= (SELECT id FROM bulkhead.event_dead_letters WHERE plugin = $1 ORDER BY id DESC OFFSET $2 LIMIT 1)`;

/** The newest first, at most `$2`. */
export const DEAD_LETTERS = `
  SELECT event, pattern, topic, publisher, key, length(payload) AS bytes, (extract(epoch FROM published_at) * 1000)::float8 AS "publishedAt", (extract(epoch FROM died_at) * 1000)::float8 AS "diedAt", attempts, error
  FROM bulkhead.event_dead_letters WHERE plugin = $1 ORDER BY id DESC LIMIT $2`;

/** Those whose subscription is still there, the oldest first, at most `$2`: back to where they were, before what came later. */
export const REVIVE_DEAD_LETTERS = `
  WITH chosen AS (
    SELECT l.id, s.id AS subscription FROM bulkhead.event_dead_letters l JOIN bulkhead.event_subscriptions s ON s.plugin = l.plugin AND s.pattern = l.pattern
    WHERE l.plugin = $1 ORDER BY l.id LIMIT $2 FOR UPDATE OF l SKIP LOCKED
  ), taken AS (
    DELETE FROM bulkhead.event_dead_letters l USING chosen WHERE l.id = chosen.id RETURNING chosen.subscription, l.*
  )
  INSERT INTO bulkhead.event_deliveries (subscription, event, topic, publisher, key, payload, published_at)
  SELECT subscription, event, topic, publisher, key, payload, published_at FROM taken ON CONFLICT DO NOTHING RETURNING subscription::text AS subscription`;
