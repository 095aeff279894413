// What happened to each plugin and when, as its transitions tell: the measure by which an answer is judged. Must not know requests' contents.
import type { Supervisor } from '../../kernel/plugins/supervisor.js';
import type { Transition } from '../../protocol/lifecycle.js';
import { PLUGIN_LIMITS } from '../../protocol/limits.js';

/** All times are in milliseconds of `performance.now()`. */
export interface Life {
  readonly from: number;
  readonly to: number;
}

interface Absence {
  readonly from: number;
  /** Infinity while it lasts. */
  to: number;
  /** Whether requests were sent away and not only made to wait: stopped by an operator, quarantined, or back too late. */
  closed: boolean;
  /** Whether it was unloaded: its paths are gone. */
  unloaded: boolean;
}

interface History {
  readonly deaths: number[];
  /** Boots that failed, which no fault of the simulation asks for. */
  readonly failedBoots: string[];
  readonly absences: Absence[];
  /** For people who read a violation. */
  readonly lines: { readonly at: number; readonly text: string }[];
}

/** The kernel looks at waiting requests every 50 ms, and what is timed here has its own delays. */
const WAIT_TOLERANCE_MS = 200;

export class Chronicle {
  readonly #plugins = new Map<string, History>();
  readonly #end: () => void;

  constructor(supervisor: Supervisor) {
    this.#end = supervisor.onTransition((transition) => this.#note(transition));
  }

  close(): void {
    this.#end();
  }

  /** Forgets all that is over. */
  clear(): void {
    this.#plugins.clear();
  }

  /** How often a generation of the plugin died with its gate open. */
  deaths(plugin: string, { from, to }: Life = { from: 0, to: Infinity }): number {
    return this.#of(plugin).deaths.filter((at) => at >= from && at <= to).length;
  }

  failedBoots(plugin: string): readonly string[] {
    return this.#of(plugin).failedBoots;
  }

  wasAway(plugin: string, life: Life): boolean {
    return this.#during(plugin, life).length > 0;
  }

  wasUnloaded(plugin: string, life: Life): boolean {
    return this.#during(plugin, life).some(({ unloaded }) => unloaded);
  }

  /** Whether a request of this life may have been sent away for want of a plugin, or had to wait for it longer than requests do. */
  wasClosed(plugin: string, life: Life): boolean {
    return this.#during(plugin, life).some(({ closed, from, to }) => closed || Math.min(to, life.to) - Math.max(from, life.from) >= PLUGIN_LIMITS.replayWaitMs - WAIT_TOLERANCE_MS);
  }

  /** The plugin's transitions around this life, for a message. */
  tell(plugin: string, { from, to }: Life): string {
    return this.#of(plugin).lines.filter(({ at }) => at > from - 3_000 && at < to + 100).map(({ at, text }) => `${(at - from).toFixed(0)} ms: ${text}`).join('; ');
  }

  #during(plugin: string, life: Life): Absence[] {
    return this.#of(plugin).absences.filter(({ from, to }) => from <= life.to && to >= life.from);
  }

  #note({ plugin, from, to, cause }: Transition): void {
    const at = performance.now();
    const history = this.#of(plugin);
    history.lines.push({ at, text: `${from} -> ${to} (${cause})` });
    const last = history.absences.at(-1);
    if (to === 'running') {
      if (last !== undefined) last.to = at;
      return;
    }
    if (to === 'failed' && from === 'running') history.deaths.push(at);
    else if (to === 'failed') history.failedBoots.push(`${from} -> failed (${cause})`);
    let absence = last;
    if (absence === undefined || absence.to !== Infinity) history.absences.push(absence = { from: at, to: Infinity, closed: false, unloaded: false });
    const late = Number(/^restart in (\d+) ms$/.exec(cause)?.[1] ?? 0) > PLUGIN_LIMITS.replayWaitMs;
    if (late || to === 'stopping' || to === 'stopped' || to === 'quarantined' || to === 'registered') absence.closed = true;
    if (to === 'registered') absence.unloaded = true;
  }

  #of(plugin: string): History {
    let history = this.#plugins.get(plugin);
    if (history === undefined) this.#plugins.set(plugin, history = { deaths: [], failedBoots: [], absences: [], lines: [] });
    return history;
  }
}
