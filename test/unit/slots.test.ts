// Slots that a host shares with the kernel: none is used for two pieces at once, and none is lost.
import { Writable } from 'node:stream';
import t from 'tap';
import { Delivery } from '../../kernel/dispatch/relay.js';
import { SLOT_MIN_BYTES, SLOTS_MAX, STREAM_PIECE_BYTES } from '../../protocol/limits.js';
import { giveBack, Slots } from '../../protocol/slots.js';

const piece = (fill: number, bytes: number = STREAM_PIECE_BYTES): Uint8Array => new Uint8Array(bytes).fill(fill);
/** As the kernel gets it. */
const sent = (data: Uint8Array | null): Uint8Array => structuredClone(data!);
const takeAll = (slots: Slots): Uint8Array[] => Array.from({ length: SLOTS_MAX }, (_, i) => sent(slots.copy(piece(i))));

t.test('holds one piece in each slot until it is given back', async (t) => {
  const slots = new Slots();
  const taken = takeAll(slots);
  t.ok(taken.every((data, i) => data.byteLength === STREAM_PIECE_BYTES && data.every((byte) => byte === i)), 'all have their own bytes');
  t.equal(slots.copy(piece(0)), null, 'and there are no more');
  giveBack(taken[7]);
  const again = sent(slots.copy(piece(99, SLOT_MIN_BYTES)));
  t.equal(again.byteOffset, taken[7]!.byteOffset);
  t.strictSame([again.byteLength, again[0], again.at(-1)], [SLOT_MIN_BYTES, 99, 99]);
  t.equal(slots.copy(piece(0)), null);
  for (const data of taken) giveBack(data);
  t.equal(takeAll(slots).length, SLOTS_MAX, 'all of them can be used again');
});

t.test('is for pieces only that are worth it', async (t) => {
  const slots = new Slots();
  t.equal(slots.copy(piece(1, SLOT_MIN_BYTES - 1)), null);
  t.equal(slots.copy(piece(1, STREAM_PIECE_BYTES + 1)), null);
});

t.test('what is no slot can be given back as well', async (t) => {
  const slots = new Slots();
  const { buffer } = slots.copy(piece(1))!;
  for (const junk of [null, 'text', {}, piece(1), new Uint8Array(new SharedArrayBuffer(64)), new Uint8Array(buffer, 0, 4), new Uint16Array(buffer, 0, 4), new Uint8Array(buffer, buffer.byteLength)]) t.doesNotThrow(() => giveBack(junk));
  t.equal(sent(slots.copy(piece(2))).byteOffset > 0, true);
});

t.test('a delivery gives back what the client has taken, and at the end what it has not', async (t) => {
  const slots = new Slots();
  const taken = takeAll(slots);
  const callbacks: (() => void)[] = [];
  const target = new Writable({ highWaterMark: 2 ** 30, write: (_chunk, _encoding, callback) => void callbacks.push(callback) });
  const credits: number[] = [];
  const delivery = new Delivery(target, (bytes) => credits.push(bytes));
  delivery.write(taken[0]!);
  delivery.write(taken[1]!);
  t.equal(slots.copy(piece(0)), null, 'not before');
  callbacks[0]!();
  await new Promise(setImmediate);
  t.strictSame(credits, [STREAM_PIECE_BYTES]);
  const next = sent(slots.copy(piece(50)));
  t.equal(next.byteOffset, taken[0]!.byteOffset, 'the first, which has left');
  t.equal(slots.copy(piece(0)), null, 'and only that');

  delivery.close();
  t.equal(sent(slots.copy(piece(51))).byteOffset, taken[1]!.byteOffset, 'the second, which never will');
  callbacks[1]!();
  await new Promise(setImmediate);
  t.equal(slots.copy(piece(0)), null, 'once: by now it is another\'s');
});
