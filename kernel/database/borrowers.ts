// Who has connections of the pool, who waits for one, and who gives one back then. Must not know how a connection is lent.

/** One worker of a plugin; what counts is what all workers of the plugin have. */
export interface Borrower {
  readonly plugin: string;
  /** Connections that it has and was not yet asked to give back. */
  readonly held: number;
  /** Those, the ones that it was asked for, and the ones that it waits for. */
  readonly claims: number;
  /** Asks it to give one back as soon as it can. */
  callIn(): void;
}

/** Who has none to give, and is served like any plugin that has none: the kernel itself. */
const KERNEL: Borrower = { plugin: '', held: 0, claims: 0, callIn() {} };

export class Borrowers {
  readonly #all = new Set<Borrower>();
  /** For whom no connection was free, in the order of their coming. */
  readonly #waiting: Borrower[] = [];

  /** Whether anybody waits. */
  get crowded(): boolean {
    return this.#waiting.length > 0;
  }

  enter(borrower: Borrower): void {
    this.#all.add(borrower);
  }

  leave(borrower: Borrower): void {
    this.#all.delete(borrower);
  }

  /** Whether it makes sense for it to wait while none is free: its plugin has none, or another has more than one more. Who shares evenly does with what he has. */
  mayWait({ plugin }: Borrower): boolean {
    const claims = this.#sum(plugin, (one) => one.claims);
    const richest = this.#richest(plugin);
    return claims === 0 || (richest !== null && this.#sum(richest, ({ held }) => held) > claims + 1);
  }

  /** It waits: whoever has the most gives one back. Returns the end of its wait. */
  wait(borrower: Borrower = KERNEL): () => void {
    this.#waiting.push(borrower);
    this.#makeRoom(borrower);
    return () => this.#waiting.splice(this.#waiting.indexOf(borrower), 1);
  }

  /** Time has passed, or a connection was lent. If somebody waits still, another one is for him. */
  remind(): void {
    const [next] = this.#waiting;
    if (next !== undefined) this.#makeRoom(next);
  }

  #makeRoom({ plugin }: Borrower): void {
    const richest = this.#richest(plugin);
    if (richest === null || this.#sum(richest, ({ held }) => held) <= this.#sum(plugin, ({ held }) => held)) return;
    const [first] = [...this.#all].filter((one) => one.plugin === richest).sort((a, b) => b.held - a.held);
    first?.callIn();
  }

  /** Of the other plugins the one that has the most; null when there is no other. */
  #richest(plugin: string): string | null {
    let richest: string | null = null;
    let most = -1;
    for (const other of new Set([...this.#all].map((one) => one.plugin))) {
      const held = other === plugin ? -1 : this.#sum(other, (one) => one.held);
      if (held > most) [richest, most] = [other, held];
    }
    return richest;
  }

  #sum(plugin: string, count: (borrower: Borrower) => number): number {
    let sum = 0;
    for (const borrower of this.#all) if (borrower.plugin === plugin) sum += count(borrower);
    return sum;
  }
}
