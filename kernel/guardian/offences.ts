// Which plugins took the whole kernel down, and what follows: a pure verdict and its short memory. Must not know reports or processes.
import type { Death, Fault } from '../../protocol/lifecycle.js';
import { OFFENCE_WINDOW_MS, OFFENCES_BEFORE_QUARANTINE } from '../../protocol/guardian-limits.js';
import { HISTORY_MAX_ENTRIES } from '../../protocol/limits.js';
import type { PriorLife } from '../plugins/prior-life.js';

export interface Offence {
  readonly plugin: string;
  /** Milliseconds since 1970. */
  readonly at: number;
}

/** The offences that still count at this moment, in order. */
export function recent(offences: readonly Offence[], now: number): Offence[] {
  return offences.filter(({ at }) => now - at < OFFENCE_WINDOW_MS);
}

/** The culprit as the next kernel gets it: with this death, and quarantined when it was not the first within the window. `offences` include the present one. */
export function sentence(culprit: PriorLife, death: Death, offences: readonly Offence[]): PriorLife {
  const deaths = [...culprit.deaths, death].slice(-HISTORY_MAX_ENTRIES);
  const count = recent(offences, death.at).filter(({ plugin }) => plugin === culprit.name).length;
  if (count < OFFENCES_BEFORE_QUARANTINE) return { ...culprit, deaths, restarts: culprit.restarts + 1 };
  const fault: Fault = { code: 'PLUGIN_CRASHED', message: `${death.cause}; that happened ${count} times within ${OFFENCE_WINDOW_MS / 60_000} minutes` };
  return { ...culprit, deaths, standing: { status: 'quarantined', fault } };
}
