// Who hears of which topic; passes payloads on unread. Must not know what an event means.
import type { PublishFrame } from '../../protocol/frames.js';
import { SERVICE_NAME_MAX_CHARACTERS, TOPICS_MAX } from '../../protocol/limits.js';
import type { Party } from './registry.js';

export class EventBus {
  readonly #subscribers = new Map<string, Set<Party>>();
  readonly #topics = new Map<Party, Set<string>>();

  /** Subscriptions of all parties. */
  get size(): number {
    return [...this.#subscribers.values()].reduce((sum, parties) => sum + parties.size, 0);
  }

  /** Throws beyond TOPICS_MAX. */
  subscribe(party: Party, topic: string): void {
    if (topic.length > SERVICE_NAME_MAX_CHARACTERS) throw new RangeError(`the name of a topic has more than ${SERVICE_NAME_MAX_CHARACTERS} characters`);
    const topics = this.#topics.get(party) ?? new Set();
    if (topics.size >= TOPICS_MAX) throw new RangeError(`it has subscribed to ${TOPICS_MAX} topics already`);
    this.#topics.set(party, topics.add(topic));
    const parties = this.#subscribers.get(topic);
    if (parties === undefined) this.#subscribers.set(topic, new Set([party]));
    else parties.add(party);
  }

  unsubscribe(party: Party, topic: string): void {
    const parties = this.#subscribers.get(topic);
    if (parties?.delete(party) === true && parties.size === 0) this.#subscribers.delete(topic);
    this.#topics.get(party)?.delete(topic);
  }

  /** The publisher hears its own events as well when it has subscribed to them. */
  publish(publisher: Party, { topic, payload }: PublishFrame): void {
    for (const party of this.#subscribers.get(topic) ?? []) party.send({ kind: 'event', topic, payload, publisher: publisher.plugin });
  }

  /** The generation is over: it hears nothing more. */
  drop(party: Party): void {
    for (const topic of [...(this.#topics.get(party) ?? [])]) this.unsubscribe(party, topic);
    this.#topics.delete(party);
  }
}
