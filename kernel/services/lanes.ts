// Events of one durable subscription that are in memory: those of one key in a lane, in their order; each event without a key in a lane of its own. Must not know where they come from, or who handles them.
import { EVENTS_OF_KEY_IN_HAND_MAX } from '../../protocol/event-limits.js';
import type { WaitingEvent } from '../database/event-store.js';

interface Lane {
  readonly events: WaitingEvent[];
  /** The first is being handled. */
  busy: boolean;
  /** There are more where they come from, for which it had no room. */
  refused: boolean;
}

export class Lanes {
  readonly #lanes = new Map<string, Lane>();
  /** By the name of their lane, those that have failed and wait for another attempt. */
  readonly #held = new Map<string, WaitingEvent>();
  #size = 0;
  #epoch = 0;

  /** Changes when events are let go that have not been handled: what was looked for before that may follow one of them. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Events, without those that are held. */
  get size(): number {
    return this.#size;
  }

  get held(): number {
    return this.#held.size;
  }

  /** What there is no need to look for: events that are here, and keys that are held or have no room. */
  get except(): { readonly events: string[]; readonly keys: string[] } {
    const lanes = [...this.#lanes.values()];
    const held = [...this.#held.values()];
    const keys = [...held, ...lanes.filter(isFull).map(({ events }) => events[0]!)].map(({ key }) => key);
    return { events: [...held, ...lanes.flatMap(({ events }) => events)].map(({ event }) => event), keys: keys.filter((key) => key !== null) };
  }

  /** Whether there are others in its lane. */
  has(event: WaitingEvent): boolean {
    return this.#lanes.has(nameOf(event));
  }

  /** They come in their order. One whose lane is full or held is not taken, nor is any after it, until it can be. */
  add(event: WaitingEvent): void {
    const name = nameOf(event);
    if (this.#held.has(name)) return;
    const lane = this.#lanes.get(name) ?? { events: [], busy: false, refused: false };
    this.#lanes.set(name, lane);
    if (isFull(lane)) {
      lane.refused = true;
    } else {
      lane.events.push(event);
      this.#size += 1;
    }
  }

  /** The first of the lane that has waited longest and is not busy. */
  next(): WaitingEvent | null {
    for (const { events, busy } of this.#lanes.values()) if (!busy) return events[0]!;
    return null;
  }

  /** It is being handled. */
  begin(event: WaitingEvent): void {
    this.#lanes.get(nameOf(event))!.busy = true;
  }

  /** It is not handled after all. */
  putBack(event: WaitingEvent): void {
    this.#lanes.get(nameOf(event))!.busy = false;
  }

  /** It is done with. Returns whether to look for more of its key. */
  end(event: WaitingEvent): boolean {
    const name = nameOf(event);
    const lane = this.#lanes.get(name)!;
    lane.busy = false;
    lane.events.shift();
    this.#size -= 1;
    // To the end, so that lanes take turns.
    this.#lanes.delete(name);
    if (lane.events.length > 0) this.#lanes.set(name, lane);
    // Not for each that ends: half a lane is fetched at one time.
    if (!lane.refused || lane.events.length > EVENTS_OF_KEY_IN_HAND_MAX / 2) return false;
    lane.refused = false;
    return true;
  }

  /** Neither it nor what follows it in its lane is handled for now. */
  hold(event: WaitingEvent): void {
    const name = nameOf(event);
    this.#epoch += 1;
    this.#size -= this.#lanes.get(name)?.events.length ?? 0;
    this.#lanes.delete(name);
    this.#held.set(name, event);
  }

  /** It can be added again. */
  release(event: WaitingEvent): void {
    this.#epoch += 1;
    this.#held.delete(nameOf(event));
  }

  /** All but those that are being handled. */
  clear(): void {
    this.#epoch += 1;
    for (const [name, lane] of [...this.#lanes]) {
      const kept = lane.busy ? 1 : 0;
      if (lane.events.length > kept) lane.refused = true;
      this.#size -= lane.events.length - kept;
      lane.events.length = kept;
      if (kept === 0) this.#lanes.delete(name);
    }
  }
}

function isFull({ events, refused }: Lane): boolean {
  return refused || events.length >= EVENTS_OF_KEY_IN_HAND_MAX;
}

function nameOf({ key, event }: WaitingEvent): string {
  return key === null ? `#${event}` : `=${key}`;
}
