// Run once, when the system is built: keeps what V8 has compiled of the host. Must not know what is in it.
import { compileHost, load } from './compiled.js';

const { host, keep } = compileHost();
// Functions are compiled when they are first called.
await host.warmUp(load);
keep();
process.exit();
