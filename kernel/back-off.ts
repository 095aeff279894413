// How long to wait before something that failed is tried again. Must not know what it is.
import { BACKOFF_INITIAL_MS, BACKOFF_MAX_MS } from '../protocol/limits.js';

/** In milliseconds: BACKOFF_INITIAL_MS after the first failure, doubling up to BACKOFF_MAX_MS. `failures` are those in a row, from 1. */
export function backOffMs(failures: number): number {
  return Math.min(BACKOFF_INITIAL_MS * 2 ** (failures - 1), BACKOFF_MAX_MS);
}
