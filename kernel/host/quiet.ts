// Gives back the memory that a worker needs no more: V8 clears up when it wants room, which an idle worker never does. Must not know the plugin.
import { QUIET_HEAP_MAX_BYTES, QUIET_LOOKS_MAX, QUIET_LOOK_INTERVAL_MS } from '../../protocol/limits.js';
import type { StatusBlock } from '../../protocol/status-block.js';

type Collect = (options: { type: 'major'; execution: 'sync'; flavor: 'last-resort' }) => unknown;

/**
 * Collects once whenever no request has begun for QUIET_LOOKS_MAX looks in a row, unless its heap is large. Returns what says that there was other work.
 * Node 22 and later get their young generation back only from the last resort; Node 20, which does not know it, when little was allocated of late.
 */
export function collectWhenQuiet(status: StatusBlock, collect: Collect | null = globalThis.gc ?? null): () => void {
  // Without --expose-gc, with which the guardian starts the kernel's process.
  if (collect === null) return () => {};
  let seen = status.lastRequest;
  let quietLooks = 0;
  setInterval(() => {
    const { lastRequest } = status;
    quietLooks = lastRequest === seen ? quietLooks + 1 : 0;
    seen = lastRequest;
    // A large heap would hold the loop for longer than a request should wait, or even than a hang may last.
    if (quietLooks === QUIET_LOOKS_MAX && status.memory.heapUsed <= QUIET_HEAP_MAX_BYTES) void collect({ type: 'major', execution: 'sync', flavor: 'last-resort' });
  }, QUIET_LOOK_INTERVAL_MS).unref();
  return () => { quietLooks = 0; };
}
