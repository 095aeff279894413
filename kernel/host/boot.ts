// The first of a worker's own code: the host, compiled. Must not know what a host is made of.
import type { HostBirth } from '../../protocol/host-api.js';
import { compileHost, load } from './compiled.js';

const { runHost } = compileHost().host;

export default (birth: HostBirth): Promise<void> => runHost(birth, load);
