// What travels on a direct port between the worker of a consumer and that of a provider. Must not know how frames are sent or handled.
import type { PlainError } from './errors.js';

/** A call. `id` is the consumer's own number for it on this port. */
export interface CallFrame {
  readonly kind: 'call';
  readonly id: number;
  readonly method: string;
  readonly args: readonly unknown[];
  /** Places of arguments that are to be the call's own AbortSignal, or null when there are none. */
  readonly signals: readonly number[] | null;
  /** Time until nobody waits for the result any more, in milliseconds. */
  readonly remainingMs: number;
}
/** Nobody waits for the result of call `id`, or for more of its values. */
export interface CallCancelFrame { readonly kind: 'cancel'; readonly id: number }
/** The consumer of the stream of call `id` has room for so many more values. */
export interface ValuesCreditFrame { readonly kind: 'credit'; readonly id: number; readonly values: number }

export type ConsumerFrame = CallFrame | CallCancelFrame | ValuesCreditFrame;

export type ProviderFrame =
  /** The first on a port: calls on it may have begun from now on. A port that a dying worker was still sent closes without it. */
  | { readonly kind: 'accepted' }
  | { readonly kind: 'result'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'error'; readonly id: number; readonly error: PlainError }
  /** The result of call `id` is a stream: `value` frames follow, and an `end` or an `error`. */
  | { readonly kind: 'stream'; readonly id: number }
  | { readonly kind: 'value'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'end'; readonly id: number }
  /** The provider stops: it finishes what it has begun, and takes nothing more on this port. */
  | { readonly kind: 'leaving' };
