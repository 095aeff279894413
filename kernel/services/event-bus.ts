// Who hears of which topic; passes payloads on unread. Must not know what an event means.
import type { PublishFrame } from '../../protocol/frames.js';
import type { Party } from './registry.js';

export class EventBus {
  readonly #subscribers = new Map<string, Set<Party>>();

  subscribe(party: Party, topic: string): void {
    const parties = this.#subscribers.get(topic);
    if (parties === undefined) this.#subscribers.set(topic, new Set([party]));
    else parties.add(party);
  }

  unsubscribe(party: Party, topic: string): void {
    const parties = this.#subscribers.get(topic);
    if (parties?.delete(party) === true && parties.size === 0) this.#subscribers.delete(topic);
  }

  /** The publisher hears its own events as well when it has subscribed to them. */
  publish(publisher: Party, { topic, payload }: PublishFrame): void {
    for (const party of this.#subscribers.get(topic) ?? []) party.send({ kind: 'event', topic, payload, publisher: publisher.plugin });
  }

  /** The generation is over: it hears nothing more. */
  drop(party: Party): void {
    for (const topic of [...this.#subscribers.keys()]) this.unsubscribe(party, topic);
  }
}
