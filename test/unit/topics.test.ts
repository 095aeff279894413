// Names of topics and patterns: what is allowed, what hears what, and how payloads are typed.
import t from 'tap';
import type { Events } from 'bulkhead/protocol';
import type { PayloadOf } from '../../protocol/events.js';
import type { Transition } from '../../protocol/lifecycle.js';
import { SERVICE_NAME_MAX_CHARACTERS } from '../../protocol/limits.js';
import { hears, isKernels, patternProblem, segmentsOf, topicProblem, topicsProblems } from '../../protocol/topics.js';

declare module 'bulkhead/protocol' {
  interface EventMap { 'tide.high': { metres: number }; 'tide.low': string; 'tide.gauge.broken': boolean }
}

t.test('names of topics', async (t) => {
  for (const topic of ['a', 'order.placed', 'A-1._x.9', 'x'.repeat(SERVICE_NAME_MAX_CHARACTERS)]) t.equal(topicProblem(topic), null, topic);
  for (const topic of ['', '.', 'a.', '.a', 'a..b', 'a b', 'a/b', 'ä', 'a.*', '**', 'a\n', 'x'.repeat(SERVICE_NAME_MAX_CHARACTERS + 1), 5, null, undefined, {}]) t.type(topicProblem(topic), 'string', JSON.stringify(topic));
  t.ok(isKernels('kernel') && isKernels('kernel.plugin.running') && !isKernels('kernels.x') && !isKernels('my.kernel'));
});

t.test('patterns', async (t) => {
  for (const pattern of ['a', '*', '**', 'a.*', '*.b', 'a.*.c', 'a.**', '*.**', '*.*.*']) t.equal(patternProblem(pattern), null, pattern);
  for (const pattern of ['', 'a.', '**.a', 'a.**.b', 'a*', '***', '*a.b', '?', 5]) t.type(patternProblem(pattern), 'string', JSON.stringify(pattern));
  t.match(patternProblem('**.a'), /only be its last segment/);
});

t.test('a pattern hears', async (t) => {
  const heard = (pattern: string, topic: string): boolean => hears(segmentsOf(pattern), segmentsOf(topic));
  for (const [pattern, topic] of [['a', 'a'], ['a.b', 'a.b'], ['*', 'a'], ['a.*', 'a.b'], ['*.b', 'a.b'], ['a.*.c', 'a.b.c'], ['**', 'a'], ['**', 'a.b.c'], ['a.**', 'a.b'], ['a.**', 'a.b.c.d'], ['*.**', 'a.b.c']] as const) {
    t.ok(heard(pattern, topic), `${pattern} hears ${topic}`);
  }
  for (const [pattern, topic] of [['a', 'b'], ['a', 'a.b'], ['a.b', 'a'], ['*', 'a.b'], ['a.*', 'a'], ['a.*', 'a.b.c'], ['a.**', 'a'], ['a.**', 'b.c'], ['*.**', 'a'], ['a.*.c', 'a.b.d']] as const) {
    t.notOk(heard(pattern, topic), `${pattern} does not hear ${topic}`);
  }
});

t.test('declared topics', async (t) => {
  t.strictSame(topicsProblems({ 'order.placed': { durable: true }, 'order.seen': {} }), []);
  t.match(topicsProblems({ 'order.*': {} }), [/"order\.\*".*not allowed/]);
  t.match(topicsProblems({ 'kernel.mine': {} }), [/only the kernel/]);
  t.match(topicsProblems({ a: { durable: 'yes' }, b: null }), [/topics\["a"\]/, /topics\["b"\]/]);
  for (const topics of [[], 'a', null, 5]) t.match(topicsProblems(topics), [/must be an object/]);
  t.match(topicsProblems(Object.fromEntries(Array.from({ length: 101 }, (_, i) => [`t${i}`, {}]))), [/more than 100/]);
});

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

t.test('payloads have the type that the topics declare', async (t) => {
  const same: [
    Same<PayloadOf<'tide.high'>, { metres: number }>,
    Same<PayloadOf<'tide.*'>, { metres: number } | string>,
    Same<PayloadOf<'tide.**'>, { metres: number } | string | boolean>,
    Same<PayloadOf<'*.gauge.*'>, boolean>,
    Same<PayloadOf<'kernel.plugin.*'>, Transition>,
    Same<PayloadOf<'nobody.knows'>, unknown>,
    Same<PayloadOf<string>, unknown>,
  ] = [true, true, true, true, true, true, true];
  t.equal(same.length, 7);
  // Compiled, not run.
  void ((events: Events) => {
    void events.publish('tide.high', { metres: 4 });
    // @ts-expect-error That is the payload of another topic.
    void events.publish('tide.high', 'low');
    events.subscribe('tide.*', (payload) => void (typeof payload === 'string' ? payload.length : payload.metres));
    events.subscribe('tide.low', (payload, { id, attempt }) => void [payload.length, id.length, attempt.toFixed()], { durable: true });
  });
});
