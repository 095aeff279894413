// What a client may ask, what a good answer to it looks like, and what it changes. Must not know faults, nor what answers are forgiven.
import { byteAt } from './fragile.js';
import type { Question, Reply } from './connection.js';
import type { Random } from './random.js';

/** What an act does to the database when it takes effect. */
export type Effect =
  /** One more row with this key, in which a stream's length is noted. */
  | { readonly kind: 'row'; readonly plugin: string; readonly key: string; readonly bytes: number | null }
  /** The register has this value from now on; null when it is deleted. */
  | { readonly kind: 'register'; readonly plugin: string; readonly key: string; readonly value: number | null }
  | { readonly kind: 'none' };

export interface Act {
  readonly plugin: string;
  readonly question: Question;
  readonly effect: Effect;
  /** A plugin whose service it needs as well. */
  readonly peer: string | null;
  /** By RFC 9110: to do it twice is to do it once. */
  readonly idempotent: boolean;
  /** Whether the request or its answer travels in pieces: what has left cannot be taken back, so it cannot be tried again. */
  readonly streams: boolean;
  /** What is wrong with a 2xx, or null. */
  readonly flaw: (reply: Reply) => string | null;
}

/** Who asks: keys and registers are its own, so that nobody else's writes are mixed up with its. */
export interface Asker {
  readonly name: string;
  readonly random: Random;
  count: number;
  /** Values that a register may have as far as this asker can know. */
  readonly possible: (plugin: string, key: string) => ReadonlySet<number | null>;
}

export const FRAGILE = ['fragile-1', 'fragile-2'] as const;
/** Never touched by faults, and the first not even by the operator. */
export const NEIGHBOURS = ['hello', 'items'] as const;
/** Plugins under load. */
export const LOADED = [...NEIGHBOURS, ...FRAGILE] as const;
export const peerOf = (plugin: string): string => FRAGILE.find((other) => other !== plugin)!;

const KINDS = { echo: 10, slow: 20, relay: 8, row: 20, transaction: 10, upload: 6, download: 6, put: 14, read: 14, remove: 4 } as const;

/** URLs are never used twice, also in the next round, because one that has ended two generations is refused for a minute. */
export function nextAct(asker: Asker): Act {
  const { random } = asker;
  const key = `${asker.name}-${(asker.count += 1)}`;
  const plugin = random.weighted({ 'hello': 10, 'items': 20, 'fragile-1': 35, 'fragile-2': 35 });
  if (plugin === 'hello') return act({ plugin, question: { method: 'GET', path: `/plugins/hello/?n=${key}` }, flaw: (reply) => differs(reply, 200, { message: 'Hello from plugin' }) });
  if (plugin === 'items') return random.chance(0.5) ? createItem(key) : act({ plugin, question: { method: 'GET', path: `/plugins/items/?limit=3&n=${key}` }, flaw: ({ status }) => (status === 200 ? null : 'it is no list') });
  return fragileAct(asker, plugin, key);
}

function fragileAct(asker: Asker, plugin: string, key: string): Act {
  const { random } = asker;
  const base = `/plugins/${plugin}`;
  const get = (path: string, more: Partial<Act> = {}): Act => act({ plugin, question: { method: 'GET', path: base + path }, flaw: (reply) => differs(reply, 200, { key }), ...more });
  const post = (path: string, more: Partial<Act> = {}): Act => act({
    plugin, idempotent: false, question: { method: 'POST', path: base + path }, effect: { kind: 'row', plugin, key, bytes: null }, flaw: (reply) => differs(reply, 201, { key }), ...more,
  });
  const register = `${asker.name}-r${random.whole(0, 1)}`;
  const kind = random.weighted(KINDS);
  switch (kind) {
    case 'echo': return get(`/echo/${key}`);
    case 'slow': return get(`/slow/${key}?ms=${random.whole(5, 120)}`);
    case 'relay': return get(`/relay/${key}`, { peer: peerOf(plugin) });
    case 'row': return post(`/rows/${key}?ms=${random.whole(0, 80)}`);
    case 'transaction': return post(`/transactions/${key}`);
    case 'upload': return upload(post, key, plugin, random);
    case 'download': {
      const bytes = random.whole(1_000, 400_000);
      return get(`/downloads/${bytes}?n=${key}`, { streams: true, flaw: ({ status, body }) => (status === 200 && body.byteLength === bytes && body.every((byte, place) => byte === byteAt(place)) ? null : `it is not the ${bytes} bytes`) });
    }
    case 'put': return change(plugin, 'PUT', `${base}/registers/${register}/${asker.count}?n=${key}`, register, asker.count);
    case 'remove': return change(plugin, 'DELETE', `${base}/registers/${register}?n=${key}`, register, null);
    case 'read': return get(`/registers/${register}?n=${key}`, { flaw: (reply) => {
      const values = [...asker.possible(plugin, register)];
      return values.some((value) => differs(reply, 200, { key: register, value }) === null) ? null : `the register has one of ${JSON.stringify(values)}`;
    } });
  }
}

function upload(post: (path: string, more: Partial<Act>) => Act, key: string, plugin: string, random: Random): Act {
  const body = Array.from({ length: random.whole(2, 6) }, () => Buffer.alloc(random.whole(1_000, 80_000), 'x'));
  const bytes = body.reduce((sum, { byteLength }) => sum + byteLength, 0);
  return post(`/uploads/${key}`, {
    question: { method: 'POST', path: `/plugins/${plugin}/uploads/${key}`, body, contentType: 'application/octet-stream', chunked: random.chance(0.5) },
    streams: true,
    effect: { kind: 'row', plugin, key, bytes },
    flaw: (reply) => differs(reply, 201, { key, bytes }),
  });
}

function change(plugin: string, method: 'PUT' | 'DELETE', path: string, key: string, value: number | null): Act {
  return act({ plugin, question: { method, path }, effect: { kind: 'register', plugin, key, value }, flaw: (reply) => differs(reply, 200, { key }) });
}

function createItem(key: string): Act {
  return act({
    plugin: 'items', idempotent: false, effect: { kind: 'row', plugin: 'items', key, bytes: null },
    question: { method: 'POST', path: '/plugins/items/', body: [Buffer.from(JSON.stringify({ name: key }))] },
    flaw: ({ status, body }) => (status === 201 && body.includes(`"name":"${key}"`) ? null : 'it is not the item'),
  });
}

function act(given: Pick<Act, 'plugin' | 'question' | 'flaw'> & Partial<Act>): Act {
  return { effect: { kind: 'none' }, peer: null, idempotent: true, streams: false, ...given };
}

function differs({ status, body }: Reply, expectedStatus: number, expected: object): string | null {
  const text = JSON.stringify(expected);
  return status === expectedStatus && body.equals(Buffer.from(text)) ? null : `it should be ${expectedStatus} ${text}`;
}
