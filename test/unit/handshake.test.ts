// The head of an answer to the wish for a tunnel: however it is cut up, whether the plugin switches, and what a refusal becomes.
import t from 'tap';
import { HandshakeAnswer } from '../../kernel/dispatch/handshake.js';
import { TUNNEL_HEAD_MAX_BYTES } from '../../protocol/limits.js';

const SWITCH = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: bulk\r\n\r\n';

/** What the client gets of these pieces. */
function read(...pieces: readonly string[]): { answer: HandshakeAnswer; text: string } {
  const answer = new HandshakeAnswer();
  return { answer, text: pieces.map((piece) => Buffer.from(answer.read(Buffer.from(piece, 'latin1'))).toString('latin1')).join('') };
}

t.test('a switch goes to the client as it is, with what comes after it', async (t) => {
  for (const pieces of [[`${SWITCH}and \xff more`], [...`${SWITCH}`, 'and \xff more'].slice(0, SWITCH.length)]) {
    const { answer, text } = read(...pieces);
    t.equal(text, pieces.join(''));
    t.ok(answer.switches);
  }
});

t.test('nothing leaves before the head is complete', async (t) => {
  const { answer, text } = read(SWITCH.slice(0, -1));
  t.equal(text, '');
  t.equal(answer.status, 0);
});

t.test('a refusal is the last answer on its connection', async (t) => {
  for (const [head, expected] of [
    ['HTTP/1.1 400 Bad Request', 'HTTP/1.1 400 Bad Request\r\nConnection: close'],
    ['HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\nKeep-Alive: timeout=5', 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2'],
    ['HTTP/1.1 426\r\ncONNECTION : x', 'HTTP/1.1 426\r\nConnection: close'],
    ['HTTP/1.1 401 No\r\nconnection:close\r\nx: y', 'HTTP/1.1 401 No\r\nconnection:close\r\nx: y'],
    ['HTTP/1.1 401 No\r\nx: y\r\nConnection: close', 'HTTP/1.1 401 No\r\nx: y\r\nConnection: close'],
  ] as const) {
    const { answer, text } = read(`${head}\r\n\r\nbody`);
    t.equal(text, `${expected}\r\n\r\nbody`);
    t.notOk(answer.switches);
  }
});

t.test('anything else is no answer', async (t) => {
  for (const head of ['hello', 'HTTP/1.0 101 x', 'HTTP/1.1 100 Continue', 'HTTP/1.1 1010 x', 'HTTP/1.1 20 x', ' HTTP/1.1 101 x', '']) {
    t.throws(() => read(`${head}\r\n\r\n`), /no HTTP\/1\.1 answer that is final/, head);
  }
  const long = 'x'.repeat(TUNNEL_HEAD_MAX_BYTES + 1);
  t.throws(() => read(long), /more than \d+ bytes/, 'a head without an end');
  t.throws(() => read(`${SWITCH.slice(0, -2)}x: ${long}\r\n\r\n`), /more than \d+ bytes/, 'a head with a late end');
});
