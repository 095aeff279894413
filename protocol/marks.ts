// What a plugin notes down about its functions and values for the host to find: a method's contract, and memory that is to be moved. Must not know the host.
import type { Static, TSchema } from '@sinclair/typebox';

/** What a method of a service promises. */
export interface MethodPromise<A extends readonly TSchema[] = readonly TSchema[], R extends TSchema = TSchema> {
  /** Schemas of the arguments in their order; a call with others rejects with `SERVICE_ARGUMENTS_INVALID` and never reaches the method. */
  readonly args?: readonly [...A];
  /** Schema of the result, or of each value of a stream; another rejects with `SERVICE_RESULT_INVALID`. */
  readonly result?: R;
  /** The method may be called again when its plugin has died in the middle of a call. */
  readonly idempotent?: boolean;
}

type StaticAll<A extends readonly TSchema[]> = { -readonly [K in keyof A]: Static<A[K]> };
type Given<R> = R | Promise<R> | AsyncIterable<R>;

// The host is bundled with a copy of this file that is not the plugins', so both meet at names that the whole thread knows.
const PROMISE = Symbol.for('bulkhead.method');
const MOVED = Symbol.for('bulkhead.moved');
const thread = globalThis as { [MOVED]?: WeakMap<object, readonly ArrayBuffer[]> };

/** Gives a method of a service its contract; returns the same function. */
export function method<A extends readonly TSchema[], R extends TSchema, F extends (...args: StaticAll<A>) => Given<Static<R>>>(promise: MethodPromise<A, R> & { readonly args: readonly [...A]; readonly result: R }, call: F): F;
export function method<A extends readonly TSchema[], F extends (...args: StaticAll<A>) => unknown>(promise: MethodPromise<A> & { readonly args: readonly [...A]; readonly result?: never }, call: F): F;
export function method<R extends TSchema, F extends (...args: never[]) => Given<Static<R>>>(promise: MethodPromise<never, R> & { readonly args?: never; readonly result: R }, call: F): F;
export function method<F extends (...args: never[]) => unknown>(promise: { readonly args?: never; readonly result?: never; readonly idempotent?: boolean }, call: F): F;
export function method<F extends (...args: never[]) => unknown>(promise: MethodPromise, call: F): F {
  return Object.defineProperty(call, PROMISE, { value: promise });
}

export function promiseOf(call: (...args: never[]) => unknown): MethodPromise {
  return (call as { [PROMISE]?: MethodPromise })[PROMISE] ?? {};
}

/** Moves these buffers to the other plugin with the value, an argument or a result of a call, in place of copying them; here they are empty afterwards. Returns the value. */
export function transfer<T extends object>(value: T, buffers: readonly ArrayBuffer[]): T {
  (thread[MOVED] ??= new WeakMap()).set(value, buffers);
  return value;
}

/** The buffers that are to be moved with the value. */
export function movedWith(value: unknown): readonly ArrayBuffer[] {
  return typeof value === 'object' && value !== null ? (thread[MOVED]?.get(value) ?? []) : [];
}
