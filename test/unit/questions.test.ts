// Questions to an interceptor's worker: each has one outcome in time, and there are never too many.
import t from 'tap';
import type { KernelToHostFrame } from '../../protocol/frames.js';
import { INTERCEPTOR_QUESTIONS_MAX_PENDING } from '../../protocol/interceptor-limits.js';
import type { Outcome } from '../../protocol/interceptors.js';
import { Questions, type Question } from '../../kernel/intercept/questions.js';

const QUESTION: Question = { method: 'GET', url: '/', headers: [], requestId: 'id', remoteAddress: '', plugin: 'p', response: null };
const GO: Outcome = { kind: 'continue', edit: null };

function worker(alive = true): { readonly questions: Questions; readonly sent: KernelToHostFrame[] } {
  const sent: KernelToHostFrame[] = [];
  return { sent, questions: new Questions((frame) => { sent.push(frame); return alive; }) };
}

t.test('what is said in time is the outcome, what comes later is dropped', async (t) => {
  const { questions, sent } = worker();
  const asked = questions.ask(3, QUESTION, 10_000);
  t.match(sent, [{ kind: 'inspect', id: 1, index: 3, url: '/' }]);
  questions.handle({ kind: 'inspected', id: 1, outcome: GO });
  questions.handle({ kind: 'inspected', id: 1, outcome: { kind: 'failed', reason: 'twice' } });
  questions.handle({ kind: 'inspected', id: NaN, outcome: GO });
  t.strictSame(await asked.outcome, GO);
  asked.cancel('too late');
  t.equal(sent.length, 1, 'and nothing more is said');

  const late = questions.ask(0, QUESTION, 1);
  t.strictSame(await late.outcome, { kind: 'failed', reason: 'it did not answer within 1 ms' });
  t.match(sent.at(-1), { kind: 'inspect-cancel', id: 2 }, 'which the worker hears');
  questions.handle({ kind: 'inspected', id: 2, outcome: GO });
  t.equal(questions.pending, 0);
});

t.test('a death settles all, and nobody is asked after it', async (t) => {
  const { questions, sent } = worker();
  const asked = [questions.ask(0, QUESTION, 10_000), questions.ask(0, QUESTION, 10_000)];
  const drained = questions.drained();
  questions.abandon();
  for (const { outcome } of asked) t.match(await outcome, { kind: 'failed' });
  await drained;
  t.notOk(questions.open);
  t.match(await questions.ask(0, QUESTION, 10_000).outcome, { kind: 'failed' });
  t.equal(sent.length, 2);
  t.match(await worker(false).questions.ask(0, QUESTION, 10_000).outcome, { kind: 'failed' }, 'nor does one wait that did not leave');
});

t.test('no more than so many are open', async (t) => {
  const { questions } = worker();
  for (let i = 0; i < INTERCEPTOR_QUESTIONS_MAX_PENDING; i += 1) questions.ask(0, QUESTION, 10_000);
  t.match(await questions.ask(0, QUESTION, 10_000).outcome, { kind: 'failed', reason: /1024 requests/ });
  t.equal(questions.pending, INTERCEPTOR_QUESTIONS_MAX_PENDING);
  questions.abandon();
});

t.test('what is no outcome is refused before anybody hears of it', async (t) => {
  const { questions } = worker();
  questions.ask(0, QUESTION, 10_000);
  const answer = { kind: 'answer', statusCode: 200, headers: [], body: '' };
  const edit = (names: unknown, lines: unknown): unknown => ({ kind: 'continue', edit: { names, lines } });
  const garbage: unknown[] = [
    undefined, null, 5, {}, { kind: 'go' }, { kind: 'continue' }, { kind: 'failed', reason: {} }, edit([], ['a']), edit('a', 'b'), edit([5], []), edit([], ['a', 5]), edit([], ['a', 'b\r\nc: d']), edit(['host'], []), edit([], ['Content-Length', '5']),
    edit(Array(65).fill('a'), []), edit([], ['a', 'x'.repeat(9_000)]), { ...answer, statusCode: 101 }, { ...answer, statusCode: '200' }, { ...answer, statusCode: 600 }, { ...answer, headers: ['transfer-encoding', 'chunked'] }, { ...answer, headers: null },
    { ...answer, body: null }, { ...answer, body: 'x'.repeat(65_537) }, { ...answer, body: new Uint8Array(65_537) }, { ...answer, body: new Uint8Array(new SharedArrayBuffer(4)) }, { ...answer, body: { length: 5 } },
  ];
  for (const outcome of garbage) t.throws(() => questions.handle({ kind: 'inspected', id: 1, outcome: outcome as Outcome }), JSON.stringify(outcome)?.slice(0, 80) ?? 'undefined');
  t.equal(questions.pending, 1);
  questions.abandon();
});
