// Which workers provide which service now, and the brokering of direct ports between consumers and them. Must not know what a service does.
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { BulkheadError, toPlainError } from '../../protocol/errors.js';
import type { KernelToHostFrame } from '../../protocol/frames.js';
import { SERVICES_KNOWN_MAX, SERVICE_WISHES_MAX } from '../../protocol/service-limits.js';
import { Claims } from './claims.js';

/** One generation as a party to services and events. */
export interface Party {
  readonly plugin: string;
  /** Whether it has declared that it uses this service. */
  readonly declares: (service: string) => boolean;
  /** Returns false when its worker has ended; ports that were to move are closed then. */
  readonly send: (frame: KernelToHostFrame, transfer?: readonly MessagePort[]) => boolean;
}

/** A consumer that waits for a provider to come back. */
interface Wish {
  readonly consumer: Party;
  readonly ref: number;
}

export class ServiceRegistry {
  readonly claims = new Claims();
  /** The workers that provide it, the one that is asked next first. */
  readonly #providers = new Map<string, readonly Party[]>();
  /** Every name that was ever provided: the difference between "down" and "does not exist". */
  readonly #known = new Set<string>();
  /** Plugins that will be back in a moment. */
  readonly #expected = new Set<string>();
  readonly #wishes = new Map<string, Wish[]>();

  /** Services that are provided now. */
  get size(): number {
    return this.#providers.size;
  }

  /** Whether it is provided now. */
  has(service: string): boolean {
    return this.#providers.has(service);
  }

  /** Whether its provider will be back in a moment. */
  isExpected(service: string): boolean {
    const owner = this.claims.ownerOf(service);
    return owner !== null && this.#expected.has(owner);
  }

  /** The names that this worker provides. */
  namesOf(party: Party): string[] {
    return [...this.#providers].filter(([, providers]) => providers.includes(party)).map(([name]) => name);
  }

  /** A worker provides all that its plugin has claimed, perhaps beside others. */
  open(party: Party): void {
    for (const service of this.claims.of(party.plugin)) {
      const present = this.#providers.get(service) ?? [];
      if (!present.includes(party)) this.#providers.set(service, [...present, party]);
      this.#remember(service);
      this.#grant(service);
    }
  }

  /** The worker stops, and provides nothing more; calls that it has begun go on until its thread ends. */
  close(party: Party): void {
    this.#remove(party);
    this.#refuseLost();
  }

  /** Nobody who waits for what is not coming back is left without an answer. */
  #refuseLost(): void {
    for (const service of [...this.#wishes.keys()]) if (!this.has(service) && !this.isExpected(service)) this.#grant(service);
  }

  #remove(party: Party): void {
    for (const service of this.namesOf(party)) {
      const others = this.#providers.get(service)!.filter((provider) => provider !== party);
      if (others.length === 0) this.#providers.delete(service);
      else this.#providers.set(service, others);
    }
  }

  /** The generation is over: what it provided and what it waited for is gone. Its ports close with its thread. */
  revoke(party: Party): void {
    this.#remove(party);
    for (const [service, wishes] of this.#wishes) this.#keep(service, wishes.filter(({ consumer }) => consumer !== party));
    for (const service of [...this.#wishes.keys()]) if (this.has(service)) this.#grant(service);
  }

  /** Whether this plugin will be back in a moment, so that calls wait for it. */
  expect(plugin: string, expected: boolean): void {
    if (expected) {
      this.#expected.add(plugin);
      return;
    }
    this.#expected.delete(plugin);
    this.#refuseLost();
  }

  /** Answers a consumer's wish for a port, at once or when the provider is back; the kernel is not on the path of the calls that follow. Throws beyond SERVICE_WISHES_MAX. */
  connect(consumer: Party, ref: number, service: string): void {
    if (!consumer.declares(service)) return this.#refuse(consumer, ref, new BulkheadError('SERVICE_FORBIDDEN', { name: consumer.plugin, service }));
    if (this.#offer(consumer, ref, service)) return;
    // A provider that cannot be reached is about to be known as dead, and then whether it comes back.
    if (this.has(service) || this.isExpected(service)) {
      const wishes = this.#wishes.get(service) ?? [];
      if (wishes.filter((wish) => wish.consumer === consumer).length >= SERVICE_WISHES_MAX) throw new RangeError(`it waits for more than ${SERVICE_WISHES_MAX} ports`);
      return this.#keep(service, [...wishes, { consumer, ref }]);
    }
    this.#refuse(consumer, ref, this.claims.ownerOf(service) !== null || this.#known.has(service)
      ? new BulkheadError('SERVICE_UNAVAILABLE', { service, reason: 'its plugin is not running' })
      : new BulkheadError('SERVICE_UNKNOWN', { service }));
  }

  #offer(consumer: Party, ref: number, service: string): boolean {
    for (const provider of this.#providers.get(service) ?? []) {
      const { port1, port2 } = new MessageChannel();
      // The end of a worker may be seen at its channel before it is known as a death, and the service with it.
      if (!provider.send({ kind: 'service-accept', service, port: port1 }, [port1])) continue;
      // The next consumer asks another worker of the plugin, when there are several.
      this.#providers.set(service, [...this.#providers.get(service)!.filter((other) => other !== provider), provider]);
      const idempotent = Object.entries(this.claims.contractOf(service) ?? {}).flatMap(([method, contract]) => (contract.idempotent ? [method] : []));
      consumer.send({ kind: 'service-opened', ref, port: port2, idempotent }, [port2]);
      return true;
    }
    return false;
  }

  #refuse(consumer: Party, ref: number, error: BulkheadError): void {
    consumer.send({ kind: 'service-opened', ref, error: toPlainError(error) });
  }

  /** Answers all who wait for it. */
  #grant(service: string): void {
    const wishes = this.#wishes.get(service) ?? [];
    this.#wishes.delete(service);
    for (const { consumer, ref } of wishes) this.connect(consumer, ref, service);
  }

  #keep(service: string, wishes: Wish[]): void {
    if (wishes.length === 0) this.#wishes.delete(service);
    else this.#wishes.set(service, wishes);
  }

  #remember(service: string): void {
    this.#known.delete(service);
    this.#known.add(service);
    const [oldest] = this.#known;
    if (this.#known.size > SERVICES_KNOWN_MAX && oldest !== undefined) this.#known.delete(oldest);
  }
}
