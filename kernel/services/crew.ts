// The workers of one plugin that handle durable events of one subscription, and what each has under way. Must not know where events come from, or what follows.
import { EVENTS_HANDLED_AT_ONCE_MAX } from '../../protocol/event-limits.js';
import type { WaitingEvent } from '../database/event-store.js';
import type { EventParty } from './event-party.js';

/** An event that a worker has been given. */
export interface Flight {
  readonly ref: number;
  readonly party: EventParty;
  readonly event: WaitingEvent;
  /** A worker has died with it, so it is handled alone. */
  readonly suspect: boolean;
  readonly timer: NodeJS.Timeout;
}

export class Crew {
  readonly #workers = new Set<EventParty>();
  readonly #flights = new Map<number, Flight>();
  readonly #onGrounded = new Map<EventParty, () => void>();

  /** Workers that take further events. */
  get size(): number {
    return this.#workers.size;
  }

  /** Events under way, also with workers that take no further ones. */
  get flying(): number {
    return this.#flights.size;
  }

  join(party: EventParty): void {
    this.#workers.add(party);
  }

  /** It takes no further events. Returns whether it was the last that did. */
  retire(party: EventParty): boolean {
    return this.#workers.delete(party) && this.#workers.size === 0;
  }

  /** Resolves when a worker has nothing under way any more. */
  grounded(party: EventParty): Promise<void> {
    if (this.of(party).length === 0) return Promise.resolve();
    return new Promise((resolve) => this.#onGrounded.set(party, resolve));
  }

  of(party: EventParty): Flight[] {
    return [...this.#flights.values()].filter((flight) => flight.party === party);
  }

  /** Who can take an event: the one with the least to do, and a suspect only one with nothing to do. */
  freeFor(suspect: boolean): EventParty | null {
    let free: EventParty | null = null;
    let least = suspect ? 1 : EVENTS_HANDLED_AT_ONCE_MAX;
    for (const party of this.#workers) {
      const flights = this.of(party);
      if (flights.length >= least || flights.some((flight) => flight.suspect)) continue;
      [free, least] = [party, flights.length];
    }
    return free;
  }

  begin(flight: Flight): void {
    this.#flights.set(flight.ref, flight);
  }

  /** Undefined when it is not under way with this worker, as after its time. */
  end(party: EventParty, ref: number): Flight | undefined {
    const flight = this.#flights.get(ref);
    if (flight?.party !== party) return undefined;
    clearTimeout(flight.timer);
    this.#flights.delete(ref);
    if (this.#onGrounded.has(party) && this.of(party).length === 0) {
      this.#onGrounded.get(party)!();
      this.#onGrounded.delete(party);
    }
    return flight;
  }
}
