// A manifest that a worker claims to have is believed as far as it could be a plugin's own.
import t from 'tap';
import { readClaim, readManifest, type PluginManifest } from '../../protocol/plugin.js';

const { manifest } = readManifest({ name: 'honest', version: '1.0.0', mounts: ['/h'], limits: { connections: 2 }, grants: [{ to: 'other', tables: ['a'], privileges: ['select'] }] }, 'honest') as { manifest: PluginManifest };

t.test('an honest claim is what it was', async (t) => {
  t.strictSame(readClaim(structuredClone(manifest), 'honest'), manifest);
});

t.test('another name, further mounts of the kernel, and limits beyond all ranges are refused', async (t) => {
  const lies: [change: object, problem: RegExp][] = [
    [{ name: 'victim' }, /"victim" but its folder is "honest"/],
    [{ mounts: ['/plugins/honest', '/plugins/victim'] }, /belongs to the kernel/],
    [{ mounts: 'x' }, /`mounts` must be an array/],
    [{ limits: { ...manifest.limits, connections: 1e9 } }, /limits\.connections/],
    [{ limits: { ...manifest.limits, statementTimeoutMs: '0; DROP TABLE items' } }, /limits\.statementTimeoutMs/],
    [{ limits: null }, /`limits` must be an object/],
    [{ threads: 1e9 }, /`threads`/],
    [{ permissions: ['everything'] }, /permissions/],
    [{ grants: [{ to: 'x"; DROP ROLE y', tables: ['a'], privileges: ['select'] }] }, /grants\[0\]\.to/],
    [{ topics: { 'kernel.plugin.running': {} } }, /only the kernel/],
    [{ grants: [{ to: 'other', tables: ['a'], privileges: ['all'] }] }, /grants\[0\]\.privileges/],
  ];
  for (const [change, problem] of lies) t.throws(() => readClaim({ ...manifest, ...change }, 'honest'), { message: problem }, JSON.stringify(change));
  for (const nothing of [null, undefined, 7, 'manifest', []]) t.throws(() => readClaim(nothing, 'honest'), /must be/, String(nothing));
  t.strictSame(readClaim({ ...manifest, mounts: ['/plugins/victim', '/h'] }, 'honest').mounts, ['/plugins/honest', '/h'], 'its first mount is always its own');
});

t.test('interceptors are what they say, or refused', async (t) => {
  const read = (interceptor: object): PluginManifest => (readManifest({ name: 'honest', version: '1.0.0', interceptors: [interceptor] }, 'honest') as { manifest: PluginManifest }).manifest;
  const honest = read({ failMode: 'closed', paths: ['/a/**'], onRequest() {}, onResponse: { headers: { 'X-A': 'b', 'x-c': null, 'x-d': ['1', '2'] } } });
  t.match(honest.interceptors, [{ paths: ['/a/**'], methods: [], order: 0, failMode: 'closed', onRequest: true, onResponse: { headers: { 'X-A': 'b' } } }]);
  t.strictSame(readClaim(JSON.parse(JSON.stringify(honest)), 'honest'), honest);
  const asking = read({ failMode: 'open', onResponse() {} });
  t.strictSame(readClaim(structuredClone(asking), 'honest'), asking);

  const lies: [change: object, problem: RegExp][] = [
    [{ paths: ['items'] }, /interceptors\[0\]\.paths.*must begin with/], [{ paths: '/items' }, /\.paths/], [{ paths: ['/(a+)+$*'] }, /no segment/], [{ paths: Array(33).fill('/a') }, /at most 32/],
    [{ methods: ['get'] }, /\.methods/], [{ order: 0.5 }, /\.order/], [{ order: 1_001 }, /\.order/], [{ timeoutMs: 0 }, /\.timeoutMs/], [{ timeoutMs: 1e9 }, /\.timeoutMs/], [{ failMode: 'ajar' }, /\.failMode/],
    [{ onRequest: 'yes' }, /\.onRequest/], [{ onRequest: undefined }, /neither/], [{ onResponse: 7 }, /\.onResponse/], [{ onResponse: null }, /onResponse/],
    ...['content-length', 'Transfer-Encoding', 'connection', 'upgrade', 'HOST', 'x-request-id', 'te', 'trailer', 'keep-alive', 'a b', '', 'a:b'].map((name): [object, RegExp] => [{ onResponse: { headers: { [name]: 'x' } } }, /onResponse` cannot be/]),
    ...['a\r\nb: c', '\0', '\u20ac', 5, undefined, {}].map((value): [object, RegExp] => [{ onResponse: { headers: { 'x-a': value } } }, /onResponse` cannot be/]),
    [{ onResponse: { headers: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`x-${i}`, ''])) } }, /at most 64/], [{ onResponse: { headers: { 'x-a': 'a'.repeat(9_000) } } }, /8192/],
  ];
  for (const [change, problem] of lies) t.throws(() => readClaim({ ...manifest, interceptors: [{ failMode: 'open', onRequest: true, ...change }] }, 'honest'), { message: problem }, JSON.stringify(change).slice(0, 80));
  for (const list of [5, {}, Array(17).fill({ failMode: 'open', onRequest: true })]) t.throws(() => readClaim({ ...manifest, interceptors: list }, 'honest'), /interceptors/);
  for (const nothing of [null, 5, 'x']) t.throws(() => readClaim({ ...manifest, interceptors: [nothing] }, 'honest'), /interceptors\[0\]/);
});
