// What the guardian remembers of the plugins while kernels come and go: how each is brought back, whose code each thread runs, who took a kernel down. Must not know processes.
import type { Death } from '../../protocol/lifecycle.js';
import { THREADS_REMEMBERED_MAX } from '../../protocol/guardian-limits.js';
import type { Occupant } from '../plugins/compartment.js';
import { isHeapOf } from '../plugins/heap-mark.js';
import { firstLife, type PriorLife } from '../plugins/prior-life.js';
import type { KernelMessage } from './messages.js';
import { recent, sentence, type Offence } from './offences.js';
import type { Finding } from './report.js';

export interface Judgement {
  readonly culprit: Occupant;
  readonly death: Death;
  /** What becomes of it; one that was only just being loaded is not loaded again. */
  readonly verdict: 'started again' | 'quarantined' | 'not loaded';
}

export class Chronicle {
  readonly #priors: Map<string, PriorLife>;
  readonly #threads = new Map<number, Occupant>();
  #offences: Offence[] = [];

  /** `enabled` are the plugins of the first kernel. */
  constructor(enabled: readonly string[]) {
    this.#priors = new Map(enabled.map((name) => [name, firstLife(name)]));
  }

  /** What the next kernel shall bring back. */
  get plugins(): PriorLife[] {
    return [...this.#priors.values()];
  }

  note(message: KernelMessage): void {
    if (message.kind === 'plugin') this.#notePlugin(message.name, message.prior);
    if (message.kind !== 'thread') return;
    this.#threads.set(message.threadId, message.occupant);
    const [oldest] = this.#threads.keys();
    if (this.#threads.size > THREADS_REMEMBERED_MAX && oldest !== undefined) this.#threads.delete(oldest);
  }

  /** The kernel has died at this moment, in milliseconds since 1970; `finding` is what its report says. Returns whose doing it was, where that is known. */
  judge(finding: Finding | null, at: number): Judgement | null {
    const culprit = finding === null ? undefined : this.#occupantOf(finding);
    this.#threads.clear();
    if (finding === null || culprit === undefined) return null;
    const death: Death = {
      kind: finding.heapLimitBytes === null ? 'crashed' : 'out-of-memory', cause: `it took the whole kernel down: ${finding.event}`, generation: culprit.generation, at, request: null,
    };
    this.#offences = recent([...this.#offences, { plugin: culprit.plugin, at }], at);
    const prior = this.#priors.get(culprit.plugin);
    if (prior === undefined) return { culprit, death, verdict: 'not loaded' };
    const sentenced = sentence(prior, death, this.#offences);
    this.#priors.set(culprit.plugin, sentenced);
    return { culprit, death, verdict: sentenced.standing.status === 'quarantined' ? 'quarantined' : 'started again' };
  }

  /** By its thread, else by its heap; of those that had the same heap one after the other, the last. */
  #occupantOf({ threadId, heapLimitBytes }: Finding): Occupant | undefined {
    if (threadId !== null) return this.#threads.get(threadId);
    return heapLimitBytes === null ? undefined : [...this.#threads.values()].findLast(({ heapLimitMb }) => isHeapOf(heapLimitBytes, heapLimitMb));
  }

  #notePlugin(name: string, prior: PriorLife | null): void {
    // Whoever lets it out of its quarantine, or forgets it, has dealt with what it did.
    const released = this.#priors.get(name)?.standing.status === 'quarantined' && prior?.standing.status !== 'quarantined';
    if (released || prior === null) this.#offences = this.#offences.filter(({ plugin }) => plugin !== name);
    if (prior === null) this.#priors.delete(name);
    else this.#priors.set(name, prior);
  }
}
