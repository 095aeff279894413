// Every bound of interceptors, with its unit in its name and the reason for its size. Must not know how a bound is enforced.

const KIB = 1024;

/** Interceptors of one plugin, and paths or methods of one of them: as many as somebody reads, and few to compare with each request. */
export const INTERCEPTORS_MAX = 16;
export const INTERCEPTOR_PATHS_MAX = 32;
/** Longest path of an interceptor: that of a long route. */
export const INTERCEPTOR_PATH_MAX_CHARACTERS = 256;
/** Interceptors stand in a row from minus this to this: room to put one between any two. */
export const INTERCEPTOR_ORDER_MAX = 1_000;
/** How long an interceptor may take when it does not say: a query and a slow moment; each request waits for it. */
export const INTERCEPTOR_TIMEOUT_MS = 1_000;
/** Longest that it can ask for. */
export const INTERCEPTOR_TIMEOUT_MAX_MS = 10_000;
/** Headers that one interceptor may change at a time, and all their names and values together: half of what Node takes for the head of a request. */
export const INTERCEPTOR_HEADERS_MAX = 64;
export const INTERCEPTOR_HEADERS_MAX_CHARACTERS = 8 * KIB;
/** Largest body of an interceptor's own answer: a page that asks to log in, not a download. */
export const INTERCEPTOR_ANSWER_MAX_BYTES = 64 * KIB;
/** Questions that one worker may have open: twice the requests that a plugin has at a time by default. */
export const INTERCEPTOR_QUESTIONS_MAX_PENDING = 1_024;
