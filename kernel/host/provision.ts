// The provider's end of its services: calls that come on direct ports, checked, run as tasks, answered. Must not know which plugins call.
import type { MessagePort } from 'node:worker_threads';
import type { CallFrame, ConsumerFrame, ProviderFrame } from '../../protocol/call-frames.js';
import { Channel } from '../../protocol/channel.js';
import { ITSELF, methodsOf } from '../../protocol/contracts.js';
import { toPlainError } from '../../protocol/errors.js';
import { movedWith } from '../../protocol/marks.js';
import { SERVICE_CALLS_MAX_PENDING } from '../../protocol/service-limits.js';
import type { ContractCheck } from './contract-checks.js';
import type { Task, Tasks } from './task.js';
import { isStream, OutgoingStream } from './value-streams.js';

type Callable = (...args: unknown[]) => unknown;
type ProviderChannel = Channel<ProviderFrame, ConsumerFrame>;

interface RunningCall {
  readonly task: Task | null;
  stream: OutgoingStream | null;
}

interface Provided {
  readonly service: object;
  readonly methods: ReadonlyMap<string, Callable>;
}

export class Provision {
  readonly #services: ReadonlyMap<string, Provided>;
  readonly #checks: ReadonlyMap<string, ContractCheck>;
  readonly #tasks: Tasks;
  readonly #channels = new Set<ProviderChannel>();
  #running = 0;
  #leaving = false;
  #onIdle: (() => void) | null = null;

  /** `checks` by service and method, as `name method`. */
  constructor(services: Readonly<Record<string, object>>, checks: ReadonlyMap<string, ContractCheck>, tasks: Tasks) {
    this.#services = new Map(Object.entries(services).map(([name, service]) => [name, { service, methods: methodsOf(service) as Map<string, Callable> }]));
    this.#checks = checks;
    this.#tasks = tasks;
  }

  /** Calls that run. */
  get running(): number {
    return this.#running;
  }

  /** Takes nothing more but what is on its way. Resolves when all that is done and every consumer has closed its port. */
  leave(): Promise<void> {
    this.#leaving = true;
    for (const channel of this.#channels) channel.send({ kind: 'leaving' });
    return new Promise((resolve) => {
      this.#onIdle = resolve;
      this.#lookIdle();
    });
  }

  #lookIdle(): void {
    if (this.#running === 0 && this.#channels.size === 0) this.#onIdle?.();
  }

  accept(name: string, port: MessagePort): void {
    const calls = new Map<number, RunningCall>();
    const channel: ProviderChannel = new Channel<ProviderFrame, ConsumerFrame>(port, {
      onFrame: (frame) => {
        // The other end is another plugin's, and may send anything.
        if (!Number.isSafeInteger(frame.id)) return;
        switch (frame.kind) {
          case 'call': return calls.has(frame.id) || calls.size >= SERVICE_CALLS_MAX_PENDING || !isCall(frame) ? undefined : this.#run(name, frame, channel, calls);
          case 'credit': return Number.isSafeInteger(frame.values) ? calls.get(frame.id)?.stream?.grant(frame.values) : undefined;
          case 'cancel': return giveUp(calls.get(frame.id), 'nobody waits for its result any more');
        }
      },
      onUnsendable: (frame, error) => {
        if (!('id' in frame)) return;
        calls.get(frame.id)?.stream?.close();
        channel.send({ kind: 'error', id: frame.id, error: toPlainError(error) });
      },
      onClose: () => {
        this.#channels.delete(channel);
        for (const call of calls.values()) giveUp(call, 'the plugin that has made it went away');
        this.#lookIdle();
      },
    });
    this.#channels.add(channel);
    channel.send({ kind: 'accepted' });
    // The kernel has sent this port before it knew.
    if (this.#leaving) channel.send({ kind: 'leaving' });
  }

  #run(name: string, frame: CallFrame, channel: ProviderChannel, calls: Map<number, RunningCall>): void {
    const { id } = frame;
    const call: RunningCall = { task: this.#tasks.begin(frame.remainingMs), stream: null };
    calls.set(id, call);
    this.#running += 1;
    const over = (answer: ProviderFrame | null, moved?: readonly ArrayBuffer[]): void => {
      calls.delete(id);
      if (answer !== null) channel.send(answer, moved !== undefined && moved.length > 0 ? moved : undefined);
      this.#running -= 1;
      this.#lookIdle();
    };
    const failed = (error: unknown): void => over({ kind: 'error', id, error: toPlainError(error) });
    const check = this.#checks.get(`${name} ${frame.method}`);
    this.#tasks.run(call.task, () => this.#invoke(name, frame, call.task, check)).then((value) => {
      if (!isStream(value)) {
        check?.result(value);
        return over({ kind: 'result', id, value }, movedWith(value));
      }
      call.stream = new OutgoingStream(value);
      call.task?.freeOfDeadline();
      channel.send({ kind: 'stream', id });
      if (call.task?.cancelled === true || channel.closed) call.stream.close();
      return this.#tasks.run(call.task, () => call.stream!.pump((one) => {
        check?.result(one);
        channel.send({ kind: 'value', id, value: one }, movedWith(one));
      })).then(() => over({ kind: 'end', id }));
    }).catch(failed);
  }

  async #invoke(name: string, { method, args, signals }: CallFrame, task: Task | null, check: ContractCheck | undefined): Promise<unknown> {
    const { service, methods } = this.#services.get(name)!;
    const call = methods.get(method);
    if (call === undefined) throw new TypeError(method === ITSELF ? 'the service is an object; call one of its methods' : `the service has no method "${method}"`);
    const given = [...args];
    for (const place of signals ?? []) given[place] = signalOf(task);
    check?.args(given);
    return call.apply(service, given);
  }
}

/** What is none is not answered: no host has sent it. */
const isCall = ({ method, args, signals, remainingMs }: CallFrame): boolean => typeof method === 'string' && Array.isArray(args) && (signals === null || Array.isArray(signals)) && typeof remainingMs === 'number';

function giveUp(call: RunningCall | undefined, why: string): void {
  call?.task?.cancel(`the call was given up: ${why}`);
  call?.stream?.close();
}

/** Aborted when the call is given up. */
function signalOf(task: Task | null): AbortSignal {
  const controller = new AbortController();
  task?.onCancel((error) => controller.abort(error));
  return controller.signal;
}
