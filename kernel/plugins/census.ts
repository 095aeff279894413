// What the kernel holds for its plugins at one moment, as numbers: the one place that tells whether a death has left anything behind. Must not know why it is held.
import type { Ship } from './compartment.js';
import type { Berths } from './berths.js';
import type { Lifecycle } from './lifecycle.js';
import type { Standby } from './standby.js';

export interface Census {
  /** Requests in flight, queued, or waiting for their plugin to come back. */
  readonly requests: number;
  /** PostgreSQL connections that are lent, or being cleaned after that. */
  readonly connections: number;
  readonly services: number;
  /** Pairs of a generation and a topic. */
  readonly subscriptions: number;
  /** Generations that the watchdog looks at. */
  readonly watched: number;
  /** Worker threads, those that wait for a plugin and those that are on their way out included. */
  readonly workers: number;
  /** Of those, the ones that are booted and wait for a plugin. */
  readonly standbys: number;
  /** Folders that workers live in. */
  readonly berths: number;
}

export function takeCensus(ship: Ship, lives: readonly Lifecycle[], standby: Standby, berths: Berths): Census {
  const { total, idle } = ship.database.stats;
  return {
    requests: lives.map(({ status: { requests } }) => requests.inFlight + requests.queued + requests.waiting).reduce((sum, count) => sum + count, 0),
    connections: total - idle,
    services: ship.services.size,
    subscriptions: ship.events.size,
    watched: ship.watchdog.size,
    workers: standby.launched,
    standbys: standby.waiting,
    berths: berths.count,
  };
}
