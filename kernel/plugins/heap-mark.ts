// A heap limit that no other worker has: V8's report of a heap that is used up always gives the limit, but only sometimes the thread. Must not know plugins.
import { HEAP_ALLOWANCE_MB, HEAP_ALLOWANCES_MAX, WORKER_YOUNG_HEAP_MB } from '../../protocol/limits.js';

const MIB = 1024 * 1024;
/** V8 counts heaps in pages of this size. */
const STEP_MB = 0.25;
/** As many as fit below Node's allowance, so that a limit with an allowance added is not another's. */
const MARKS = HEAP_ALLOWANCE_MB / STEP_MB;

const taken = new Set<number>();

export interface HeapMark {
  /** What is added to the limit, in MiB: next to nothing while there are few workers. */
  readonly extraMb: number;
  /** The worker is gone, and another may have its mark. */
  release(): void;
}

/** The smallest mark that is free. With more than 64 workers some share the largest. */
export function takeHeapMark(): HeapMark {
  let mark = 0;
  while (taken.has(mark) && mark < MARKS - 1) mark += 1;
  taken.add(mark);
  return { extraMb: mark * STEP_MB, release: () => taken.delete(mark) };
}

/** Whether the limit of a heap at its end, in bytes, is that of a worker with this old generation, in MiB. */
export function isHeapOf(limitBytes: number, heapLimitMb: number): boolean {
  const allowances = (limitBytes / MIB - heapLimitMb - WORKER_YOUNG_HEAP_MB) / HEAP_ALLOWANCE_MB;
  return Number.isInteger(allowances) && allowances >= 0 && allowances <= HEAP_ALLOWANCES_MAX;
}
