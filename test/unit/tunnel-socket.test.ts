// The worker's end of a tunnel: how much of what is written becomes a frame when, and which frames say that it has ended.
import { once } from 'node:events';
import t from 'tap';
import { TunnelSocket } from '../../kernel/host/tunnel-socket.js';
import type { HostToKernelFrame, UpgradeFrame } from '../../protocol/frames.js';
import { BODY_INLINE_MAX_BYTES, STREAM_WINDOW_BYTES } from '../../protocol/limits.js';

const FRAME: UpgradeFrame = {
  kind: 'upgrade', id: 7, method: 'GET', url: '/', originalUrl: '/', mount: '', httpVersion: '1.1', headers: [], body: new Uint8Array(), streams: true,
  requestId: 'id', remoteAddress: '::1', remotePort: 1, encrypted: false, remainingMs: Infinity,
};

/** A socket whose frames go nowhere but into `sent`. */
function tunnel(): { socket: TunnelSocket; sent: HostToKernelFrame[]; bytes: () => Buffer; closed: () => number } {
  const sent: HostToKernelFrame[] = [];
  let closed = 0;
  const socket = new TunnelSocket(FRAME, (frame) => sent.push(frame), () => { closed += 1; });
  return { socket, sent, bytes: () => Buffer.concat(sent.flatMap((frame) => (frame.kind === 'chunk' ? [frame.data] : []))), closed: () => closed };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const kinds = (sent: readonly HostToKernelFrame[]): string[] => sent.map(({ kind }) => kind);

t.test('what is written in one turn is gathered: a client cannot make many small answers a flood of frames', async (t) => {
  const { socket, sent, bytes } = tunnel();
  for (let i = 0; i < 10_000; i += 1) socket.write(String(i % 10));
  await turn();
  t.equal(bytes().toString(), '0123456789'.repeat(1_000));
  t.ok(sent.length <= 2, `${sent.length} frames`);
});

t.test('large writes leave in pieces, as far as there is credit', async (t) => {
  const { socket, sent, bytes } = tunnel();
  const large = Buffer.alloc(8 * STREAM_WINDOW_BYTES, 'large');
  let written = false;
  socket.write('small');
  socket.write(large, () => { written = true; });
  await turn();
  t.ok(bytes().byteLength <= 2 * STREAM_WINDOW_BYTES, `${bytes().byteLength} bytes without any`);
  while (!written) {
    const before = bytes().byteLength;
    socket.grant(BODY_INLINE_MAX_BYTES);
    await turn();
    t.ok(bytes().byteLength - before <= STREAM_WINDOW_BYTES, 'with some, some more');
  }
  t.ok(bytes().equals(Buffer.concat([Buffer.from('small'), large])));
  t.ok(sent.every((frame) => frame.kind === 'chunk' && frame.data.byteLength <= STREAM_WINDOW_BYTES));
});

t.test('nothing is credited that nobody has read', async (t) => {
  const { socket, sent } = tunnel();
  for (let i = 0; i < 4; i += 1) socket.receive(new Uint8Array(BODY_INLINE_MAX_BYTES));
  await turn();
  t.strictSame(kinds(sent), []);
  socket.resume();
  await turn();
  t.equal(sent.reduce((sum, frame) => sum + (frame.kind === 'credit' ? frame.bytes : 0), 0), 4 * BODY_INLINE_MAX_BYTES);
});

t.test('an end that both sides know needs no other word', async (t) => {
  const { socket, sent, closed } = tunnel();
  socket.resume();
  socket.finish();
  await turn();
  t.notOk(socket.destroyed, 'the client\'s alone is half of it');
  socket.end('bye');
  await once(socket, 'close');
  t.strictSame(kinds(sent), ['chunk', 'end']);
  t.equal(closed(), 1);
});

t.test('one that is destroyed says so, unless the kernel has', async (t) => {
  const own = tunnel();
  own.socket.destroy();
  await once(own.socket, 'close');
  t.strictSame(own.sent, [{ kind: 'cancel', id: 7, reason: 'its handler destroyed the connection' }]);

  const soon = tunnel();
  soon.socket.write('last words');
  soon.socket.destroySoon();
  await once(soon.socket, 'close');
  t.strictSame(kinds(soon.sent), ['chunk', 'end', 'cancel']);

  const told = tunnel();
  told.socket.abort();
  await once(told.socket, 'close');
  told.socket.receive(new Uint8Array(1));
  told.socket.finish();
  t.strictSame(told.sent, [], 'and then nothing more comes or goes');
  t.equal(told.closed(), 1);
});
