// Runs the plugin's interceptors when the kernel asks, and sends what they say. Must not know whose requests they are about.
import type { Logger } from 'pino';
import { toPlainError } from '../../protocol/errors.js';
import { INTERCEPTOR_TIMEOUT_MS } from '../../protocol/interceptor-limits.js';
import type { HostToKernelFrame, InspectCancelFrame, InspectFrame } from '../../protocol/frames.js';
import { readChanges, readOutcome, type InterceptedRequest, type Interceptor, type InterceptorAnswer, type Outcome } from '../../protocol/interceptors.js';
import type { PluginContext } from '../../protocol/plugin.js';
import { headerObject } from './http-request.js';
import { isGivenUp, type Task, type Tasks } from './task.js';

const NOTHING = new Uint8Array();

export class Interception {
  readonly #interceptors: readonly Interceptor<PluginContext>[];
  readonly #context: PluginContext;
  readonly #send: (frame: HostToKernelFrame) => void;
  readonly #tasks: Tasks;
  readonly #log: Logger;
  /** Questions that the kernel waits for, each with what it has set going. */
  readonly #open = new Map<number, Task | null>();

  constructor(interceptors: readonly Interceptor<PluginContext>[], context: PluginContext, send: (frame: HostToKernelFrame) => void, tasks: Tasks, log: Logger) {
    this.#interceptors = interceptors;
    this.#context = context;
    this.#send = send;
    this.#tasks = tasks;
    this.#log = log;
  }

  async handle(frame: InspectFrame | InspectCancelFrame): Promise<void> {
    const { id } = frame;
    if (frame.kind === 'inspect-cancel') {
      const task = this.#open.get(id);
      this.#open.delete(id);
      task?.cancel(`nobody waits for the interceptor any more: ${frame.reason}`);
      return;
    }
    const task = this.#tasks.begin(this.#interceptors[frame.index]?.timeoutMs ?? INTERCEPTOR_TIMEOUT_MS);
    this.#open.set(id, task);
    const outcome = await this.#tasks.run(task, () => this.#ask(frame));
    // Nobody waits any more, also not for what it failed of.
    if (this.#open.delete(id)) this.#send({ kind: 'inspected', id, outcome });
  }

  async #ask({ index, method, url, headers, requestId, remoteAddress, plugin, response }: InspectFrame): Promise<Outcome> {
    const request: InterceptedRequest = { method, url, headers: headerObject(headers), requestId, remoteAddress, plugin };
    try {
      const interceptor = this.#interceptors[index]!;
      const { onResponse } = interceptor;
      if (response === null) return outcomeOf(await interceptor.onRequest!(request, this.#context), true);
      const answer = { statusCode: response.statusCode, headers: headerObject(response.headers) };
      return outcomeOf(typeof onResponse === 'function' ? await onResponse.call(interceptor, request, answer, this.#context) : undefined, false);
    } catch (thrown) {
      const level = isGivenUp(thrown) ? 'debug' : 'error';
      this.#log[level]({ err: thrown instanceof Error ? thrown : toPlainError(thrown), requestId }, `an interceptor failed on ${method} ${url} for plugin ${plugin}`);
      return { kind: 'failed', reason: 'it failed; the log has the cause under this requestId' };
    }
  }
}

/** Throws when it is none. */
function outcomeOf(said: unknown, mayAnswer: boolean): Outcome {
  if (said === undefined || said === null) return { kind: 'continue', edit: null };
  const { headers, answer } = said as { headers?: unknown; answer?: InterceptorAnswer };
  if (headers !== undefined && answer === undefined) return { kind: 'continue', edit: readChanges(headers) };
  if (answer === undefined || !mayAnswer) throw new TypeError(`an interceptor returns nothing or { headers }${mayAnswer ? ' or { answer }' : ''}`);
  const { body } = answer;
  const lines = readChanges(answer.headers ?? {}).lines;
  const json = typeof body === 'object' && !(body instanceof Uint8Array);
  const typed = body === undefined || lines.some((name, i) => i % 2 === 0 && name.toLowerCase() === 'content-type');
  const type = typed ? [] : ['content-type', json ? 'application/json; charset=utf-8' : typeof body === 'string' ? 'text/plain; charset=utf-8' : 'application/octet-stream'];
  // Bytes are copied: those of a pool come with all that is beside them.
  const plain = body === undefined ? NOTHING : json ? JSON.stringify(body) : body instanceof Uint8Array ? new Uint8Array(body) : String(body);
  return readOutcome({ kind: 'answer', statusCode: answer.statusCode, headers: [...lines, ...type], body: plain });
}
