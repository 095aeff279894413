// Lent connections, from the plugin's pg.Pool through frames to a real PostgreSQL: they behave as plain pg, and leave nothing behind.
import { createServer, type AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { MessageChannel, Worker } from 'node:worker_threads';
import pg from 'pg';
import t, { type Test } from 'tap';
import { Lending } from '../../kernel/database/lending.js';
import { createDatabase } from '../../kernel/database/pool.js';
import { Channel } from '../../protocol/channel.js';
import type { HostToKernelFrame, KernelToHostFrame, LeaseDataFrame } from '../../protocol/frames.js';
import { DATABASE_PING_TIMEOUT_MS, LEASE_IDLE_MS, LEASE_WAIT_MS } from '../../protocol/database-limits.js';
import { PLUGIN_LIMITS, STREAM_WINDOW_BYTES } from '../../protocol/limits.js';
import { eventually, lend, shared, openDatabase, silent } from '../helpers/lent.js';
import { onEachServer, startPostgres } from '../helpers/postgres.js';

/** What a socket is read in, at most; one chunk may overdraw a window. */
const READ_MAX_BYTES = 64 * 1024;

onEachServer(t, 'lent connections', async (t, url) => {
  const admin = new pg.Pool({ connectionString: url, max: 2, application_name: 'test' });
  // At the end the server may stop before it has read this pool's goodbyes; its answer to that is of no interest.
  admin.on('error', () => {});
  t.teardown(() => admin.end());
  const backends = async (name: string): Promise<number> =>
    (await admin.query('SELECT count(*)::int AS count FROM pg_stat_activity WHERE application_name = $1', [name])).rows[0].count;
  const alive = async (pid: number): Promise<boolean> => (await admin.query('SELECT FROM pg_stat_activity WHERE pid = $1', [pid])).rowCount === 1;
  const pidOf = async (client: pg.ClientBase | pg.Pool): Promise<number> => (await client.query('SELECT pg_backend_pid() AS pid')).rows[0].pid;

  await t.test('queries behave as with plain pg', async (t) => {
    const { pool } = lend(t, url);
    t.ok(pool instanceof pg.Pool, 'ctx.db is a pg.Pool');
    t.same((await pool.query('SELECT 1 AS one')).rows, [{ one: 1 }], 'text');
    t.same((await pool.query('SELECT $1::int + $2::int AS sum, $3::text AS nothing', [2, 3, null])).rows, [{ sum: 5, nothing: null }], 'parameters');

    const at = new Date('2024-02-29T12:34:56.789Z');
    const values = [[1, 2, 3], ['a', 'ü "quoted"', null], { deep: [{ x: 1 }] }, at, Buffer.from([0, 1, 255]), true, '9007199254740993', 1.5];
    const { rows } = await pool.query({
      text: 'SELECT $1::int[] AS ints, $2::text[] AS texts, $3::jsonb AS json, $4::timestamptz AS at, $5::bytea AS bytes, $6::bool AS yes, $7::int8 AS big, $8::float8 AS half',
      values, rowMode: 'array',
    });
    t.strictSame(rows[0], values, 'arrays, JSON, timestamps, bytes, booleans and numbers, there and back');

    for (const id of [1, 2]) {
      t.same((await pool.query({ name: 'by-id', text: 'SELECT $1::int AS id', values: [id] })).rows, [{ id }], 'a named statement');
    }
    const several = (await pool.query('SELECT 1 AS a; SELECT 2 AS b')) as unknown as pg.QueryResult[];
    t.same(several.map((result) => result.rows[0]), [{ a: 1 }, { b: 2 }], 'several statements in one query');
    t.equal((await pool.query('')).rows.length, 0, 'an empty query');

    await t.rejects(pool.query('SELEC'), { code: '42601', position: '1', severity: 'ERROR' }, 'a syntax error has SQLSTATE and position');
    await t.rejects(pool.query('SELECT 1/$1::int', [0]), { code: '22012' }, 'so has a failure in the extended protocol');
    await t.rejects(pool.query({ name: 'broken', text: 'SELECT nothing FROM nowhere' }), { code: '42P01' });
    t.same((await pool.query('SELECT 7 AS seven')).rows, [{ seven: 7 }], 'the connection is good after errors');

    const paged: number[] = [];
    const client = await pool.connect();
    await new Promise<void>((resolve, reject) => {
      const query = client.query(new pg.Query({ text: 'SELECT generate_series(1, 25)::int AS i', rows: 10 } as pg.QueryConfig));
      query.on('row', (row) => paged.push(row.i)).on('end', () => resolve()).on('error', reject);
    });
    t.equal(paged.length, 25, 'rows fetched in portions');
    await t.rejects(pool.query('SELECT $1::int', [1, 2]), { code: '08P01', statusCode: undefined }, 'the plugin\'s own mistake is no outage');
    const notice = new Promise<string>((resolve) => client.once('notice', (message) => resolve(message.message!)));
    await client.query('DO $$ BEGIN RAISE NOTICE \'ahoy\'; END $$');
    t.equal(await notice, 'ahoy');
    client.release();
  });

  await t.test('a connection shows whose it is, and has the number that the plugin sees', async (t) => {
    const { pool } = lend(t, url, { plugin: 'it\'s-me' });
    const client = await pool.connect();
    const { rows } = await client.query('SELECT current_setting(\'application_name\') AS name, pg_backend_pid() AS pid');
    t.equal(rows[0].name, 'bulkhead/it\'s-me');
    t.equal(rows[0].pid, (client as unknown as { processID: number }).processID);
    t.notOk(JSON.stringify(pool.options).includes(url), 'the plugin has no URL');
    client.release();
  });

  await t.test('transactions', async (t) => {
    const { pool } = lend(t, url);
    await pool.query('CREATE TABLE crew (name text PRIMARY KEY)');
    const client = await pool.connect();
    await client.query('BEGIN');
    await client.query('INSERT INTO crew VALUES ($1)', ['Ada']);
    t.equal((await pool.query('SELECT FROM crew')).rowCount, 0, 'not seen from outside');
    await client.query('COMMIT');
    t.equal((await pool.query('SELECT FROM crew')).rowCount, 1, 'seen after the commit');
    await client.query('BEGIN');
    await t.rejects(client.query('INSERT INTO crew VALUES ($1)', ['Ada']), { code: '23505', constraint: 'crew_pkey' });
    await t.rejects(client.query('SELECT 1'), { code: '25P02' }, 'a failed transaction stays failed');
    await client.query('ROLLBACK');
    client.release();
    t.same((await pool.query('SELECT name FROM crew')).rows, [{ name: 'Ada' }]);
  });

  await t.test('COPY in both directions, and given up', async (t) => {
    const { pool, lending } = lend(t, url, { quota: 1 });
    await pool.query('CREATE TABLE cargo (id int, name text)');
    interface Wire { query(text: string): void; sendCopyFromChunk(chunk: Buffer): void; endCopyFrom(): void; sendCopyFail(reason: string): void }
    const copy = async (text: string, onCopyIn: (wire: Wire) => void = () => {}): Promise<string> => {
      const client = await pool.connect();
      const out: Buffer[] = [];
      try {
        await new Promise<void>((resolve, reject) => {
          let failure: Error | null = null;
          client.query({
            submit: (wire: unknown) => (wire as Wire).query(text),
            handleCopyInResponse: onCopyIn,
            handleCopyData: (message: { chunk: Buffer }) => out.push(Buffer.from(message.chunk)),
            handleCommandComplete() {},
            handleError: (error: Error) => { failure = error; reject(failure); },
            handleReadyForQuery: () => resolve(),
          } as pg.Submittable);
        });
      } finally {
        client.release();
      }
      return Buffer.concat(out).toString();
    };

    const rows = Array.from({ length: 20_000 }, (_, i) => `${i}\t${'x'.repeat(50)}\n`);
    await copy('COPY cargo FROM STDIN', (wire) => {
      for (let i = 0; i < rows.length; i += 100) wire.sendCopyFromChunk(Buffer.from(rows.slice(i, i + 100).join('')));
      wire.endCopyFrom();
    });
    t.equal(await copy('COPY cargo TO STDOUT'), rows.join(''), '1.1 MB in and out again');
    await t.rejects(copy('COPY cargo FROM STDIN', (wire) => wire.sendCopyFail('changed my mind')), { code: '57014' });
    await sleep(10);
    t.equal((await pool.query('SELECT FROM cargo')).rowCount, rows.length);
    t.equal(lending.count, 1, 'all on one connection');
  });

  await t.test('LISTEN and NOTIFY', async (t) => {
    const { pool } = lend(t, url);
    const listener = await pool.connect();
    const heard = new Promise<pg.Notification>((resolve) => listener.once('notification', resolve));
    await listener.query('LISTEN bell');
    await pool.query('SELECT pg_notify(\'bell\', \'ding\')');
    t.match(await heard, { channel: 'bell', payload: 'ding' });
    listener.release();
  });

  await t.test('200,000 rows come with a bounded number of bytes under way', async (t) => {
    const { pool, peakBytes } = lend(t, url);
    const { rows } = await pool.query('SELECT i AS id, repeat(\'x\', 40) AS text FROM generate_series(1, 200000) AS i');
    t.equal(rows.length, 200_000);
    t.equal(rows.at(-1).id, 200_000);
    t.ok(peakBytes() <= STREAM_WINDOW_BYTES + READ_MAX_BYTES, `${peakBytes()} bytes at most`);
  });

  await t.test('a plugin that does not read holds PostgreSQL back, and gets the rest when it reads again', async (t) => {
    const { pool, peakBytes, lending } = lend(t, url);
    const client = await pool.connect();
    const { stream } = client.connection;
    stream.pause();
    const result = client.query('SELECT repeat(\'x\', 1000) AS text FROM generate_series(1, 20000)');
    await sleep(300);
    t.ok(peakBytes() <= STREAM_WINDOW_BYTES + READ_MAX_BYTES + stream.readableHighWaterMark, `${peakBytes()} of 20 MB`);
    t.ok(stream.readableLength < peakBytes() + 1);
    stream.resume();
    t.equal((await result).rows.length, 20_000);
    client.release();
    t.equal(lending.count, 1);
  });

  await t.test('a parameter of 20 MB goes through whole', async (t) => {
    const { pool } = lend(t, url);
    const { rows } = await pool.query('SELECT $1::text = repeat(\'x\', 20000000) AS same', ['x'.repeat(20_000_000)]);
    t.equal(rows[0].same, true);
  });

  await t.test('a thousand queries at once share four connections', async (t) => {
    const { pool, lending, database } = lend(t, url);
    const results = await Promise.all(Array.from({ length: 1_000 }, (_, i) => pool.query('SELECT $1::int AS i, pg_backend_pid() AS pid', [i])));
    t.ok(results.every(({ rows }, i) => rows[0].i === i), 'every query has its own answer');
    t.equal(new Set(results.map(({ rows }) => rows[0].pid)).size, 4);
    t.equal(lending.count, 4);
    t.same(database.stats, { total: 4, idle: 0, waiting: 0 });
  });

  await t.test('idle connections go back to the pool, clean, and are lent again', async (t) => {
    const { pool, lending, database } = lend(t, url);
    const client = await pool.connect();
    const pid = await pidOf(client);
    await client.query('SET search_path TO nowhere; CREATE TEMP TABLE leftover (); PREPARE old AS SELECT 1; LISTEN bell; SELECT pg_advisory_lock(1)');
    client.release();
    const ms = await eventually('the connection goes back', () => database.stats.idle === 1, LEASE_IDLE_MS + 2_000);
    t.ok(ms > LEASE_IDLE_MS / 2, 'not before it was idle for a while');
    t.equal(lending.count, 0);
    t.equal((await admin.query('SELECT application_name FROM pg_stat_activity WHERE pid = $1', [pid])).rows[0].application_name, 'bulkhead');

    const next = await pool.connect();
    t.equal(await pidOf(next), pid, 'the same connection');
    const { rows } = await next.query(`SELECT current_setting('search_path') AS path, to_regclass('leftover') AS temp,
      (SELECT count(*)::int FROM pg_prepared_statements) AS prepared, (SELECT count(*)::int FROM pg_listening_channels()) AS listening,
      (SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory') AS locks`);
    t.same(rows[0], { path: 'public, public', temp: null, prepared: 0, listening: 0, locks: 0 }, 'nothing is left of the first borrower');
    next.release();
  });

  await t.test('a connection that is not at rest is never lent again', async (t) => {
    const { pool, lending, database } = lend(t, url, { poolMax: 1, quota: 1 });
    const dirt: Record<string, (client: pg.PoolClient) => Promise<unknown>> = {
      'an open transaction': (client) => client.query('BEGIN'),
      'a failed transaction': (client) => client.query('BEGIN').then(() => client.query('SELEC')).catch(() => {}),
      'a batch without its Sync': async (client) => {
        const wire = client.connection as unknown as { parse(query: object): void; flush(): void };
        wire.parse({ name: 'half', text: 'SELECT 1' });
        wire.flush();
        await sleep(20);
      },
      'half a message': async (client) => { client.connection.stream.write(Buffer.from('Q\0\0\x10\0SELECT')); },
      'a COPY in the middle': async (client) => {
        client.connection.query('COPY pg_class TO STDOUT; SELECT pg_sleep(60)');
        await sleep(20);
      },
    };
    for (const [name, make] of Object.entries(dirt)) {
      const client = await pool.connect();
      const pid = await pidOf(client);
      await make(client);
      client.release(true);
      await eventually('the lease is over', () => lending.count === 0);
      const next = await pool.connect();
      t.not(await pidOf(next), pid, name);
      t.notOk(await alive(pid), `${name}: its backend is gone before the place is free`);
      next.release(true);
    }
    await eventually('the last one is back', () => database.stats.idle === 1);
  });

  await t.test('a client that is given up in the middle of a statement has it cancelled', async (t) => {
    const { pool, lending } = lend(t, url, { plugin: 'giver' });
    const client = await pool.connect();
    const pid = await pidOf(client);
    const sleeping = client.query('SELECT pg_sleep(60)');
    sleeping.catch(() => {});
    await sleep(50);
    client.release(true);
    const ms = await eventually('the backend ends', async () => !(await alive(pid)), 1_000);
    t.pass(`gone after ${Math.round(ms)} ms`);
    await t.rejects(sleeping);
    t.equal(lending.count, 0);
  });

  await t.test('a plugin cannot have more connections than its quota', async (t) => {
    const { pool, lending } = lend(t, url, { quota: 2, connections: 3 });
    const clients = [await pool.connect(), await pool.connect()];
    await t.rejects(pool.connect(), { code: 'DATABASE_BUSY', statusCode: 503, message: /2 connections/ });
    t.equal(lending.count, 2);
    clients.pop()!.release(true);
    clients.push(await pool.connect());
    t.pass('one given back makes room for one');
    for (const client of clients) client.release();
  });

  await t.test('connections opened and given back as fast as can be leave nothing behind', async (t) => {
    const { pool, lending, database } = lend(t, url, { quota: 2 });
    const warnings: string[] = [];
    const onWarning = ({ name }: Error): void => void warnings.push(name);
    process.on('warning', onWarning);
    t.teardown(() => process.off('warning', onWarning));
    const pids = new Set<number>();
    await Promise.all([0, 1].map(async () => {
      for (let i = 0; i < 100; i += 1) {
        const client = await pool.connect();
        pids.add(await pidOf(client));
        client.release(true);
      }
    }));
    await eventually('all are back', () => lending.count === 0 && database.stats.idle === database.stats.total);
    t.ok(pids.size <= 2, `${pids.size} backends for 200 loans`);
    t.strictSame(warnings, [], 'no listener is left on the sockets');
  });

  await t.test('a dead generation: its statements are cancelled, its transactions rolled back, its backends gone within a second', async (t) => {
    const { pool, lending, database } = lend(t, url, { plugin: 'doomed', poolMax: 5 });
    await admin.query('CREATE TABLE doom (id int)');
    const clients = await Promise.all([1, 2, 3, 4].map(() => pool.connect()));
    for (const client of clients) client.on('error', () => {});
    await Promise.all(clients.map((client) => client.query('BEGIN')));
    await Promise.all(clients.map((client, i) => client.query('INSERT INTO doom VALUES ($1)', [i])));
    // One that computes, one that has three statements more in its pipe, one with rows that nobody reads, one that is idle.
    for (const text of ['SELECT pg_sleep(60)']) clients[0]!.query(text).catch(() => {});
    for (let i = 0; i < 4; i += 1) clients[1]!.connection.query('SELECT pg_sleep(60)');
    clients[2]!.connection.stream.pause();
    clients[2]!.query('SELECT repeat(\'x\', 1000) FROM generate_series(1, 1000000000)').catch(() => {});
    await sleep(100);
    t.equal(await backends('bulkhead/doomed'), 4);

    const began = performance.now();
    await lending.revokeAll();
    t.equal(await backends('bulkhead/doomed'), 0, `none is left after ${Math.round(performance.now() - began)} ms`);
    t.ok(performance.now() - began < 1_000);
    t.equal(lending.count, 0);
    t.equal((await admin.query('SELECT FROM doom')).rowCount, 0, 'rolled back');
    const fresh = await Promise.all([1, 2, 3, 4, 5].map(() => database.connect()));
    t.equal(fresh.length, 5, 'the pool has all of its places');
    for (const client of fresh) client.release();
  });

  await t.test('a statement that has not begun when the plugin dies does not run on without it', async (t) => {
    for (let round = 0; round < 20; round += 1) {
      const { pool, lending } = lend(t, url, { plugin: `hasty${round}` });
      const client = await pool.connect();
      client.query('SELECT pg_sleep(60)').catch(() => {});
      // The frame is under way: a little earlier or later in each round.
      for (let turn = 0; turn < round % 5; turn += 1) await new Promise(setImmediate);
      await lending.revokeAll();
      if ((await backends(`bulkhead/hasty${round}`)) !== 0) return t.fail(`round ${round}`);
    }
    t.pass('20 rounds');
  });

  await t.test('checkouts that are unfinished at death go to the pool', async (t) => {
    const database = openDatabase(t, url, 2);
    const sent: KernelToHostFrame[] = [];
    const lending = new Lending({ database, scope: shared, onRefused() {}, plugin: 'early', quota: 4, limits: PLUGIN_LIMITS, send: (frame) => void sent.push(frame), log: silent });
    for (const lease of [1, 2, 3, 4]) lending.handle({ kind: 'lease-open', lease });
    await lending.revokeAll();
    await eventually('both connections are in the pool', () => database.stats.idle === 2 && database.stats.waiting === 0);
    t.strictSame(sent, [], 'nobody is told anything');
    lending.handle({ kind: 'lease-open', lease: 5 });
    t.equal(lending.count, 0, 'nothing is lent to the dead');
  });

  await t.test('hostile frames cost at most the connection that they name', async (t) => {
    const database = openDatabase(t, url, 3);
    const sent: KernelToHostFrame[] = [];
    const warnings: string[] = [];
    const log = { warn: (_: object, text: string) => void warnings.push(text) };
    const lending = new Lending({ database, scope: shared, onRefused() {}, plugin: 'hostile', quota: 2, limits: PLUGIN_LIMITS, send: (frame) => void sent.push(frame), log: log as unknown as typeof silent });
    t.teardown(() => lending.revokeAll());
    const handle = (frame: unknown): void => lending.handle(frame as LeaseDataFrame);
    const bystander = await database.connect();

    let lease = 0;
    const open = async (): Promise<number> => {
      lease += 1;
      handle({ kind: 'lease-open', lease });
      await eventually('the connection is lent', () => sent.some((frame) => frame.kind === 'lease-granted' && frame.lease === lease));
      return lease;
    };
    const attacks: Record<string, (lease: number) => void> = {
      'bytes that are no protocol': (lease) => handle({ kind: 'lease-data', lease, data: Buffer.from('GET / HTTP/1.1\r\n\r\n') }),
      'a negative length': (lease) => handle({ kind: 'lease-data', lease, data: Uint8Array.of(0x51, 0xff, 0xff, 0xff, 0xff) }),
      'no bytes at all': (lease) => handle({ kind: 'lease-data', lease, data: 'DROP TABLE' }),
      'shared memory': (lease) => handle({ kind: 'lease-data', lease, data: new Uint8Array(new SharedArrayBuffer(8)) }),
      'another type of view': (lease) => handle({ kind: 'lease-data', lease, data: new Float64Array(8) }),
      'more bytes than there is credit for': (lease) => {
        const copyData = Buffer.alloc(STREAM_WINDOW_BYTES, 'x');
        copyData.write('d');
        copyData.writeInt32BE(0x3000_0000, 1);
        handle({ kind: 'lease-data', lease, data: copyData });
        handle({ kind: 'lease-data', lease, data: copyData });
      },
      'credit for nothing': (lease) => handle({ kind: 'lease-credit', lease, bytes: 1e15 }),
      'negative credit': (lease) => handle({ kind: 'lease-credit', lease, bytes: -1 }),
      'credit that is no number': (lease) => handle({ kind: 'lease-credit', lease, bytes: 'all' }),
      'the same lease again': (lease) => handle({ kind: 'lease-open', lease }),
    };
    for (const [name, attack] of Object.entries(attacks)) {
      const lease = await open();
      attack(lease);
      const ended = sent.find((frame) => frame.kind === 'lease-ended' && frame.lease === lease);
      t.match(ended, { error: { code: 'DATABASE_UNAVAILABLE', statusCode: 503, stack: undefined } }, name);
      handle({ kind: 'lease-data', lease, data: Buffer.from('Q\0\0\0\x04') });
      handle({ kind: 'lease-return', lease });
    }
    t.equal(warnings.length, Object.keys(attacks).length, 'each is logged once');

    await t.test('a message that PostgreSQL does not know', async (t) => {
      const lease = await open();
      handle({ kind: 'lease-data', lease, data: Buffer.from('!\0\0\0\x04') });
      await eventually('PostgreSQL hangs up', () => sent.some((frame) => frame.kind === 'lease-ended' && frame.lease === lease));
      t.match(sent.at(-1), { kind: 'lease-ended', error: { message: /server closed/ } });
    });

    await t.test('frames for leases that are not there, or not yet', async (t) => {
      const before = sent.length;
      for (const lease of [99, -1, NaN, 1e300, 'x', null, undefined, {}, new MessageChannel().port1]) {
        handle({ kind: 'lease-data', lease, data: Buffer.from('x') });
        handle({ kind: 'lease-credit', lease, bytes: 1 });
        handle({ kind: 'lease-return', lease });
        if (!Number.isSafeInteger(lease)) handle({ kind: 'lease-open', lease });
      }
      handle({ kind: 'nonsense', lease: 1 });
      t.equal(sent.length, before, 'are dropped');
      handle({ kind: 'lease-open', lease: 1000 });
      handle({ kind: 'lease-data', lease: 1000, data: Buffer.from('too early') });
      handle({ kind: 'lease-credit', lease: 1000, bytes: 5 });
      handle({ kind: 'lease-return', lease: 1000 });
    });

    await t.test('leases opened and returned by the thousand take no more places than the quota', async () => {
      for (let i = 2_000; i < 12_000; i += 1) {
        handle({ kind: 'lease-open', lease: i });
        handle({ kind: 'lease-return', lease: i });
      }
      t.equal(lending.count, 0);
      t.ok(database.stats.total + database.stats.waiting <= 3);
    });

    await t.test('Terminate gives the connection back and never reaches PostgreSQL', async (t) => {
      const lease = await open();
      const granted = sent.at(-1) as { processId: number };
      const text = Buffer.from('Q\0\0\0\x0dSELECT 1\0');
      handle({ kind: 'lease-data', lease, data: text });
      await eventually('the answer is there', () => sent.at(-1)!.kind === 'lease-data');
      handle({ kind: 'lease-data', lease, data: Buffer.from('X\0\0\0\x04') });
      t.equal(lending.count, 0);
      await eventually('it is in the pool', () => database.stats.idle > 0);
      t.ok(await alive(granted.processId));
    });

    t.equal((await bystander.query('SELECT 1 AS one')).rowCount, 1, 'another borrower has noticed nothing');
    bystander.release();
    const all = await Promise.all([1, 2, 3].map(() => database.connect()));
    for (const client of all) t.equal((await client.query('SELECT 1 AS one')).rowCount, 1);
    for (const client of all) client.release();
  });

  await t.test('a connection that the server ends costs the plugin one failed query, with status 503', async (t) => {
    const { pool, lending, database } = lend(t, url);
    const busy = await pool.connect();
    const idle = await pool.connect();
    const [busyPid, idlePid] = [await pidOf(busy), await pidOf(idle)];
    await busy.query('BEGIN');
    const query = busy.query('SELECT pg_sleep(60)');
    query.catch(() => {});
    // Nobody listens to 'error' on either of them, as in most programs.
    await admin.query('SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid', [[busyPid, idlePid]]);
    t.match(await query.catch((error: Error) => error), { statusCode: 503 });
    await eventually('both leases are over', () => lending.count === 0);
    await t.rejects(idle.query('SELECT 1'));
    busy.release();
    idle.release();
    t.not(await pidOf(pool), busyPid, 'the next query gets another connection');
    t.equal(database.stats.total, 1);
  });

  await t.test('the plugin\'s end closes within a moment, also under clients that were never released', async (t) => {
    const { pool, lent, lending } = lend(t, url, { plugin: 'closer' });
    const held = await pool.connect();
    await held.query('BEGIN');
    const running = pool.query('SELECT pg_sleep(60)');
    running.catch(() => {});
    await eventually('the statement runs', () => lending.count === 2);
    await lent.close();
    await t.rejects(running);
    await eventually('all is given back', async () => lending.count === 0 && (await backends('bulkhead/closer')) === 0, 1_000);
    await lent.close();
    t.pass('closing twice is no error');
  });

  await t.test('in a real worker thread that is killed inside transactions', async (t) => {
    const database = openDatabase(t, url);
    const { port1, port2 } = new MessageChannel();
    const channel = new Channel<KernelToHostFrame, HostToKernelFrame>(port1, { onFrame: (frame) => lending.handle(frame as LeaseDataFrame) });
    const lending = new Lending({ database, scope: shared, onRefused() {}, plugin: 'threaded', quota: 4, limits: PLUGIN_LIMITS, send: (frame, transfer) => channel.send(frame, transfer), log: silent });
    const worker = new Worker(`
      const { parentPort, workerData: { dist, port } } = require('node:worker_threads');
      (async () => {
        const { Channel } = await import(dist + 'protocol/channel.js');
        const { createLentPool } = await import(dist + 'kernel/host/database-client.js');
        const { Tasks } = await import(dist + 'kernel/host/task.js');
        const channel = new Channel(port, { onFrame: (frame) => lent.handle(frame) });
        const lent = createLentPool({ send: (frame, transfer) => channel.send(frame, transfer), connections: 4, tasks: new Tasks(), log: console });
        const { rows } = await lent.pool.query('SELECT $1::text AS text, count(*)::int AS count FROM generate_series(1, 1000)', ['from a thread']);
        parentPort.postMessage(rows[0]);
        for (let i = 0; i < 4; i += 1) lent.pool.query('BEGIN; SELECT pg_sleep(60)').catch(() => {});
      })();
    `, { eval: true, env: {}, execArgv: [], workerData: { port: port2, dist: new URL('../../dist/', import.meta.url).href }, transferList: [port2] });
    t.same(await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject)), { text: 'from a thread', count: 1_000 });
    await eventually('four transactions are open', async () => (await backends('bulkhead/threaded')) === 4);
    await worker.terminate();
    const began = performance.now();
    await lending.revokeAll();
    t.equal(await backends('bulkhead/threaded'), 0, `gone after ${Math.round(performance.now() - began)} ms`);
    t.equal(database.stats.total, 0);
  });

  await t.test('when every connection is busy the wait is bounded and the health check still works', async (t) => {
    const { pool, database } = lend(t, url, { poolMax: 1 });
    const held = await database.connect();
    const began = performance.now();
    const refused = t.rejects(pool.query('SELECT 1'), { code: 'DATABASE_BUSY', statusCode: 503, message: /no connection became free within 5000 ms/ });
    const busyPool = lend(t, url, { quota: 1 });
    const hog = await busyPool.pool.connect();
    const refusedHere = t.rejects(busyPool.pool.query('SELECT 1'), { code: 'DATABASE_BUSY', statusCode: 503, message: /1 connections were all busy/ });
    await database.ping();
    t.ok(performance.now() - began < LEASE_WAIT_MS / 2, 'ping does not wait');
    await refused;
    await refusedHere;
    held.release();
    hog.release();
    t.equal((await pool.query('SELECT 1')).rowCount, 1, 'and then it goes on');
  });
});

t.test('a database that stops and comes back', async (t) => {
  const postgres = await startPostgres(t);
  const lines: string[] = [];
  const log = { info: (line: unknown) => void lines.push(`info ${line}`), warn: (_: object, line: string) => void lines.push(`warn ${line}`) };
  const database = openDatabase(t, postgres.url, 10, log as typeof silent);
  const { pool } = lend(t, postgres.url);
  for (const client of await Promise.all([1, 2, 3].map(() => database.connect()))) client.release();
  await database.ping();
  const inTransaction = await pool.connect();
  await inTransaction.query('BEGIN');
  const failures = new Set<unknown>();
  let served = 0;
  let over = false;
  const load = Promise.all([1, 2, 3].map(async () => {
    while (!over) await pool.query('SELECT pg_sleep(0.01)').then(() => { served += 1; }, (error) => void failures.add(error));
  }));

  const formerPid = postgres.pid!;
  process.kill(formerPid, 'SIGINT');
  await eventually('ping says so', () => database.ping().then(() => false, (error) => error.code === 'DATABASE_UNAVAILABLE'));
  await eventually('so does a checkout', () => database.connect().then((client) => client.release(), (error) => error.statusCode === 503) as Promise<boolean>);
  await eventually('it is back', () => database.ping().then(() => postgres.pid !== formerPid, () => false), 10_000);
  (await database.connect()).release();
  const before = served;
  await eventually('the plugin is served again', () => served > before + 10);
  over = true;
  await load;
  inTransaction.release(true);
  t.ok(failures.size > 0, 'there was an outage');
  t.strictSame([...failures].filter((error) => (error as { statusCode?: number }).statusCode !== 503), [], 'each failure is a 503');
  t.strictSame(lines.slice(0, 2).map((line) => line.split(' ')[0]), ['warn', 'info'], 'the outage is logged once, and its end');
  t.equal(lines.length, 2, lines.join('; '));

  await t.test('a server that takes connections and says nothing', async (t) => {
    process.kill(postgres.pid!, 'SIGSTOP');
    t.teardown(() => process.kill(postgres.pid!, 'SIGCONT'));
    const fresh = openDatabase(t, postgres.url);
    const began = performance.now();
    await t.rejects(fresh.ping(), { code: 'DATABASE_UNAVAILABLE' });
    t.ok(performance.now() - began < DATABASE_PING_TIMEOUT_MS, 'ping is bounded');
  });
});

t.test('what is wrong is said in words, and no secret with it', async (t) => {
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  t.match(await reason(t, `postgresql://me:s3cret@127.0.0.1:${port}/db`), /terminated|reset/);
  await new Promise((resolve) => server.close(resolve));
  t.match(await reason(t, `postgresql://me:s3cret@127.0.0.1:${port}/db`), /ECONNREFUSED/);
  t.match(await reason(t, `postgresql://me:s3cret@localhost:${port}/db`), /ECONNREFUSED/, 'also when there are several addresses');
  t.match(await reason(t, 'postgresql://me:s3cret@localhost:5432/db?host=/nowhere'), /ENOENT/);
  for (const url of ['postgresql://me:s3cret@host:notaport/db', 'postgresql://me:s3cret@host/db?sslmode=verify-full&sslrootcert=/nowhere']) {
    try {
      createDatabase({ url, poolMax: 1, applicationName: 'bulkhead', log: silent });
      t.fail('the URL is wrong');
    } catch (error) {
      t.match(error, { code: 'CONFIG_INVALID' });
      t.notMatch(inspect(error, { depth: 9, showHidden: true }), /s3cret/);
    }
  }
});

async function reason(t: Test, url: string): Promise<string> {
  const lines: unknown[] = [];
  const log = { ...silent, warn: (...args: unknown[]) => void lines.push(args) };
  const database = openDatabase(t, url, 2, log);
  const error = await database.connect().then(() => new Error('it connected'), (error: Error) => error);
  await t.rejects(database.ping(), { code: 'DATABASE_UNAVAILABLE' });
  t.notMatch(inspect([error, lines], { depth: 9 }), /s3cret/);
  t.equal(lines.length, 1, 'one line for the outage');
  return error.message;
}
