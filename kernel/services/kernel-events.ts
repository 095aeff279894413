// What the kernel itself publishes. Must not know who hears it.
import { serialize } from 'node:v8';
import { ownedBytes } from '../../protocol/flow.js';
import type { Transition } from '../../protocol/lifecycle.js';
import type { EventBus } from './event-bus.js';

/** As `kernel.plugin.<the new state>`. */
export function publishTransition(bus: EventBus, transition: Transition): void {
  const topic = `kernel.plugin.${transition.to}`;
  if (bus.isHeard(topic)) bus.publish({ kind: 'event', topic, payload: ownedBytes(serialize(transition)), publisher: 'kernel', at: transition.at });
}
