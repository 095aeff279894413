// Every bound of the guardian, as in limits.ts. Must not know how a bound is enforced.
const MIB = 1024 * 1024;

/** How long the guardian waits for a kernel that was told to stop, which ends itself before; then it is killed. */
export const KERNEL_STOP_TIMEOUT_MS = 9_000;
/** After this the guardian ends although something has not; Docker sends SIGKILL at ten seconds. */
export const GUARDIAN_STOP_TIMEOUT_MS = 9_500;
/** How long a kernel may take until it could answer: 0.4 s here, more on a machine that swaps; one that hangs is replaced. */
export const KERNEL_BOOT_TIMEOUT_MS = 30_000;
/** A kernel that ends sooner after its plugins came up counts like one that could not boot, so that the next ones wait longer each time: a fault of its own is a matter of chance, and hits later. */
export const KERNEL_SETTLED_AFTER_MS = 1_000;
/** How long connections wait for the plugins of a kernel that died, once the next one could answer: a plugin whose `start()` is slow holds up nobody else for longer. */
export const RESTORE_WAIT_MS = 5_000;
/** Kernels in a row that may fail to boot before clients are told instead of kept waiting: the first may have met what its predecessor left. */
export const SILENT_BOOT_FAILURES_MAX = 3;
/** Connections that wait for a kernel at one time: ten seconds of 200 a second. Each costs a descriptor and some KB. */
export const HELD_CONNECTIONS_MAX = 2_000;
/** How long one of them waits: ten kernels could have started, and few clients wait longer. */
export const HELD_TIMEOUT_MS = 10_000;
/** How long a client may take to ask the guardian and to read its answer of some hundred bytes. */
export const NOTICE_TIMEOUT_MS = 5_000;
/** How long the guardian remembers that a plugin took the whole kernel down. */
export const OFFENCE_WINDOW_MS = 600_000;
/** How often a plugin may do that within the window: once is an accident. */
export const OFFENCES_BEFORE_QUARANTINE = 2;
/** Threads of one kernel that the guardian knows: those that live, and the last hundreds that ended, which may still hold on to a heap. */
export const THREADS_REMEMBERED_MAX = 1_000;
/** Diagnostic reports of dead kernels that are kept for a human: some 50 KB each. */
export const REPORTS_MAX = 5;
/** Largest report that is read: with few threads it has 50 KB, and nothing sensible has a hundred times that. */
export const REPORT_MAX_BYTES = 4 * MIB;
