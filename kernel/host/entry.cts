// Where Piscina's worker begins. CommonJS, because Piscina requires it: to require an ES module in a thread that is ended at that moment aborts the whole process (Node 20.20, `Module::IsGraphAsync`). Must not know what a host is made of.
import type { HostBirth } from '../../protocol/host-api.js' with { 'resolution-mode': 'import' };

export = async (birth: HostBirth): Promise<void> => (await import('./boot.js')).default(birth);
