import t from 'tap';
import { Conversation, MessageScanner } from '../../kernel/database/wire.js';

/** A message as PostgreSQL frames it. */
function message(type: string, body: string | Uint8Array = ''): Buffer {
  const bytes = Buffer.from(body);
  const header = Buffer.from(`${type}\0\0\0\0`);
  header.writeInt32BE(4 + bytes.byteLength, 1);
  return Buffer.concat([header, bytes]);
}

const ready = (status: string): Buffer => message('Z', status);

function reports(): { readonly seen: string[]; readonly scanner: MessageScanner } {
  const seen: string[] = [];
  const scanner = new MessageScanner((type, status) => seen.push(String.fromCharCode(type) + (status === 0 ? '' : String.fromCharCode(status))));
  return { seen, scanner };
}

/** mulberry32: the same numbers in every run. */
function random(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

t.test('messages are reported whatever the chunks they come in', async (t) => {
  const answer = Buffer.concat([message('1'), message('2'), message('T', 'fields'), message('D', 'Z\0\0\0\x05I'), message('D'), message('C', 'SELECT 2'), ready('T'), message('N', 'x'), ready('I')]);
  const expected = ['1', '2', 'T', 'D', 'D', 'C', 'ZT', 'N', 'ZI'];

  await t.test('at every split point', async (t) => {
    for (let split = 0; split <= answer.length; split += 1) {
      const { seen, scanner } = reports();
      const read = scanner.scan(answer.subarray(0, split)) + scanner.scan(answer.subarray(split));
      if (seen.join() !== expected.join() || read !== answer.length || !scanner.atBoundary) t.fail(`split at ${split}: ${seen.join()}`);
    }
    t.pass(`${answer.length + 1} split points`);
  });

  await t.test('byte by byte, and with empty chunks between', async (t) => {
    const { seen, scanner } = reports();
    for (const byte of answer) {
      scanner.scan(Uint8Array.of(byte));
      scanner.scan(new Uint8Array(0));
    }
    t.strictSame(seen, expected);
  });

  await t.test('random messages in random chunks (seed 1)', async (t) => {
    const next = random(1);
    const types = [...'12CDEIKNSTZcdnst'];
    for (let round = 0; round < 300; round += 1) {
      const messages: Buffer[] = [];
      const names: string[] = [];
      for (let count = next() * 12; count > 0; count -= 1) {
        const type = types[Math.floor(next() * types.length)]!;
        const status = 'ITE'[Math.floor(next() * 3)]!;
        const body = Buffer.alloc(next() < 0.3 ? 0 : Math.floor(next() * 400), Math.floor(next() * 256));
        messages.push(type === 'Z' ? ready(status) : message(type, body));
        names.push(type === 'Z' ? `Z${status}` : type);
      }
      const bytes = Buffer.concat(messages);
      const ends = new Set(messages.map(((end) => (one: Buffer) => (end += one.length))(0)).concat(0));
      const { seen, scanner } = reports();
      for (let at = 0; at < bytes.length;) {
        const chunk = bytes.subarray(at, at + 1 + Math.floor(next() ** 3 * 500));
        at += scanner.scan(chunk);
        if (scanner.atBoundary !== ends.has(at)) return t.fail(`round ${round}: wrong about the boundary at ${at}`);
      }
      if (seen.join() !== names.join()) return t.fail(`round ${round}: saw ${seen.join()} instead of ${names.join()}`);
    }
    t.pass('300 rounds');
  });
});

t.test('a body is hopped over, not read: a message of a gigabyte less one byte is no problem', async (t) => {
  const { seen, scanner } = reports();
  const header = Buffer.from('d\0\0\0\0');
  header.writeInt32BE(0x3fff_ffff, 1);
  scanner.scan(header);
  const chunk = Buffer.alloc(1024 * 1024, 'X');
  for (let left = 0x3fff_ffff - 4; left > 0; left -= chunk.length) scanner.scan(chunk.subarray(0, left));
  t.ok(scanner.atBoundary);
  scanner.scan(ready('I'));
  t.strictSame(seen, ['d', 'ZI']);
});

t.test('Terminate stops the scan before its first byte, wherever it is', async (t) => {
  const bytes = Buffer.concat([message('Q', 'XX'), message('X'), message('Q')]);
  for (let split = 0; split <= 8; split += 1) {
    const { seen, scanner } = reports();
    const first = scanner.scan(bytes.subarray(0, split));
    const second = first === split ? scanner.scan(bytes.subarray(split)) : 0;
    t.equal(first + second, 7, `split at ${split}`);
    t.strictSame(seen, ['Q']);
  }
});

t.test('what cannot be PostgreSQL\'s protocol breaks the scanner for good', async (t) => {
  const cases: Record<string, Buffer> = {
    'a length below its own four bytes': Buffer.from('Q\0\0\0\x03'),
    'a length of zero': Buffer.from('Q\0\0\0\0'),
    'a negative length': Buffer.from([0x51, 0xff, 0xff, 0xff, 0xff]),
    'a length of two gigabytes': Buffer.from([0x51, 0x7f, 0xff, 0xff, 0xff]),
    'a ReadyForQuery without a status': message('Z'),
    'a ReadyForQuery with two': message('Z', 'II'),
  };
  for (const [name, bytes] of Object.entries(cases)) {
    const { seen, scanner } = reports();
    scanner.scan(bytes);
    scanner.scan(ready('I'));
    t.ok(scanner.broken && !scanner.atBoundary, name);
    t.strictSame(seen, [], `${name}: nothing is reported`);
  }
});

/** Plays a script of `> message` and `< message` and tells whether the connection is at rest at the end. */
function atRest(...script: readonly string[]): boolean {
  const talk = new Conversation();
  for (const line of script) {
    for (const type of line.slice(2)) {
      if (line.startsWith('>')) talk.ask(message(type, 'body'));
      else if ('ite'.includes(type)) talk.answer(ready(type.toUpperCase()));
      else talk.answer(message(type, 'body'));
    }
  }
  return talk.atRest;
}

t.test('a connection is at rest only when all is said', async (t) => {
  // In these scripts i, t and e stand for ReadyForQuery with that status.
  t.ok(atRest(), 'a connection on which nothing was said');
  t.ok(atRest('> Q', '< TDCi'), 'a simple query, answered');
  t.notOk(atRest('> Q', '< TDC'), 'a simple query, not yet answered');
  t.ok(atRest('> PBDES', '< 12TDCi'), 'an extended query, answered');
  t.notOk(atRest('> PBDE', '< 12TDC'), 'an extended query without its Sync');
  t.notOk(atRest('> PBDEH', '< 12TDC'), 'an extended query with Flush in place of Sync');
  t.notOk(atRest('> Q', '< Ci', '> P'), 'a batch begun after the last answer');
  t.notOk(atRest('> QQ', '< Ci'), 'two queries, one answered');
  t.ok(atRest('> QQ', '< Ci', '< Ci'), 'two queries, both answered');
  t.ok(atRest('> PBESPBES', '< 12Ci', '< 12Ci'), 'two batches under way at once');
  t.ok(atRest('> PBES', '< Ni'), 'a failed batch: its Sync is answered all the same');
  t.notOk(atRest('> PBESQ', '< Ni'), 'a failed batch and a query that is still to be answered');
  t.ok(atRest('> F', '< Vi'), 'a function call');
  t.notOk(atRest('> Q', '< Ct'), 'an open transaction');
  t.notOk(atRest('> Q', '< Ne'), 'a failed transaction');
  t.ok(atRest('> Q', '< Ct', '> Q', '< Ci'), 'a finished transaction');
  t.notOk(atRest('< i'), 'an answer that nobody asked for');
  t.notOk(atRest('> Q', '< Cii'), 'one answer too many');
  t.ok(atRest('> Q', '< Ci', '< A'), 'a notification between queries');
});

t.test('COPY in both directions', async (t) => {
  t.ok(atRest('> Q', '< G', '> dddc', '< Ci'), 'rows sent in');
  t.notOk(atRest('> Q', '< G', '> ddd'), 'rows still being sent in');
  t.ok(atRest('> Q', '< G', '> df', '< Ni'), 'given up by the client');
  t.ok(atRest('> Q', '< G', '> d', '< Ni', '> dddc'), 'given up by the server: what the client still sends, the server drops');
  t.ok(atRest('> Q', '< HdddcCi'), 'rows sent out');
  t.ok(atRest('> PBE', '< 12G', '> dcS', '< Ci'), 'in the extended protocol');
  t.notOk(atRest('> PBES', '< 12G', '> dcS', '< Ci'), 'with a Sync that the server has ignored: busy, to be on the safe side');
});

t.test('half a message in either direction is no rest', async (t) => {
  for (const cut of [1, 4, 5, 7]) {
    const asked = new Conversation();
    asked.ask(message('d', 'body').subarray(0, cut));
    t.notOk(asked.atRest, `${cut} bytes of a question`);
    const answered = new Conversation();
    answered.answer(message('A', 'body').subarray(0, cut));
    t.notOk(answered.atRest, `${cut} bytes of a notification`);
  }
});

t.test('a garbled question is told', async (t) => {
  const talk = new Conversation();
  talk.ask(Buffer.from('GET / HTTP/1.1\r\n'));
  t.ok(talk.garbled);
  t.notOk(talk.atRest);
});
