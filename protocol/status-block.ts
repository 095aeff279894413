// Shared memory between one host and the kernel: what must be readable while the host's event loop stands still. Must not know who acts on it.

const BYTES = 64;
const enum Counter { Heartbeat, Resting }
const enum Gauge { HeapUsed = 1, External, ArrayBuffers, LoopLagMs, LastRequest }

/** Memory of a worker, in bytes. */
export interface WorkerMemory {
  readonly heapUsed: number;
  /** Memory of C++ objects bound to the heap, array buffers included. */
  readonly external: number;
  readonly arrayBuffers: number;
}

/** Written by the host, read by the kernel. */
export class StatusBlock {
  readonly buffer: SharedArrayBuffer;
  readonly #counters: Int32Array;
  readonly #gauges: Float64Array;

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(BYTES)) {
    this.buffer = buffer;
    this.#counters = new Int32Array(buffer, 0, 2);
    this.#gauges = new Float64Array(buffer);
  }

  /** Changes whenever the host's event loop turns. */
  get heartbeat(): number {
    return Atomics.load(this.#counters, Counter.Heartbeat);
  }

  beat(): void {
    Atomics.add(this.#counters, Counter.Heartbeat, 1);
  }

  /** Whether the host has no work, and its heart beats slowly. */
  get resting(): boolean {
    return Atomics.load(this.#counters, Counter.Resting) !== 0;
  }

  set resting(resting: boolean) {
    Atomics.store(this.#counters, Counter.Resting, Number(resting));
  }

  /** The number of the last request that the host has begun; one above it was never begun. */
  get lastRequest(): number {
    return this.#gauges[Gauge.LastRequest] ?? 0;
  }

  set lastRequest(id: number) {
    this.#gauges[Gauge.LastRequest] = id; // a double, because 32 bits are full after days of load
  }

  get memory(): WorkerMemory {
    return {
      heapUsed: this.#gauges[Gauge.HeapUsed] ?? 0,
      external: this.#gauges[Gauge.External] ?? 0,
      arrayBuffers: this.#gauges[Gauge.ArrayBuffers] ?? 0,
    };
  }

  set memory(memory: WorkerMemory) {
    this.#gauges[Gauge.HeapUsed] = memory.heapUsed;
    this.#gauges[Gauge.External] = memory.external;
    this.#gauges[Gauge.ArrayBuffers] = memory.arrayBuffers;
  }

  /** How late the host's last heartbeat was, in milliseconds. */
  get loopLagMs(): number {
    return this.#gauges[Gauge.LoopLagMs] ?? 0;
  }

  set loopLagMs(ms: number) {
    this.#gauges[Gauge.LoopLagMs] = ms;
  }
}
