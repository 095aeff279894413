// One request on its way past the interceptors, and the head of its answer on its way back: each asked in turn, and what follows when one fails. Must not know how questions travel.
import { BulkheadError } from '../../protocol/errors.js';
import type { FlatHeaders } from '../../protocol/frames.js';
import { edited, type Outcome } from '../../protocol/interceptors.js';
import type { OpenRequest, Target } from '../dispatch/open-request.js';
import type { Passage, Station } from './interceptors.js';
import { unasked, type Asked, type Question } from './questions.js';

/** A request that can be inspected. */
export interface Inspectable extends Pick<OpenRequest, 'over' | 'onOver' | 'method' | 'originalUrl' | 'requestId' | 'fail'> {
  readonly target: Target;
  readonly remoteAddress: string;
  /** As the plugin will get them. */
  headers: FlatHeaders;
  /** Ends it with an interceptor's own answer. */
  answer(answer: Extract<Outcome, { kind: 'answer' }>): void;
}

export type Verdict = { readonly headers: FlatHeaders } | { readonly error: BulkheadError };

/** The review of one answer. */
export interface Review {
  /** Never rejects. */
  readonly verdict: Promise<Verdict>;
  /** Nobody waits for the answer any more. */
  readonly cancel: (reason: string) => void;
}

/** A timer may ring so much before its time by the clock. */
const TIMER_EARLY_MS = 1;

/** Resolves to whether the request may go on, within `limitMs`; else it has been answered. */
export async function inspect(request: Inspectable, { requests }: Passage, limitMs: number): Promise<boolean> {
  const until = performance.now() + limitMs;
  for (const station of requests) {
    const leftMs = Math.ceil(until - performance.now());
    if (leftMs <= 0) return late(request, limitMs);
    const asked = ask(station, questionOf(request, null), Math.min(leftMs, station.manifest.timeoutMs));
    request.onOver = () => asked.cancel('the client went away');
    const outcome = await asked.outcome;
    request.onOver = null;
    if (request.over) return false;
    count(station, outcome);
    if (outcome.kind === 'continue') {
      if (outcome.edit !== null) request.headers = edited(request.headers, outcome.edit);
    } else if (outcome.kind === 'answer') {
      request.answer(outcome);
      return false;
    } else if (performance.now() + TIMER_EARLY_MS >= until) return late(request, limitMs);
    else if (station.manifest.failMode === 'closed') {
      request.fail(failureOf(station, outcome.reason));
      return false;
    }
  }
  return true;
}

/** Asks about the head of an answer. */
export function review(request: Inspectable, { responses }: Passage, statusCode: number, headers: FlatHeaders): Review {
  let asked: Asked | null = null;
  let over = false;
  const pass = async (): Promise<Verdict> => {
    let present = headers;
    for (const station of responses) {
      if (station.mark !== null) {
        present = edited(present, station.mark);
        continue;
      }
      asked = ask(station, questionOf(request, { statusCode, headers: present }), station.manifest.timeoutMs);
      const outcome = await asked.outcome;
      if (over) break;
      count(station, outcome);
      if (outcome.kind === 'continue') present = outcome.edit === null ? present : edited(present, outcome.edit);
      else if (station.manifest.failMode === 'closed') return { error: failureOf(station, outcome.kind === 'failed' ? outcome.reason : 'it has no say in what is answered') };
    }
    return { headers: present };
  };
  return {
    verdict: pass(),
    cancel: (reason) => {
      over = true;
      asked?.cancel(reason);
    },
  };
}

/** Asks the worker that has the fewest open questions. */
function ask({ owner, index, counts }: Station, question: Question, timeoutMs: number): Asked {
  counts.asked += 1;
  const [first, ...others] = owner.running ? owner.crew.filter(({ open }) => open) : [];
  if (first === undefined) return unasked(owner.absence.reason);
  return others.reduce((least, other) => (other.pending < least.pending ? other : least), first).ask(index, question, timeoutMs);
}

function count({ counts }: Station, { kind }: Outcome): void {
  if (kind === 'failed') counts.failed += 1;
  else counts.answered += 1;
}

function questionOf({ method, originalUrl, headers, requestId, remoteAddress, target }: Inspectable, response: Question['response']): Question {
  return { method, url: originalUrl, headers, requestId, remoteAddress, plugin: target.plugin, response };
}

function failureOf({ owner }: Station, reason: string): BulkheadError {
  return new BulkheadError('INTERCEPTOR_FAILED', { name: owner.name, reason }, { retryAfterSeconds: owner.running ? undefined : owner.absence.retryAfterSeconds });
}

function late(request: Inspectable, timeoutMs: number): false {
  request.fail(new BulkheadError('PLUGIN_TIMEOUT', { name: request.target.plugin, timeoutMs }));
  return false;
}
