// The worker's one Piscina task: it lasts as long as the plugin does. Must not know what a host does.
import { expose } from 'comlink';
// @ts-expect-error comlink ships its adapter for Node without types.
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs';
import type { HostBirth } from '../../protocol/host-api.js';
import { Host, hostApi } from './host.js';
import { warmUp, type Load } from './warm-up.js';

export { warmUp };

export async function runHost(birth: HostBirth, load: Load): Promise<void> {
  const host = new Host(birth, load);
  expose(hostApi(host), nodeEndpoint(birth.control));
  await host.finished;
}
