// The bounds of services between plugins, each with its unit in its name and the reason for its size. Must not know how a bound is enforced.

const KIB = 1024;

/** Services that one plugin may provide, and those that it may use: far more than anyone has. */
export const SERVICES_MAX = 1_000;
/** Names of services that are remembered when nobody provides them: "down" is another answer than "does not exist". */
export const SERVICES_KNOWN_MAX = 10_000;
/** Service calls one plugin may have pending with another. */
export const SERVICE_CALLS_MAX_PENDING = 1_024;
/** How long a service call may take, and how long the next value of a stream: less than a request, so that the caller can still answer. */
export const SERVICE_CALL_TIMEOUT_MS = 10_000;
/** How often the deadlines of calls are looked at: one ends at most this much after its own. */
export const SERVICE_SWEEP_INTERVAL_MS = 50;
/** Times that an idempotent call is made when its provider dies in the middle of it: a neighbour's call may be the cause twice. */
export const SERVICE_CALL_ATTEMPTS_MAX = 3;
/** How long a plugin that stops may finish calls of others: with its own `stop()` within STOP_TIMEOUT_MS. */
export const SERVICES_DRAIN_TIMEOUT_MS = 2_000;
/** How long a plugin waits for the providers that it requires and that are on their way: longer than the hooks of one may take. */
export const DEPENDENCY_WAIT_MS = 30_000;
/** How long a stream may be left unread: a slow reader takes seconds for a value, and one that has forgotten it for ever. */
export const SERVICE_STREAM_IDLE_TIMEOUT_MS = 60_000;
/** Values of one stream that may be under way without the consumer's consent: enough for a batch while the last one is read. */
export const SERVICE_STREAM_VALUES_MAX = 64;
/** Direct ports that one plugin may be waiting for at one time: one for each service it may know. */
export const SERVICE_WISHES_MAX = 1_000;
/** Contracts of all services of a plugin, as JSON: the kernel keeps them, and the guardian for the next kernel. */
export const SERVICE_CONTRACTS_MAX_CHARACTERS = 256 * KIB;

/** Steps of comparing two versions of a plugin's contracts, each of one to four microseconds: a schema that people write takes some hundred, and the kernel serves nobody meanwhile. What takes more is not compared. */
export const COMPATIBILITY_STEPS_MAX = 10_000;
/** Levels of schemas within schemas that are compared: people write ten. */
export const COMPATIBILITY_DEPTH_MAX = 100;
/** Differences of one schema, and breaches of one service, that are named: the first few say enough. */
export const COMPATIBILITY_OBSTACLES_MAX = 20;
export const COMPATIBILITY_BREACHES_MAX = 20;
/** Longest name or value that such a difference is told with. */
export const COMPATIBILITY_TEXT_MAX_CHARACTERS = 128;
