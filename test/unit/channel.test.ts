// Frames between threads: order, batches, closing, credits, and what may be transferred.
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { Channel } from '../../protocol/channel.js';
import { ownedBytes, ReceiveWindow, SendWindow } from '../../protocol/flow.js';
import { CHANNEL_BATCH_MAX_FRAMES, CHANNEL_REST_MAX_MESSAGES, STREAM_WINDOW_BYTES } from '../../protocol/limits.js';
import { eventually } from '../helpers/kernel.js';

interface Numbered { readonly n: number; readonly data?: Uint8Array }

/** A channel whose other end is a bare port that notes the batches it gets. */
function pair() {
  const { port1, port2 } = new MessageChannel();
  const batches: Numbered[][] = [];
  port2.on('message', (batch: Numbered[]) => batches.push(batch));
  let closes = 0;
  const received: Numbered[] = [];
  const channel = new Channel<Numbered, Numbered>(port1, { onFrame: (frame) => received.push(frame), onClose: () => (closes += 1) });
  return { channel, batches, received, peer: port2, closes: () => closes };
}

t.test('after a quiet turn the first frame leaves at once, and the rest gathers, all in order', async (t) => {
  const { channel, batches } = pair();
  const frames = async (count: number): Promise<void> => eventually(`${count} frames arrived`, 1_000, async () => (batches.flat().length === count ? true : undefined)).then(() => {});
  for (let n = 0; n < 4; n += 1) channel.send({ n });
  await frames(4);
  t.strictSame(batches.map((batch) => batch.length), [1, 3]);
  channel.send({ n: 4 });
  channel.send({ n: 5 });
  await frames(6);
  t.strictSame(batches.map((batch) => batch.length), [1, 3, 2], 'a busy turn is followed by another');
  channel.send({ n: 6 });
  await frames(7);
  channel.send({ n: 7 });
  channel.send({ n: 8 });
  await frames(9);
  t.strictSame(batches.map((batch) => batch.length), [1, 3, 2, 1, 1, 1], 'and a quiet one by a quiet one');
  t.strictSame(batches.flat().map(({ n }) => n), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
  channel.close();
});

t.test('a batch is bounded', async (t) => {
  const { channel, batches } = pair();
  const count = 3 * CHANNEL_BATCH_MAX_FRAMES;
  for (let n = 0; n < count; n += 1) channel.send({ n });
  await eventually('all arrived', 2_000, async () => (batches.flat().length === count ? true : undefined));
  t.ok(batches.every((batch) => batch.length <= CHANNEL_BATCH_MAX_FRAMES));
  channel.close();
});

t.test('a port that was to move over a channel that has ended is closed, so that its other end hears of it', async (t) => {
  const closed: string[] = [];
  const moving = (name: string): [MessagePort] => {
    const { port1, port2 } = new MessageChannel();
    port2.once('close', () => closed.push(name)).unref();
    return [port1];
  };
  const { channel, peer, closes } = pair();
  peer.close();
  channel.send({ n: 0 });
  t.equal(channel.send({ n: 2 }, moving('queued')), true);
  await eventually('the channel has ended', 1_000, async () => (closes() === 1 ? true : undefined));
  t.equal(channel.send({ n: 3 }, moving('too late')), false);
  await eventually('both other ends have heard', 1_000, async () => (closed.length === 2 ? true : undefined));
});

t.test('closing sends what is queued, is told once, and makes later sends harmless', async (t) => {
  const { channel, batches, closes } = pair();
  channel.send({ n: 0 });
  channel.send({ n: 1 });
  channel.close();
  channel.send({ n: 2 });
  channel.close();
  await eventually('the close was told', 1_000, async () => (closes() === 1 ? true : undefined));
  t.strictSame(batches.flat().map(({ n }) => n), [0, 1]);
  t.equal(channel.closed, true);
});

t.test('the end of the other side is told too', async (t) => {
  const { channel, peer, closes } = pair();
  peer.close();
  await eventually('the close was told', 1_000, async () => (closes() === 1 ? true : undefined));
  t.equal(channel.closed, true);
});

t.test('frames after a close in the middle of a batch belong to nobody', async (t) => {
  const { port1, port2 } = new MessageChannel();
  const seen: number[] = [];
  const channel = new Channel<Numbered, Numbered>(port1, { onFrame: ({ n }) => { seen.push(n); if (n === 1) channel.close(); } });
  port2.postMessage([{ n: 0 }, { n: 1 }, { n: 2 }]);
  await eventually('two were seen', 1_000, async () => (seen.length === 2 ? true : undefined));
  await delay(20);
  t.strictSame(seen, [0, 1]);
});

t.test('a frame that cannot be cloned is told to its sender, and the others of its batch arrive', async (t) => {
  const { port1, port2 } = new MessageChannel();
  const arrived: Numbered[] = [];
  const unsendable: string[] = [];
  port2.on('message', (batch: Numbered[]) => arrived.push(...batch));
  const channel = new Channel<Numbered, Numbered>(port1, { onFrame: () => {}, onUnsendable: ({ n }, { name }) => unsendable.push(`${n} ${name}`) });
  const data = ownedBytes(Buffer.from('moved'));
  const bad = (n: number): Numbered => ({ n, data: (() => {}) as never });
  channel.send(bad(0));
  channel.send({ n: 1 });
  channel.send(bad(2));
  channel.send({ n: 3, data }, [data.buffer]);
  await eventually('the good ones arrived', 1_000, async () => (arrived.length === 2 ? true : undefined));
  t.strictSame(arrived.map(({ n }) => n), [1, 3]);
  t.equal(Buffer.from(arrived[1]!.data!).toString(), 'moved');
  t.strictSame(unsendable, ['0 DataCloneError', '2 DataCloneError']);
  channel.close();
  const lonely = pair();
  t.throws(() => lonely.channel.send(bad(4)), { name: 'DataCloneError' }, 'with nobody to tell, it is thrown');
  lonely.channel.close();
});

t.test('transferred bytes are the sender\'s own: a pool shared with others stays whole', async (t) => {
  const { channel, batches } = pair();
  const pooled = Buffer.from('small, so it lives in a shared pool');
  const data = ownedBytes(pooled);
  t.equal(data.buffer.byteLength, pooled.byteLength);
  channel.send({ n: 0, data }, [data.buffer]);
  await eventually('it arrived', 1_000, async () => (batches.length === 1 ? true : undefined));
  t.equal(Buffer.from(batches[0]![0]!.data!).toString(), pooled.toString());
  t.equal(pooled.toString(), 'small, so it lives in a shared pool');
  t.equal(data.byteLength, 0, 'the sender has given them away');
  channel.close();
});

t.test('credits bound what is under way and lose nothing', async (t) => {
  const sender = new SendWindow();
  const receiver = new ReceiveWindow();
  let underWay = 0;
  let most = 0;
  let consumed = 0;
  const chunk = 10_000;
  for (let sent = 0; sent < 10_000_000;) {
    while (sender.open) {
      sender.take(chunk);
      sent += chunk;
      underWay += chunk;
      most = Math.max(most, underWay);
    }
    let resumed = false;
    sender.whenOpen(() => (resumed = true));
    t.notOk(resumed, 'a closed window does not call back');
    while (!resumed) {
      underWay -= chunk;
      consumed += chunk;
      const credit = receiver.consume(chunk);
      if (credit > 0) sender.grant(credit);
    }
  }
  t.ok(most <= STREAM_WINDOW_BYTES + chunk, 'at most a window and one chunk');
  t.ok(consumed > 9_000_000);
});

t.test('who does not keep to the credits is found out', async (t) => {
  const sender = new SendWindow();
  for (const bytes of [1, 0, -1, 0.5, NaN, Infinity, '5', undefined]) t.throws(() => sender.grant(bytes as number), /never got/, `a credit of ${bytes} without anything sent`);
  sender.take(10);
  t.throws(() => sender.grant(11), /never got/, 'more than was sent');
  sender.grant(10);

  const receiver = new ReceiveWindow();
  receiver.admit(STREAM_WINDOW_BYTES - 1);
  receiver.admit(1_000_000);
  t.throws(() => receiver.admit(1), /more bytes than/, 'one chunk may overdraw the window, and not a second one');
  t.ok(receiver.consume(STREAM_WINDOW_BYTES + 1_000_000 - 1) > 0);
  receiver.admit(1);
});

t.test('what the other side has sent before its end can still be read, up to a bound', async (t) => {
  const { channel, peer, received } = pair();
  peer.postMessage([{ n: 1 }, { n: 2 }]);
  peer.postMessage([{ n: 3 }]);
  peer.close();
  channel.readRest();
  t.strictSame(received.map(({ n }) => n), [1, 2, 3], 'now, and in order');
  const flooded = pair();
  for (let n = 0; n <= CHANNEL_REST_MAX_MESSAGES; n += 1) flooded.peer.postMessage([{ n }]);
  flooded.channel.readRest();
  t.equal(flooded.received.length, CHANNEL_REST_MAX_MESSAGES);
  flooded.channel.close();
  flooded.channel.readRest();
  t.equal(flooded.received.length, CHANNEL_REST_MAX_MESSAGES, 'and nothing after the close');
});
