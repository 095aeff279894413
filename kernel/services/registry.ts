// Who provides which service, and the brokering of a direct port between consumer and provider. Must not know what a service does.
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { BulkheadError, toPlainError } from '../../protocol/errors.js';
import { SERVICE_NAME_MAX_CHARACTERS, SERVICES_KNOWN_MAX, SERVICES_MAX } from '../../protocol/limits.js';
import type { KernelToHostFrame } from '../../protocol/frames.js';

/** One generation as a party to services and events. */
export interface Party {
  readonly plugin: string;
  /** Returns false when its worker has ended; ports that were to move are closed then. */
  readonly send: (frame: KernelToHostFrame, transfer?: readonly MessagePort[]) => boolean;
}

export class ServiceRegistry {
  /** All of one plugin, the one that is asked next first. */
  readonly #providers = new Map<string, readonly Party[]>();
  /** Every name that was ever provided: the difference between "down" and "does not exist". */
  readonly #known = new Set<string>();

  /** For each consumer, the plugins whose services it has asked for. */
  readonly #used = new Map<Party, Set<string>>();

  /** Services that are provided now. */
  get size(): number {
    return this.#providers.size;
  }

  /** The names that this plugin's generation provides. */
  namesOf(party: Party): string[] {
    return [...this.#providers].filter(([, providers]) => providers.includes(party)).map(([name]) => name);
  }

  /** A name belongs to the first plugin that provides it, for as long as that plugin is there. Returns the owner's name if it is another. Throws beyond SERVICES_MAX, or when the name is too long. */
  provide(party: Party, service: string): string | null {
    const present = this.#providers.get(service) ?? [];
    const [{ plugin: owner } = party] = present;
    if (owner !== party.plugin) return owner;
    if (service.length > SERVICE_NAME_MAX_CHARACTERS) throw new RangeError(`the name of a service has more than ${SERVICE_NAME_MAX_CHARACTERS} characters`);
    if (present.includes(party)) return null;
    if (this.namesOf(party).length >= SERVICES_MAX) throw new RangeError(`it provides ${SERVICES_MAX} services already`);
    this.#providers.set(service, [...present, party]);
    this.#remember(service);
    return null;
  }

  #remember(service: string): void {
    this.#known.delete(service);
    this.#known.add(service);
    const [oldest] = this.#known;
    if (this.#known.size > SERVICES_KNOWN_MAX && oldest !== undefined) this.#known.delete(oldest);
  }

  /** Answers a consumer's wish for a port; the kernel is not on the path of the calls that follow. */
  connect(consumer: Party, ref: number, service: string): void {
    for (const provider of this.#providers.get(service) ?? []) {
      const { port1, port2 } = new MessageChannel();
      // The end of a worker may be seen at its channel before it is known as a death, and the service with it.
      if (!provider.send({ kind: 'service-accept', service, port: port1 }, [port1])) continue;
      // The next consumer asks another worker of the plugin, when there are several.
      this.#providers.set(service, [...this.#providers.get(service)!.filter((other) => other !== provider), provider]);
      this.#used.set(consumer, (this.#used.get(consumer) ?? new Set()).add(provider.plugin));
      consumer.send({ kind: 'service-opened', ref, port: port2 }, [port2]);
      return;
    }
    const error = this.#known.has(service)
      ? new BulkheadError('SERVICE_UNAVAILABLE', { service, reason: 'its plugin is not running' })
      : new BulkheadError('SERVICE_UNKNOWN', { service });
    consumer.send({ kind: 'service-opened', ref, error: toPlainError(error) });
  }

  /** Whether the one has called a service of the other. */
  uses(consumer: string, provider: string): boolean {
    return [...this.#used].some(([party, providers]) => party.plugin === consumer && providers.has(provider));
  }

  /** The generation is over: what it provided is gone. Its ports close with its thread. */
  revoke(party: Party): void {
    for (const service of this.namesOf(party)) {
      const others = this.#providers.get(service)!.filter((provider) => provider !== party);
      if (others.length === 0) this.#providers.delete(service);
      else this.#providers.set(service, others);
    }
    this.#used.delete(party);
  }
}
