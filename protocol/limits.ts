// Every bound of the system but for those of the database, with its unit in its name and the reason for its size. Must not know how a bound is enforced.

const KIB = 1024;
const MIB = 1024 * KIB;

/** What one plugin may use. A manifest may ask for other values with `limits`; these are the defaults. */
export interface PluginLimits {
  /** Old-generation V8 heap of the plugin's worker, in MiB (16 to 4096). */
  readonly heapMb: number;
  /** All memory of the worker, Buffers included, in MiB (more than `heapMb`, to 65,536; by default 192 more); one that passes it is ended. */
  readonly memoryMb: number;
  /** Requests handled by the worker at one time (1 to 10,000). */
  readonly concurrency: number;
  /** Requests that may wait for a free place (0 to 10,000); one more is refused with 503. */
  readonly queue: number;
  /** Time from admission to the first byte of the answer, in milliseconds (1 to 3,600,000). */
  readonly timeoutMs: number;
  /** Largest request body, in bytes (0 to 1 GiB). */
  readonly bodyLimitBytes: number;
  /** Silence of the worker's event loop after which it is killed, in milliseconds (200 to 600,000). */
  readonly hangTimeoutMs: number;
  /** How long a request may wait for the plugin to come back after a death, in milliseconds (0 to 60,000). */
  readonly replayWaitMs: number;
  /** How long a plugin that is stopped may finish what it has begun, in milliseconds (0 to 60,000); a kernel that stops waits no longer than SHUTDOWN_TIMEOUT_MS in all. */
  readonly drainTimeoutMs: number;
  /** PostgreSQL connections lent to the plugin at one time (1 to 100); shared out evenly among its workers, at least one each. */
  readonly connections: number;
  /** Longest statement on a lent connection, in milliseconds (1 to 86,400,000). */
  readonly statementTimeoutMs: number;
  /** How long a transaction may be open without a statement, in milliseconds (1 to 86,400,000). */
  readonly transactionIdleMs: number;
  /** How long a connection may be lent at one time, in milliseconds (1,000 to 86,400,000): one that listens for notifications has to be opened anew after that. */
  readonly loanMs: number;
}

export const PLUGIN_LIMITS: PluginLimits = Object.freeze({
  // With a young generation of 8 MiB this was the pair under which heap exhaustion ended the worker and not the process on Node 20, 22 and 24.
  heapMb: 64,
  // Room for a few hundred small uploads under way, and for Buffers that nobody has collected yet.
  memoryMb: 256,
  // One worker is one thread: past some hundred open requests more concurrency only adds latency.
  concurrency: 512,
  // About one second of work for a plugin that answers in two milliseconds.
  queue: 512,
  // Long enough for a slow report, short enough that a browser is still there to read the answer.
  timeoutMs: 30_000,
  // Fastify's own default.
  bodyLimitBytes: 1 * MIB,
  // Five missed heartbeats of a busy loop are still a pause; a second without any is a hang.
  hangTimeoutMs: 1_000,
  // A restart takes milliseconds, the first waits between restarts some hundred; a client takes two seconds for a slow answer and not for a failure.
  replayWaitMs: 2_000,
  // With `stop()` under the ten seconds that Docker grants a container.
  drainTimeoutMs: 5_000,
  // Less than half of the pool's default of 10: two busy plugins leave some for the rest.
  connections: 4,
  // As long as a request may take to be answered.
  statementTimeoutMs: 30_000,
  // It holds locks that others wait for; what a handler does between two statements takes milliseconds.
  transactionIdleMs: 10_000,
  // A pool gives an idle connection back after two seconds; a listener that opens one anew each hour costs nothing.
  loanMs: 3_600_000,
});

/** What `memoryMb` is above `heapMb` when a manifest does not say: the default of the one less the default of the other. */
export const MEMORY_BESIDE_HEAP_MB = PLUGIN_LIMITS.memoryMb - PLUGIN_LIMITS.heapMb;
/** Share of `memoryMb` from which on it is reported: early enough to look into, above what a plugin at work reaches. */
export const MEMORY_WARNING_PERCENT = 80;

/** What the host itself has loaded in a worker that was a standby, in MiB: it comes on top of `heapMb`, so that a plugin has as much after a restart as before. Measured as the difference of the two: 8. */
export const HOST_HEAP_MB = 8;
/** Young generation of a worker's heap, in MiB; see `heapMb` for why 8. */
export const WORKER_YOUNG_GENERATION_MB = 8;
/** What V8 makes of that when it adds it to a heap's limit: three parts of 4 MiB, on Node 20 to 24. */
export const WORKER_YOUNG_HEAP_MB = 12;
/** What Node grants a worker that has used up its heap, so that it can end in order. */
export const HEAP_ALLOWANCE_MB = 16;
/** How often it was seen to do so before the end: twice, and twice that is plenty. */
export const HEAP_ALLOWANCES_MAX = 4;

/** How long an import of the plugin and the check of its manifest may take: a cold disk and a busy machine, not a download. */
export const BOOT_TIMEOUT_MS = 15_000;
/** How long `init`, `routes` and `start` may take each: table creation and cache warming belong there. */
export const HOOK_TIMEOUT_MS = 15_000;
/** How long `stop()` may take; with the drain still under Docker's ten seconds. */
export const STOP_TIMEOUT_MS = 3_000;
/** How long the kernel waits for a killed thread; a worker in `execSync` ends only when that does. */
export const TERMINATE_TIMEOUT_MS = 2_000;
/** How long the last answers may take to leave their sockets at the kernel's end; what is still connected then, also without ever having asked, is cut. */
export const CONNECTIONS_CLOSE_TIMEOUT_MS = 500;
/** How long a worker whose port to the kernel has closed may take to end by itself: its cause is better than ours. */
export const PORT_CLOSED_GRACE_MS = 1_000;
/** After this the kernel leaves whatever has not ended: drain, `stop()` and the last answers, one after the other. */
export const SHUTDOWN_TIMEOUT_MS = 8_500;

/** Silence of a worker that imports, initialises or compiles its schemas, which hold the loop by right; on a machine with more to do than processors for long. */
export const BOOT_HANG_TIMEOUT_MS = 5_000;
/** Silence at that time that is reported: half of it. */
export const BOOT_UNRESPONSIVE_AFTER_MS = 2_500;
/** How often a host bumps its heartbeat: five times within the shortest silence that is reported. */
export const HEARTBEAT_INTERVAL_MS = 100;
/** How often a host does so that has no work: each beat costs 0.2 ms of a core that was asleep, which 50 idle plugins make 10 % at the other pace. A hang that begins at rest is seen by as much later as this is longer. */
export const HEARTBEAT_REST_INTERVAL_MS = 250;
/** Beats without a frame after which it has no work: a second. */
export const HEARTBEATS_BEFORE_REST_MAX = 10;
/** What a thread without work has to do between two beats, in milliseconds: the beat itself, which takes up to 1 on a busy machine. */
export const RESTING_WORK_MAX_MS = 5;
/** How often a worker looks whether there was a request since it last looked. */
export const QUIET_LOOK_INTERVAL_MS = 5_000;
/** Such looks in a row after which it collects its garbage, which takes some 30 ms: sooner, the next request is about to come, and Node 20 takes it for a busy one still. */
export const QUIET_LOOKS_MAX = 2;
/** Largest heap that is collected so: for one of 10 MiB it takes those 30 ms. */
export const QUIET_HEAP_MAX_BYTES = 32 * MIB;
/** Bytes from the kernel after which a worker frees those it has used: a collection of the young takes 1 ms; of 8 MiB at a time V8 is the first to collect, which takes 20. */
export const RECEIVED_BEFORE_COLLECTION_BYTES = 4 * MIB;
/** How often the kernel looks at all heartbeats while requests are under way: a hang is seen at most this much after its limit. */
export const WATCHDOG_BUSY_INTERVAL_MS = 20;
/** How often it looks in the quiet, where each look wakes the machine: a hang of a timer is seen at most this much after its limit, and a heart that rests later still. */
export const WATCHDOG_INTERVAL_MS = 250;
/** Time without a request after which it is quiet: a timer is not set anew for every lone request. */
export const WATCHDOG_QUIET_AFTER_MS = 1_000;
/** Silence after which a worker is asked for its memory past its event loop: it cannot report it. */
export const MEMORY_BLIND_AFTER_MS = 2 * HEARTBEAT_INTERVAL_MS;
/** Silence that is reported as `unresponsive`: a human notices half a second. */
export const UNRESPONSIVE_AFTER_MS = 500;

/** Wait before the second restart in a row (the first is immediate); doubles from there. */
export const BACKOFF_INITIAL_MS = 100;
/** Longest wait between restarts: an operator who mends the cause waits no longer than this. */
export const BACKOFF_MAX_MS = 30_000;
/** A death is forgotten after this much time; the window in which deaths are counted. */
export const DEATH_WINDOW_MS = 60_000;
/** Deaths within the window that mean quarantine. */
export const DEATHS_BEFORE_QUARANTINE = 5;

/** Wait before a standby that was taken is replaced: the plugin that took it needs the processor now. */
export const STANDBY_REFILL_DELAY_MS = 250;

/** Replays of requests that were begun, as a share of the recent requests of the plugin: a plugin that dies of load must not get it all again. */
export const REPLAY_BUDGET_PERCENT = 20;
/** Replays that a plugin with little traffic has all the same. */
export const REPLAYS_MIN = 20;
/** Half of what "recent" means for the replay budget. */
export const REPLAY_WINDOW_MS = 10_000;
/** Generations that a request may end before it is refused: one and the same, or those with its URL that were alone. */
export const REQUEST_KILLS_MAX = 2;
/** How long such a request is refused, and how long the deaths by one that is not tried again are remembered. */
export const POISON_REFUSED_MS = 60_000;
/** Requests with deaths that are remembered per plugin, refused or not yet; each costs its URL. */
export const REFUSED_REQUESTS_MAX = 1_000;
/** How long the replay of a suspect waits for the replays of the others, so that it cannot take them along. */
export const SUSPECT_HELD_BACK_MS = 1_000;

/** Transitions and deaths kept per plugin: a page of a terminal, and more deaths than the longest back-off needs. */
export const HISTORY_MAX_ENTRIES = 20;
/** Operator verbs that may wait for one plugin: more are scripts gone wrong. */
export const VERB_QUEUE_MAX = 32;
/** How long a request waits for its plugin while the kernel boots: a warm boot takes one second, a cold one with compilation some more. */
export const KERNEL_BOOT_WAIT_MS = 5_000;
/** Requests that may wait so at one time; each holds a connection. */
export const KERNEL_BOOT_WAITING_MAX = 1_024;
/** Plugins that boot at one time: more than the cores would only take turns. */
export const PARALLEL_BOOTS_MAX = 4;

/** A body up to this size travels inside its frame; a larger one streams. Copying 64 KiB costs less than one more message. */
export const BODY_INLINE_MAX_BYTES = 64 * KIB;
/** Early hints before one answer: a page has one or two; each is kept for a client that does not read. */
export const EARLY_HINTS_MAX = 8;
/** Longest of them, names and values: what Node takes for the head of a whole request. */
export const EARLY_HINT_MAX_CHARACTERS = 16 * KIB;
/** Longest head of an answer to the wish for a tunnel: the same. */
export const TUNNEL_HEAD_MAX_BYTES = 16 * KIB;
/** Bytes of one stream that may be under way without the receiver's consent, the last chunk not counted: two reads of a socket ahead per direction. */
export const STREAM_WINDOW_BYTES = 256 * KIB;
/** Largest piece in which an answer leaves its worker: each message costs both threads as much as to copy 50 KiB, and with half of the window one piece is made while another leaves. */
export const STREAM_PIECE_BYTES = STREAM_WINDOW_BYTES / 2;
/** Pieces that a worker can have in memory shared with the kernel, 4 MiB in all: two each, of whatever size, for sixteen downloads at once. */
export const SLOTS_MAX = 32;
/** Smallest piece that goes there: below it, memory of its own costs no more. */
export const SLOT_MIN_BYTES = 16 * KIB;
/** Frames posted in one message. Each saves a wake-up of the other thread, but that begins only when the message is there: with 256 both took turns in standing still, with 8 a busy plugin answers a third more. */
export const CHANNEL_BATCH_MAX_FRAMES = 8;
/** Messages of a worker that are still read after its end: its last answers and words. */
export const CHANNEL_REST_MAX_MESSAGES = 64;

/** Largest event payload, serialised: events carry facts, not files. */
export const EVENT_PAYLOAD_MAX_BYTES = 64 * KIB;
/** Topics one plugin may have subscribed to: far more than anyone has, and few to walk through at its death. */
export const TOPICS_MAX = 1_000;

/** Log lines per second of one worker that are written; the rest is counted and reported in one line. */
export const LOG_LINES_PER_SECOND_MAX = 500;
/** What ended a generation or a step, as it is kept, logged and shown to clients: one sentence, and not what a plugin could write into an error. */
export const CAUSE_MAX_CHARACTERS = 1_024;
/** Longest message of an error that crosses a thread: a long list of what is wrong with a body, but not the body. */
export const ERROR_MESSAGE_MAX_CHARACTERS = 8 * KIB;
/** Longest name and code of such an error; Node's own have some thirty. */
export const ERROR_NAME_MAX_CHARACTERS = 128;
/** Longest stack of such an error: some hundred frames. */
export const ERROR_STACK_MAX_CHARACTERS = 16 * KIB;
/** Causes of an error that cross a thread with it: the chains that libraries make are shorter. */
export const ERROR_CAUSES_MAX = 3;
/** All routes of a plugin with their schemas, as JSON: the kernel keeps them for the documentation, and the guardian for the next kernel. */
export const ROUTES_MAX_CHARACTERS = 1 * MIB;
/** Longest name of a service or a topic. */
export const SERVICE_NAME_MAX_CHARACTERS = 128;
/** Longest log line of a plugin; a longer one is cut. */
export const LOG_LINE_MAX_CHARACTERS = 16 * KIB;

/** How long a connection may be idle between two requests, and a tunnel's before the system asks whether the client is there: Fastify's default, longer than the minute of common load balancers. */
export const KEEP_ALIVE_TIMEOUT_MS = 72_000;
/** How long a client may take to send a request with its body; Node's own default, which Fastify switches off. */
export const REQUEST_TIMEOUT_MS = 300_000;
/** How often deadlines of requests are looked at: one ends at most this much after its own. */
export const DEADLINE_SWEEP_INTERVAL_MS = 50;

/** How long the bundler's child process (16 MB) is kept after the last load. */
export const BUNDLER_IDLE_MS = 5_000;
/** Files of a plugin besides its code that its worker may read: templates and pictures, not a store. */
export const PLUGIN_FILES_MAX = 1_000;
/** Frames per second that one worker may send, however evenly: the kernel reads one in one to two microseconds, so that they take a tenth to a fifth of its time; an honest plugin under full load sends some ten thousand. */
export const FRAMES_PER_SECOND_MAX = 100_000;
/** Frames within FRAMES_AT_ONCE_MS after which they are a flood: to read them holds the kernel for 30 to 60 ms, and a word to each of 10,000 sockets is a third of it. */
export const FRAMES_AT_ONCE_MAX = 30_000;
/** What is at once: a few turns of a busy loop, in milliseconds. */
export const FRAMES_AT_ONCE_MS = 100;
/** Events that one plugin may publish per second; each is copied for every subscriber. */
export const EVENTS_PER_SECOND_MAX = 10_000;
/** Workers of one plugin: more than the cores of most machines, where any further one only costs memory. */
export const THREADS_MAX = 16;
/** Grants of one manifest: more are a list that nobody reads. */
export const GRANTS_MAX = 64;
/** Permissions that one manifest may ask for. */
export const PERMISSIONS_MAX = 32;

/** Longest plugin name: with `bulkhead/` before it, it is an `application_name`, and with `plugin_` a role, and PostgreSQL cuts both off after 63. */
export const PLUGIN_NAME_MAX_CHARACTERS = 54;
/** Extra prefixes of one plugin. */
export const MOUNTS_MAX = 16;
