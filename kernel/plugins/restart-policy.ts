// Whether and when a plugin that died is restarted: a pure function of its setbacks, the time and chance. Must not know plugins or timers.
import { DEATH_WINDOW_MS, DEATHS_BEFORE_QUARANTINE } from '../../protocol/limits.js';
import { backOffMs } from '../back-off.js';

export type Verdict =
  | { readonly action: 'restart'; readonly delayMs: number }
  | { readonly action: 'quarantine'; readonly reason: string };

/** A death, or a boot that failed. */
export interface Setback {
  /** In milliseconds. */
  readonly at: number;
  /** True when the plugin needed something that was not there: it waits longer each time, but is never quarantined for it. */
  readonly excused: boolean;
}

/**
 * Judges after a setback. The first restart is immediate, the next ones wait 100 ms doubling up to 30 s, each with a jitter of
 * half to the whole, so that plugins that died of one cause do not come back in step.
 * @param setbacks those since the operator last intervened, the present one included, in order
 * @param now in milliseconds, of the same clock
 * @param random from 0 up to but not including 1
 */
export function judge(setbacks: readonly Setback[], now: number, random: number): Verdict {
  const recent = setbacks.filter(({ at, excused }) => !excused && now - at < DEATH_WINDOW_MS).length;
  // A streak goes on until there were 60 s without a setback.
  let streak = 1;
  for (let i = setbacks.length - 1; i > 0 && setbacks[i]!.at - setbacks[i - 1]!.at < DEATH_WINDOW_MS; i -= 1) streak += 1;
  if (recent >= DEATHS_BEFORE_QUARANTINE) return { action: 'quarantine', reason: `it died ${recent} times within ${DEATH_WINDOW_MS / 1_000} s` };
  if (streak === 1) return { action: 'restart', delayMs: 0 };
  const full = backOffMs(streak - 1);
  return { action: 'restart', delayMs: Math.round(full * (0.5 + random / 2)) };
}
