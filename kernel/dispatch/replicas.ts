// The workers of one plugin as one place to send requests to: the next one goes to whoever has the least to do. Must not know why there are several.
import type { Dispatcher } from './dispatcher.js';
import type { OpenRequest } from './open-request.js';

export class Replicas {
  #dispatchers: readonly Dispatcher[] = [];

  /** Whether any generation is alive. */
  get open(): boolean {
    return this.#dispatchers.some(({ open }) => open);
  }

  /** Whether every place, also in the queues, is taken. */
  get full(): boolean {
    return this.#dispatchers.every(({ full, open }) => full || !open);
  }

  add(dispatcher: Dispatcher): void {
    this.#dispatchers = [...this.#dispatchers, dispatcher];
  }

  /** Lets go of those that have died. */
  prune(): void {
    this.#dispatchers = this.#dispatchers.filter(({ open }) => open);
  }

  dispatch(exchange: OpenRequest): void {
    this.#least().dispatch(exchange);
  }

  /** Among equals the first: a lone client stays with a worker that is awake. */
  #least(): Dispatcher {
    let [least] = this.#dispatchers;
    for (const dispatcher of this.#dispatchers) if (dispatcher.open && (!least!.open || dispatcher.demand < least!.demand)) least = dispatcher;
    return least!;
  }
}
