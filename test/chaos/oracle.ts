// Judges each answer: as promised, forgiven by what happened to the plugin, or a violation. Must not know sockets or the database.
import { REPLAY_BUDGET_PERCENT, REPLAYS_MIN, REPLAY_WINDOW_MS } from '../../protocol/limits.js';
import type { Act } from './acts.js';
import type { Chronicle, Life } from './chronicle.js';
import type { Reply } from './connection.js';

export interface Judgement {
  readonly verdict: 'good' | 'forgiven' | 'violation';
  /** What came, in a word: a status with its code, or how it ended. */
  readonly outcome: string;
  /** Whether the act took effect, as far as a client can know. */
  readonly took: 'effect' | 'no effect' | 'perhaps';
}

/** Requests of one plugin, as the replay budget counts them. */
interface Traffic {
  readonly sent: number[];
  /** When one was interrupted that could be replayed. */
  readonly interrupted: number[];
}

/** A plugin hears of the end of another one over their own port, and may have answered before the kernel knows of it. */
export const PEER_NEWS_MS = 500;

export class Oracle {
  readonly #chronicle: Chronicle;
  readonly #traffic = new Map<string, Traffic>();

  constructor(chronicle: Chronicle) {
    this.#chronicle = chronicle;
  }

  judge(act: Act, reply: Reply, life: Life): Judgement {
    const { plugin, idempotent, streams } = act;
    const deaths = this.#chronicle.deaths(plugin, life);
    const traffic = this.#of(plugin);
    traffic.sent.push(life.from);
    if (deaths > 0 && idempotent) traffic.interrupted.push(life.to);
    const closed = this.#chronicle.wasClosed(plugin, life);
    const verdict = (forgiven: boolean, outcome: string, took: Judgement['took']): Judgement => ({ verdict: forgiven ? 'forgiven' : 'violation', outcome, took });

    if (reply.end === 'left') return { verdict: 'good', outcome: 'left', took: 'perhaps' };
    // A head that has left cannot be taken back: then the connection is cut, once the generation has died or had no more time to finish.
    if (reply.end === 'cut') return verdict(streams && (deaths > 0 || closed), 'cut', 'perhaps');
    if (reply.end !== 'whole') return verdict(false, reply.end, 'perhaps');
    if (reply.status >= 200 && reply.status < 300) {
      const flaw = act.flaw(reply);
      return flaw === null ? { verdict: 'good', outcome: String(reply.status), took: 'effect' } : verdict(false, `${reply.status}, but ${flaw}`, 'perhaps');
    }
    const code = codeOf(reply);
    const outcome = `${reply.status} ${code}`;
    switch (outcome) {
      case '502 PLUGIN_CRASHED':
      case '504 PLUGIN_UNRESPONSIVE':
        return verdict(this.#mayBeLost(act, life, deaths, closed), outcome, 'perhaps');
      // It was the last one begun in two generations that died: from outside, the same as poison.
      // One that is not replayed ends at most one, and nobody else has its URL.
      case '500 REQUEST_REFUSED': return verdict(idempotent && deaths > 1, outcome, 'perhaps');
      case '503 PLUGIN_NOT_RUNNING':
      case '503 PLUGIN_QUARANTINED':
        // A stream of which something had left for a worker that never looked at it is the client's to send again.
        // Of a request that was interrupted once and not begun again, this is what its second generation says.
        return verdict(closed || (streams && deaths > 0), outcome, idempotent && deaths > 0 ? 'perhaps' : 'no effect');
      case '404 PLUGIN_NOT_LOADED': return verdict(this.#chronicle.wasUnloaded(plugin, life), outcome, 'no effect');
      // Calls of services are not repeated: the caller's plugin has to decide that.
      case '503 SERVICE_UNAVAILABLE': return verdict(act.peer !== null && this.#chronicle.wasAway(act.peer, { ...life, to: life.to + PEER_NEWS_MS }), outcome, 'no effect');
      default: return verdict(false, outcome, 'perhaps');
    }
  }

  /** Forgets all requests. */
  clear(): void {
    this.#traffic.clear();
  }

  /** Whether the kernel may have given up on a request that was begun. */
  #mayBeLost({ plugin, idempotent, streams }: Act, life: Life, deaths: number, closed: boolean): boolean {
    if (deaths === 0) return closed; // a death while it was being stopped is none of an open gate
    return !idempotent || streams || deaths > 1 || closed || this.#isBudgetSpent(plugin, life.to);
  }

  /** A plugin that dies of its load does not get all of it again. Generous by what the kernel's window may have more than this one. */
  #isBudgetSpent(plugin: string, now: number): boolean {
    const { sent, interrupted } = this.#of(plugin);
    const since = (times: readonly number[], ms: number): number => times.filter((at) => at > now - ms).length;
    return since(interrupted, 2 * REPLAY_WINDOW_MS) >= Math.max(REPLAYS_MIN, (since(sent, REPLAY_WINDOW_MS) * REPLAY_BUDGET_PERCENT) / 100);
  }

  #of(plugin: string): Traffic {
    let traffic = this.#traffic.get(plugin);
    if (traffic === undefined) this.#traffic.set(plugin, traffic = { sent: [], interrupted: [] });
    return traffic;
  }
}

export function codeOf({ body }: Reply): string {
  try {
    return String((JSON.parse(body.toString()) as { code?: unknown }).code);
  } catch {
    return 'no code';
  }
}
