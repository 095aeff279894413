// A worker frees what it was sent, a few MiB at a time.
import t from 'tap';
import { collectReceived } from '../../kernel/host/received.js';
import { RECEIVED_BEFORE_COLLECTION_BYTES } from '../../protocol/limits.js';

t.test('collects the young whenever enough has come', async (t) => {
  const collections: string[] = [];
  const received = collectReceived(({ type }) => collections.push(type));
  received(RECEIVED_BEFORE_COLLECTION_BYTES - 1);
  t.strictSame(collections, []);
  received(1);
  t.strictSame(collections, ['minor']);
  received(RECEIVED_BEFORE_COLLECTION_BYTES - 1);
  t.equal(collections.length, 1, 'and counts from anew');
  for (let i = 0; i < 10; i += 1) received(RECEIVED_BEFORE_COLLECTION_BYTES);
  t.equal(collections.length, 11);
});

t.test('does nothing where there is no way to collect', async (t) => {
  t.doesNotThrow(() => collectReceived(null)(RECEIVED_BEFORE_COLLECTION_BYTES));
});
