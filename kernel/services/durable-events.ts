// Durable events of all plugins: records subscriptions, stores what is published in its order, wakes those who deliver it. Must not know workers' frames or handlers.
import { randomUUID } from 'node:crypto';
import type { Logger } from 'pino';
import { DURABLE_SUBSCRIPTIONS_MAX, EVENTS_LOOK_INTERVAL_MS, EVENTS_STORED_AT_ONCE_MAX, EVENTS_STORED_AT_ONCE_MAX_BYTES } from '../../protocol/event-limits.js';
import { BulkheadError } from '../../protocol/errors.js';
import { backOffMs } from '../back-off.js';
import { EventStore, storeError, type DeadLetter, type NewEvent } from '../database/event-store.js';
import type { Database } from '../database/pool.js';
import { DurableDelivery } from './durable-delivery.js';
import type { EventParty } from './event-party.js';

/** Work for the database that somebody waits for. */
interface Order {
  /** Who hears of a failure. */
  readonly plugin: string;
  resolve(): void;
  reject(error: Error): void;
}
interface StoreOrder extends Order { readonly event: NewEvent }
interface ForgetOrder extends Order { readonly pattern: string }

export interface DurableEventsOptions {
  readonly database: Database;
  readonly log: Pick<Logger, 'warn' | 'error'>;
}

export class DurableEvents {
  readonly #options: DurableEventsOptions;
  readonly #store: EventStore;
  readonly #owner = randomUUID();
  readonly #deliveries = new Map<string, DurableDelivery>();
  /** Those that are not recorded yet. */
  readonly #unrecorded = new Set<DurableDelivery>();
  #forgets: ForgetOrder[] = [];
  #stores: StoreOrder[] = [];
  #lastRef = 0;
  #working: Promise<void> | null = null;
  #setbacks = 0;
  #paused = false;
  #closed = false;
  readonly #endWatch: () => void;
  readonly #look: NodeJS.Timeout;

  constructor(options: DurableEventsOptions) {
    this.#options = options;
    this.#store = new EventStore(options.database);
    // Of what another kernel has stored nobody tells, nor of what was stored though the answer never came.
    this.#look = setInterval(() => { for (const delivery of this.#deliveries.values()) delivery.look(); }, EVENTS_LOOK_INTERVAL_MS).unref();
    this.#endWatch = options.database.onBack(() => {
      if (this.#unrecorded.size > 0) this.#wake();
      for (const delivery of this.#deliveries.values()) delivery.look();
    });
  }

  /** Throws beyond DURABLE_SUBSCRIPTIONS_MAX. What is stored from now on is delivered: it is recorded before that, whenever the database is there. */
  subscribe(party: EventParty, pattern: string, attempts: number): void {
    const of = [...this.#deliveries.values()].filter(({ plugin }) => plugin === party.plugin);
    const delivery = of.find((one) => one.pattern === pattern) ?? this.#newDelivery(party.plugin, pattern, of.length);
    delivery.join(party, attempts);
    if (this.#paused) delivery.pause();
  }

  /** The worker hears no more of it; events are kept for the next one that does. */
  unsubscribe(party: EventParty, pattern: string): void {
    void this.#deliveries.get(nameOf(party.plugin, pattern))?.retire(party);
  }

  /** Resolves when it is stored for all that have subscribed. Rejects with `EVENTS_BACKLOG`, or as `storeError` says. */
  store(event: NewEvent): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#stores.push({ event, plugin: event.publisher, resolve, reject });
      this.#wake();
    });
  }

  /** Removes the subscription of the whole plugin, and what waits for it. */
  forget(plugin: string, pattern: string): Promise<void> {
    if (this.#forgets.filter((order) => order.plugin === plugin).length >= DURABLE_SUBSCRIPTIONS_MAX) return Promise.reject(new BulkheadError('DATABASE_BUSY', { reason: `${DURABLE_SUBSCRIPTIONS_MAX} subscriptions of this plugin are being forgotten already` }, { retryAfterSeconds: 1 }));
    const delivery = this.#deliveries.get(nameOf(plugin, pattern));
    if (delivery !== undefined) this.#unrecorded.delete(delivery);
    this.#deliveries.delete(nameOf(plugin, pattern));
    return new Promise((resolve, reject) => {
      this.#forgets.push({ plugin, pattern, resolve, reject });
      this.#wake();
    });
  }

  handled(party: EventParty, ref: number, refused: boolean, error: string | null): void {
    for (const delivery of this.#of(party.plugin)) delivery.handled(party, ref, refused, error);
  }

  /** The worker gets nothing more. Resolves when it has handled what it has. */
  async drained(party: EventParty): Promise<void> {
    await Promise.all(this.#of(party.plugin).map((delivery) => delivery.retire(party)));
  }

  /** The worker is gone, of `cause`; null when it was asked to. */
  leave(party: EventParty, cause: string | null): void {
    for (const delivery of this.#of(party.plugin)) {
      delivery.leave(party, cause);
      if (delivery.idle && !this.#unrecorded.has(delivery)) this.#deliveries.delete(nameOf(delivery.plugin, delivery.pattern));
    }
  }

  /** The newest first. Rejects as `storeError` says, and so does `revive`. */
  deadLetters(plugin: string): Promise<DeadLetter[]> {
    return this.#store.deadLetters(plugin).catch((error: unknown) => { throw storeError(plugin, error); });
  }

  /** Puts dead letters of the plugin back among what waits for it. Resolves to how many. */
  async revive(plugin: string): Promise<number> {
    const subscriptions = await this.#store.revive(plugin).catch((error: unknown) => { throw storeError(plugin, error); });
    this.#notice(subscriptions);
    return subscriptions.length;
  }

  /** Hands nothing on any more; stores still. */
  pause(): void {
    this.#paused = true;
    for (const delivery of this.#deliveries.values()) delivery.pause();
  }

  /** Resolves when all that became of events is recorded, or cannot be. */
  async close(): Promise<void> {
    this.pause();
    this.#endWatch();
    clearInterval(this.#look);
    await this.#working;
    this.#closed = true;
    const deliveries = [...this.#deliveries.values()];
    await Promise.all(deliveries.map((delivery) => delivery.settled()));
    if (deliveries.length > 0) await this.#store.disown(this.#owner).catch(() => {});
  }

  #of(plugin: string): DurableDelivery[] {
    return [...this.#deliveries.values()].filter((delivery) => delivery.plugin === plugin);
  }

  #newDelivery(plugin: string, pattern: string, others: number): DurableDelivery {
    if (others >= DURABLE_SUBSCRIPTIONS_MAX) throw new RangeError(`it has ${DURABLE_SUBSCRIPTIONS_MAX} durable subscriptions already`);
    const delivery = new DurableDelivery({ plugin, pattern, store: this.#store, owner: this.#owner, nextRef: () => (this.#lastRef += 1), log: this.#options.log });
    this.#deliveries.set(nameOf(plugin, pattern), delivery);
    this.#unrecorded.add(delivery);
    this.#wake();
    return delivery;
  }

  #wake(): void {
    if (this.#closed) return;
    this.#working ??= this.#work().finally(() => {
      this.#working = null;
      if (this.#setbacks === 0 && this.#hasWork) this.#wake();
    });
  }

  get #hasWork(): boolean {
    return this.#forgets.length > 0 || this.#unrecorded.size > 0 || this.#stores.length > 0;
  }

  /** One thing after the other, so that what was published later is stored later. */
  async #work(): Promise<void> {
    await Promise.resolve(); // what comes in this turn goes together
    try {
      while (this.#hasWork) {
        await this.#forgetOne();
        for (const delivery of [...this.#unrecorded]) await this.#record(delivery);
        await this.#storeSome();
      }
      this.#setbacks = 0;
    } catch (error) {
      // Events that were stored now would be missed by who could not be recorded before.
      for (const order of [...this.#forgets.splice(0), ...this.#stores.splice(0)]) order.reject(storeError(order.plugin, error));
      this.#setBack(error);
    }
  }

  async #forgetOne(): Promise<void> {
    const [order] = this.#forgets;
    if (order === undefined) return;
    await this.#store.forget(order.plugin, order.pattern);
    this.#forgets.shift();
    order.resolve();
  }

  async #record(delivery: DurableDelivery): Promise<void> {
    const { plugin, pattern } = delivery;
    const id = await this.#store.subscribe(plugin, pattern);
    this.#unrecorded.delete(delivery);
    if (id === null) return this.#options.log.error({ plugin, pattern }, `the durable subscription was not recorded: the plugin has ${DURABLE_SUBSCRIPTIONS_MAX} of them, also from earlier versions; let it forget some`);
    delivery.id = id;
    delivery.look();
  }

  async #storeSome(): Promise<void> {
    let bytes = 0;
    const fitting = this.#stores.slice(0, EVENTS_STORED_AT_ONCE_MAX).findIndex(({ event }) => (bytes += event.payload.byteLength) > EVENTS_STORED_AT_ONCE_MAX_BYTES);
    const orders = this.#stores.slice(0, fitting === -1 ? EVENTS_STORED_AT_ONCE_MAX : fitting);
    if (orders.length === 0) return;
    const { refused, subscriptions } = await this.#store.store(orders.map(({ event }) => event));
    this.#stores.splice(0, orders.length);
    for (const { n, subscriber, waiting } of refused) orders[n - 1]!.reject(new BulkheadError('EVENTS_BACKLOG', { topic: orders[n - 1]!.event.topic, subscriber, waiting }));
    for (const order of orders) order.resolve();
    this.#notice(subscriptions);
  }

  #notice(subscriptions: readonly string[]): void {
    for (const delivery of this.#deliveries.values()) if (delivery.id !== null && subscriptions.includes(delivery.id)) delivery.look();
  }

  #setBack(error: unknown): void {
    this.#setbacks += 1;
    const { log } = this.#options;
    if (this.#unrecorded.size === 0) {
      this.#setbacks = 0;
      return;
    }
    if (this.#setbacks === 1) log.warn({ reason: (error as Error).message }, 'durable subscriptions cannot be recorded now; another attempt follows');
    setTimeout(() => this.#wake(), backOffMs(this.#setbacks)).unref();
  }
}

function nameOf(plugin: string, pattern: string): string {
  return `${plugin} ${pattern}`;
}
