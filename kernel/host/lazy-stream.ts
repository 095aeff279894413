// Streams that are made when somebody first uses them as one: most requests and answers never are, and to make both costs as much as to route a request. Must not know what they carry.
import { Readable, Writable, type ReadableOptions, type WritableOptions } from 'node:stream';

/** Known by the stream itself, without its state. */
interface Lazy {
  /** Whether all is over: the state of a stream that is used only then says so. */
  readonly over: boolean;
}

/** What a stream's state says when all is over; the names are those of every Node from 12 on. */
const OVER = { ending: true, ended: true, finished: true, endEmitted: true, destroyed: true, closed: true, closeEmitted: true };

/**
 * A base class in place of `Readable` or `Writable` whose constructor does nothing. Node keeps all of a stream in one property, and lets its
 * constructors be called on an object that exists, for those who inherit without `class`: here the first reading of that property does.
 */
function lazily<O>(base: Function, state: '_readableState' | '_writableState', options: O): Function {
  function LazyStream(): void {}
  /** What is asked of most streams, also of those that are none yet. */
  const known = (name: string): PropertyDescriptor => {
    const { get, set } = Object.getOwnPropertyDescriptor(base.prototype, name)!;
    return { configurable: true, get(this: Lazy) { return Object.hasOwn(this, state) ? get!.call(this) : this.over }, ...(set !== undefined && { set }) };
  };
  LazyStream.prototype = Object.create(base.prototype as object, {
    destroyed: known('destroyed'),
    ...(base === Writable && { writableEnded: known('writableEnded') }),
    [state]: {
      configurable: true,
      get(this: Lazy & Record<string, object>) {
        base.call(this, options);
        return this.over ? Object.assign(this[state]!, OVER) : this[state];
      },
      set(this: object, value: unknown) {
        Object.defineProperty(this, state, { value, configurable: true, enumerable: true, writable: true });
      },
    },
  });
  return LazyStream;
}

/** Closed by the end of the exchange and not by the end of its bytes, as Node does with requests: `request.signal` hangs on 'close'. */
export const LazyReadable = lazily<ReadableOptions>(Readable, '_readableState', { autoDestroy: false }) as unknown as typeof Readable;
export const LazyWritable = lazily<WritableOptions>(Writable, '_writableState', {}) as unknown as typeof Writable;

/** Whether it has been used as a stream. */
export function isMade(stream: Readable | Writable): boolean {
  return Object.hasOwn(stream, stream instanceof Readable ? '_readableState' : '_writableState');
}
