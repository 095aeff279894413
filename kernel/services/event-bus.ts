// Who hears of which topic at most once; passes payloads on unread. Must not know what an event means, or how much a subscriber can take.
import { EVENT_WILDCARDS_MAX } from '../../protocol/event-limits.js';
import type { EventFrame } from '../../protocol/event-frames.js';
import { TOPICS_MAX } from '../../protocol/limits.js';
import { hears, isWildcard, segmentsOf } from '../../protocol/topics.js';

/** One generation as a subscriber. */
export interface Hearer {
  /** Never waits: what it cannot take is lost for it. */
  hear(event: EventFrame): void;
}

interface Wildcard {
  readonly segments: readonly string[];
  readonly hearers: Set<Hearer>;
}

export class EventBus {
  /** By topic, and by pattern with a wildcard. */
  readonly #exact = new Map<string, Set<Hearer>>();
  readonly #wildcards = new Map<string, Wildcard>();
  readonly #patterns = new Map<Hearer, Set<string>>();

  /** Subscriptions of all hearers. */
  get size(): number {
    return [...this.#patterns.values()].reduce((sum, patterns) => sum + patterns.size, 0);
  }

  /** Throws beyond TOPICS_MAX and EVENT_WILDCARDS_MAX. */
  subscribe(hearer: Hearer, pattern: string): void {
    const patterns = this.#patterns.get(hearer) ?? new Set();
    if (patterns.size >= TOPICS_MAX) throw new RangeError(`it has subscribed to ${TOPICS_MAX} topics already`);
    if (isWildcard(pattern) && [...patterns].filter(isWildcard).length >= EVENT_WILDCARDS_MAX) throw new RangeError(`it has subscribed to ${EVENT_WILDCARDS_MAX} patterns with wildcards already`);
    this.#patterns.set(hearer, patterns.add(pattern));
    this.#hearersOf(pattern).add(hearer);
  }

  unsubscribe(hearer: Hearer, pattern: string): void {
    const hearers = this.#exact.get(pattern) ?? this.#wildcards.get(pattern)?.hearers;
    if (hearers?.delete(hearer) === true && hearers.size === 0) {
      this.#exact.delete(pattern);
      this.#wildcards.delete(pattern);
    }
    const patterns = this.#patterns.get(hearer);
    if (patterns?.delete(pattern) === true && patterns.size === 0) this.#patterns.delete(hearer);
  }

  /** To each subscriber once, however many of its patterns hear it; to the publisher as well when it has subscribed. */
  publish(event: EventFrame): void {
    for (const hearer of this.#hearersFor(event.topic)) hearer.hear(event);
  }

  /** Whether anybody would hear it. */
  isHeard(topic: string): boolean {
    return this.#hearersFor(topic).size > 0;
  }

  /** The generation is over: it hears nothing more. */
  drop(hearer: Hearer): void {
    for (const pattern of [...(this.#patterns.get(hearer) ?? [])]) this.unsubscribe(hearer, pattern);
  }

  #hearersOf(pattern: string): Set<Hearer> {
    const known = this.#exact.get(pattern) ?? this.#wildcards.get(pattern)?.hearers;
    if (known !== undefined) return known;
    const hearers = new Set<Hearer>();
    if (isWildcard(pattern)) this.#wildcards.set(pattern, { segments: segmentsOf(pattern), hearers });
    else this.#exact.set(pattern, hearers);
    return hearers;
  }

  #hearersFor(topic: string): ReadonlySet<Hearer> {
    const exact = this.#exact.get(topic) ?? NOBODY;
    if (this.#wildcards.size === 0) return exact;
    const segments = segmentsOf(topic);
    const all = new Set(exact);
    for (const wildcard of this.#wildcards.values()) {
      if (hears(wildcard.segments, segments)) for (const hearer of wildcard.hearers) all.add(hearer);
    }
    return all;
  }
}

const NOBODY: ReadonlySet<Hearer> = new Set();
