// The clients: each asks one thing after the other, on a connection that it keeps or a new one, sometimes without waiting for the answer. Must not know what is forgiven.
import { setTimeout as delay } from 'node:timers/promises';
import { nextAct, type Act, type Asker } from './acts.js';
import { Connection, type Reply } from './connection.js';
import type { Ledger } from './ledger.js';
import { PEER_NEWS_MS, type Oracle } from './oracle.js';
import type { Random } from './random.js';
import type { Report } from './report.js';

const CLIENTS = 16;
const THINK_MAX_MS = 40;

export interface ClientsOptions {
  readonly url: string;
  readonly random: Random;
  readonly ledger: Ledger;
  readonly oracle: Oracle;
  readonly report: Report;
}

/** Resolves when each has its last answer, after this instant of `performance.now()`. */
export async function loadUntil(end: number, options: ClientsOptions): Promise<void> {
  const randoms = Array.from({ length: CLIENTS }, () => options.random.fork());
  await Promise.all(randoms.map((random, i) => new Client(`s${options.report.seed}c${i}`, random, options).askUntil(end)));
}

class Client {
  readonly #options: ClientsOptions;
  readonly #asker: Asker;
  #kept: Connection | null = null;

  constructor(name: string, random: Random, options: ClientsOptions) {
    this.#options = options;
    this.#asker = { name, random, count: 0, possible: (plugin, key) => options.ledger.possible(plugin, key) };
  }

  async askUntil(end: number): Promise<void> {
    const { random } = this.#asker;
    while (performance.now() < end) {
      const act = nextAct(this.#asker);
      const leaves = random.chance(0.04);
      const anew = leaves || random.chance(0.1);
      const leaveAfterMs = random.whole(0, 30);
      const thinkMs = random.whole(0, THINK_MAX_MS);
      // What a client that is gone has asked of its register may still happen, and later than what it asks next.
      await this.#ask(leaves && act.effect.kind !== 'register' ? { ...act, question: { ...act.question, leaveAfterMs } } : act, anew);
      await delay(thinkMs);
    }
    this.#kept?.close();
  }

  async #ask(act: Act, anew: boolean): Promise<void> {
    const { ledger, oracle, report } = this.#options;
    const connection = anew ? this.#connect() : this.#keep();
    const from = performance.now();
    const reply = await connection.ask(act.question);
    const life = { from, to: performance.now() };
    if (anew) connection.close();
    if (act.peer !== null && reply.status === 503) await delay(PEER_NEWS_MS);
    const judgement = oracle.judge(act, reply, life);
    ledger.note(act.effect, judgement.took);
    report.count(act, judgement, life);
    if (judgement.verdict === 'violation') report.violation(`${act.question.method} ${act.question.path} had ${describe(reply, judgement.outcome)} after ${(life.to - from).toFixed(0)} ms`, [act.plugin, ...(act.peer === null ? [] : [act.peer])], life);
  }

  #keep(): Connection {
    if (this.#kept?.usable !== true) this.#kept = this.#connect();
    return this.#kept;
  }

  #connect(): Connection {
    return new Connection(this.#options.url, (bytes) => this.#options.report.violation(`an answer to no request: ${JSON.stringify(bytes)}`));
  }
}

function describe({ end, status, body }: Reply, outcome: string): string {
  switch (end) {
    case 'none': return 'its connection closed without an answer';
    case 'silence': return 'no answer';
    case 'cut': return `an answer with ${status} that ended in the middle`;
    default: return `${outcome} in ${JSON.stringify(body.toString('utf8', 0, 300))}`;
  }
}
