// Frees the memory that came from the kernel with frames and is used no more: V8 does so only when it is much. Must not know what the frames mean.
import { RECEIVED_BEFORE_COLLECTION_BYTES } from '../../protocol/limits.js';

type Collect = (options: { type: 'minor' }) => unknown;

/**
 * Returns what counts received bytes, and collects the youngest objects, among which they are, whenever it has counted RECEIVED_BEFORE_COLLECTION_BYTES. V8 minds
 * what a thread itself allocates, but of what it was sent only how much there is in all, and then looks through the whole heap: half of an upload's time.
 */
export function collectReceived(collect: Collect | null = globalThis.gc ?? null): (bytes: number) => void {
  let uncollected = 0;
  return (bytes) => {
    uncollected += bytes;
    if (uncollected < RECEIVED_BEFORE_COLLECTION_BYTES) return;
    uncollected = 0;
    collect?.({ type: 'minor' });
  };
}
