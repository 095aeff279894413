// The kernel's end of the control plane: comlink, with what it lacks: a deadline for every call, and an end of every call when the worker dies. Must not know what is called.
import type { MessagePort } from 'node:worker_threads';
import { wrap, type Remote } from 'comlink';
// @ts-expect-error comlink ships its adapter for Node without types.
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs';

export class Control<T> {
  readonly #port: MessagePort;
  readonly #remote: Remote<T>;
  readonly #pending = new Set<(error: Error) => void>();
  #closed: string | null = null;

  constructor(port: MessagePort) {
    this.#port = port;
    this.#remote = wrap<T>(nodeEndpoint(port));
  }

  /**
   * Makes one call. Rejects with what the host threw (a plain error made an Error again), after `timeoutMs`, or when the worker
   * ends. Each call has its own promise: racing against one long-lived promise would keep every call in memory.
   */
  call<R>(what: string, timeoutMs: number, invoke: (remote: Remote<T>) => Promise<R>): Promise<R> {
    return new Promise<R>((resolve, reject) => {
      if (this.#closed !== null) return reject(new Error(this.#closed));
      const settle = (finish: () => void): void => {
        clearTimeout(timer);
        this.#pending.delete(end);
        finish();
      };
      const end = (error: Error): void => settle(() => reject(error));
      const timer = setTimeout(() => end(new Error(`${what} did not finish within ${timeoutMs} ms`)), timeoutMs);
      this.#pending.add(end);
      invoke(this.#remote).then(
        // A turn later, so that frames that the host sent before its answer are handled before it; one may end the generation.
        (value) => setImmediate(() => settle(() => resolve(value))),
        (thrown: { message?: string }) => end(Object.assign(new Error(thrown.message ?? String(thrown)), thrown)),
      );
    });
  }

  /** Ends every pending call, and later ones, with this cause. */
  close(cause: string): void {
    this.#closed = cause;
    for (const end of [...this.#pending]) end(new Error(cause));
    this.#port.close();
  }
}
