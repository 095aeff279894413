// Every bound of events, in memory and stored, as in limits.ts. Must not know how a bound is enforced.
const MIB = 1024 * 1024;

/** Events on their way to one worker that its host has not taken in yet, and those that wait there for one handler: a second of all that one plugin may publish, so that a burst within its rate loses nothing. */
export const EVENTS_PENDING_MAX = 10_000;
/** Bytes of their payloads: more would soon fill the memory of a worker that does not keep up. */
export const EVENTS_PENDING_MAX_BYTES = 8 * MIB;
/** How often the log tells of events that a subscriber has lost: it loses thousands in a second. */
export const EVENTS_DROPPED_TOLD_INTERVAL_MS = 10_000;
/** Patterns with a wildcard that one worker may have subscribed to: each is looked at for every event that anybody publishes. */
export const EVENT_WILDCARDS_MAX = 100;
/** How long a handler may work on one event before it counts as failed and the next one is handled: as long as a request. */
export const EVENT_HANDLER_TIMEOUT_MS = 30_000;

/** Topics that one manifest may declare. */
export const TOPICS_DECLARED_MAX = 100;
/** Longest key of a durable event: a name and a number. */
export const EVENT_KEY_MAX_CHARACTERS = 200;
/** Durable events of one worker that wait to be stored: a slow database must not fill the kernel with what it cannot take. */
export const EVENTS_STORING_MAX = 1_000;
/** Bytes of their payloads. */
export const EVENTS_STORING_MAX_BYTES = 8 * MIB;
/** Events that are stored with one statement: enough that its way to the server costs little, and it takes milliseconds. */
export const EVENTS_STORED_AT_ONCE_MAX = 100;
/** Connections to the database that events take at one time: the rest of the pool is for the plugins. */
export const EVENT_CONNECTIONS_MAX = 2;
/** Bytes of their payloads, which the kernel's thread copies once. */
export const EVENTS_STORED_AT_ONCE_MAX_BYTES = 1 * MIB;
/** Durable subscriptions of one plugin, which outlive its code: more are patterns made from data. */
export const DURABLE_SUBSCRIPTIONS_MAX = 50;
/** Events that wait for one durable subscription: hours of a busy topic, of which the server counts its index in some milliseconds. */
export const EVENTS_BACKLOG_MAX = 50_000;
/** Events of one durable subscription that the kernel has in memory, to hand them on without a question to the server for each. */
export const EVENTS_IN_HAND_MAX = 64;
/** Of one key among them, so that a busy key leaves room for the others. */
export const EVENTS_OF_KEY_IN_HAND_MAX = 8;
/** Durable events that one worker handles at one time for one subscription: a slow one does not hold up those of other keys. */
export const EVENTS_HANDLED_AT_ONCE_MAX = 16;
/** Attempts to handle a durable event, when its subscription asks for no other number (1 to 100): with the waits between them two minutes, in which a neighbour comes back. */
export const EVENT_ATTEMPTS_MAX = 12;
export const EVENT_ATTEMPTS_ALLOWED_MAX = 100;
/** Keys of one subscription that wait for another attempt at one time: when so many fail, all do, and to try further ones would only fill the list. */
export const EVENT_KEYS_HELD_MAX = 1_000;
/** How long one kernel has a subscription to itself after it last asked for its events: as long as the next one waits when this one was killed. */
export const EVENTS_OWNED_MS = 5_000;
/** How often it asks again while it has events in hand: three times within that. */
export const EVENTS_OWNED_RENEWAL_MS = 1_500;
/** Dead letters of one plugin that are kept, the newest: a list that somebody may still look through. */
export const DEAD_LETTERS_MAX = 1_000;
/** Dead letters that an operator is shown, and that are tried again at one time. */
export const DEAD_LETTERS_SHOWN_MAX = 100;
/** How often a durable subscriber looks for events that nobody has told of: a glance at an index, and late by no more than a human would wait. */
export const EVENTS_LOOK_INTERVAL_MS = 5_000;
