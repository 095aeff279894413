// Brings the stored events of one durable subscription to the workers of its plugin, each until it is handled or given up. Must not know how events are stored or published.
import type { Logger } from 'pino';
import { ownedBytes } from '../../protocol/flow.js';
import { EVENT_HANDLER_TIMEOUT_MS, EVENT_KEYS_HELD_MAX, EVENTS_IN_HAND_MAX, EVENTS_OWNED_MS, EVENTS_OWNED_RENEWAL_MS } from '../../protocol/event-limits.js';
import { backOffMs } from '../back-off.js';
import type { EventStore, WaitingEvent } from '../database/event-store.js';
import { Crew, type Flight } from './crew.js';
import type { EventParty } from './event-party.js';
import { Lanes } from './lanes.js';

export interface DeliveryOptions {
  readonly plugin: string;
  readonly pattern: string;
  readonly store: EventStore;
  /** Of this kernel, against others on the same database. */
  readonly owner: string;
  readonly nextRef: () => number;
  readonly log: Pick<Logger, 'warn' | 'error'>;
}

interface Failure {
  readonly event: WaitingEvent;
  readonly attempts: number;
  readonly error: string;
  /** Until the next attempt; null when there is none. */
  readonly delayMs: number | null;
}

export class DurableDelivery {
  /** Of the subscription, once it is recorded. */
  id: string | null = null;
  readonly #options: DeliveryOptions;
  readonly #crew = new Crew();
  readonly #lanes = new Lanes();
  readonly #suspects = new Set<string>();
  #attempts = 1;
  /** What has become of events and is not recorded yet. */
  readonly #done: string[] = [];
  readonly #failed: Failure[] = [];
  /** There may be events that are not in hand. */
  #more = true;
  #paused = false;
  #working: Promise<void> | null = null;
  #again = false;
  #setbacks = 0;
  #later: NodeJS.Timeout | undefined;
  #renewal: NodeJS.Timeout | null = null;

  constructor(options: DeliveryOptions) {
    this.#options = options;
  }

  get plugin(): string {
    return this.#options.plugin;
  }

  get pattern(): string {
    return this.#options.pattern;
  }

  /** Whether nobody handles its events and all that became of them is recorded. */
  get idle(): boolean {
    return this.#crew.size === 0 && this.#crew.flying === 0 && this.#done.length === 0 && this.#failed.length === 0 && this.#working === null;
  }

  join(party: EventParty, attempts: number): void {
    this.#attempts = attempts;
    this.#crew.join(party);
    this.look();
  }

  /** The worker takes no further events. Resolves when those that it has are handled. */
  retire(party: EventParty): Promise<void> {
    if (this.#crew.retire(party)) this.#lanes.clear();
    return this.#crew.grounded(party);
  }

  /** The worker is gone, of `cause`; null when it was asked to. */
  leave(party: EventParty, cause: string | null): void {
    void this.retire(party);
    for (const { ref, event } of this.#crew.of(party)) {
      this.#crew.end(party, ref);
      if (cause === null) {
        this.#lanes.putBack(event);
        continue;
      }
      this.#suspects.add(event.event);
      this.#fail(event, `its worker ended: ${cause}`);
    }
    if (this.#crew.size === 0) this.#lanes.clear();
    this.#proceed();
  }

  handled(party: EventParty, ref: number, refused: boolean, error: string | null): void {
    const flight = this.#crew.end(party, ref);
    if (flight === undefined) return;
    if (refused) {
      this.#lanes.putBack(flight.event);
      void this.retire(party);
    } else if (error !== null) this.#fail(flight.event, error);
    else this.#succeed(flight);
    this.#proceed();
  }

  /** Something was stored for it, or may have been. */
  look(): void {
    this.#more = true;
    this.#wake();
  }

  /** Hands nothing on any more. */
  pause(): void {
    this.#paused = true;
  }

  /** Resolves when what became of its events is recorded, or cannot be. */
  async settled(): Promise<void> {
    this.#wake();
    while (this.#working !== null) await this.#working;
  }

  #succeed({ event, party }: Flight): void {
    party.counts.delivered += 1;
    this.#suspects.delete(event.event);
    this.#done.push(event.event);
    if (this.#lanes.end(event)) this.#more = true;
  }

  #fail(event: WaitingEvent, error: string): void {
    const attempts = event.attempts + 1;
    if (attempts >= this.#attempts) {
      this.#failed.push({ event, attempts, error, delayMs: null });
      this.#suspects.delete(event.event);
      if (this.#lanes.end(event)) this.#more = true;
      const { topic, key, event: id } = event;
      return this.#options.log.error({ plugin: this.plugin, topic, event: id, key, attempts, reason: error }, `an event of "${topic}" could not be handled and is a dead letter now`);
    }
    const delayMs = backOffMs(attempts);
    this.#failed.push({ event, attempts, error, delayMs });
    this.#hold(event, delayMs);
  }

  #hold(event: WaitingEvent, delayMs: number): void {
    this.#lanes.hold(event);
    setTimeout(() => {
      this.#lanes.release(event);
      this.look();
    }, delayMs).unref();
  }

  /** An event has landed: there is room for the next, and something to record. */
  #proceed(): void {
    this.#handOut();
    this.#wake();
  }

  #wake(): void {
    this.#again = true;
    this.#working ??= this.#work().finally(() => {
      this.#working = null;
      // Somebody has come while it was ending.
      if (this.#again && this.#setbacks === 0 && this.id !== null) this.#wake();
    });
  }

  async #work(): Promise<void> {
    try {
      while (this.#again && this.id !== null) {
        this.#again = false;
        await this.#record(this.id);
        await this.#fetch(this.id);
        this.#handOut();
      }
      this.#setbacks = 0;
    } catch (error) {
      // An outage is told once, and by who keeps the connections.
      if (this.#setbacks === 0) this.#options.log.warn({ plugin: this.plugin, pattern: this.pattern, reason: (error as Error).message }, 'durable events cannot be delivered now; another attempt follows');
      this.#lookLater(backOffMs(this.#setbacks += 1));
    }
  }

  async #record(id: string): Promise<void> {
    const { store } = this.#options;
    while (this.#done.length > 0 || this.#failed.length > 0) {
      const done = this.#done.length;
      if (done > 0) await store.remove(id, this.#done.slice(0, done));
      this.#done.splice(0, done);
      const [failure] = this.#failed;
      if (failure === undefined) continue;
      const { event: { event }, attempts, error, delayMs } = failure;
      if (delayMs === null) await store.bury(id, this.plugin, event, attempts, error);
      else await store.postpone(id, event, attempts, error, delayMs);
      this.#failed.shift();
    }
  }

  async #fetch(id: string): Promise<void> {
    if (!this.#more || this.#paused || this.#crew.size === 0 || this.#lanes.size > EVENTS_IN_HAND_MAX / 2 || this.#lanes.held >= EVENT_KEYS_HELD_MAX) return;
    this.#more = false;
    const limit = EVENTS_IN_HAND_MAX - this.#lanes.size;
    const { epoch } = this.#lanes;
    const { events, keys } = this.#lanes.except;
    const waiting = await this.#options.store.waiting(id, this.#options.owner, { events: [...events, ...this.#done], keys }, limit);
    // Another kernel has it, and may end.
    if (waiting === null) return this.#lookLater(EVENTS_OWNED_MS);
    if (this.#crew.size === 0) return;
    // What has failed meanwhile was not asked for, and what follows it must not overtake it.
    if (epoch !== this.#lanes.epoch) {
      this.#more = this.#again = true;
      return;
    }
    for (const event of waiting) {
      // What waits behind an older one of its key is due when that is done.
      if (event.dueInMs > 0 && !this.#lanes.has(event)) this.#hold(event, event.dueInMs);
      else this.#lanes.add(event);
    }
    if (waiting.length === limit) this.#more = this.#again = true;
  }

  #lookLater(delayMs: number): void {
    clearTimeout(this.#later);
    this.#later = setTimeout(() => this.look(), delayMs).unref();
  }

  #handOut(): void {
    for (let event = this.#lanes.next(); event !== null && !this.#paused; event = this.#lanes.next()) {
      const suspect = this.#suspects.has(event.event);
      // A suspect at the head lets the workers become free.
      const party = this.#crew.freeFor(suspect);
      if (party === null) break;
      this.#give(party, event, suspect);
    }
    this.#renew();
  }

  #give(party: EventParty, event: WaitingEvent, suspect: boolean): void {
    const ref = this.#options.nextRef();
    const { topic, publisher, at, event: id, key, attempts } = event;
    // What comes from the database lies in memory that is the kernel's.
    const payload = ownedBytes(event.payload);
    const sent = party.send({ kind: 'durable-event', ref, pattern: this.pattern, topic, publisher, payload, at, id, key, attempt: attempts + 1 });
    // Its end will soon be known.
    if (!sent) return void this.retire(party);
    this.#lanes.begin(event);
    const timer = setTimeout(() => this.handled(party, ref, false, `its handler took longer than ${EVENT_HANDLER_TIMEOUT_MS} ms`), EVENT_HANDLER_TIMEOUT_MS).unref();
    this.#crew.begin({ ref, party, event, suspect, timer });
  }

  /** While events are under way, no other kernel takes it for abandoned. */
  #renew(): void {
    if (this.#crew.flying === 0 && this.#renewal !== null) {
      clearInterval(this.#renewal);
      this.#renewal = null;
    } else if (this.#crew.flying > 0) {
      this.#renewal ??= setInterval(() => void this.#options.store.own(this.id!, this.#options.owner).catch(() => {}), EVENTS_OWNED_RENEWAL_MS).unref();
    }
  }
}
