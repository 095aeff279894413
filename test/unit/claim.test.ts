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
