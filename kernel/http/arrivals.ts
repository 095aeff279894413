// Requests that came before their plugin, while the kernel boots. Must not know what becomes of them.
import { KERNEL_BOOT_WAIT_MS, KERNEL_BOOT_WAITING_MAX } from '../../protocol/limits.js';
import type { Lifecycle } from '../plugins/lifecycle.js';
import type { Mounted } from '../plugins/mounts.js';
import type { Supervisor } from '../plugins/supervisor.js';

export class Arrivals {
  readonly #supervisor: Supervisor;
  #waiting = 0;

  constructor(supervisor: Supervisor) {
    this.#supervisor = supervisor;
  }

  /** The plugin that has the path, when it is known as well who has a say in its requests. */
  now(path: string): Mounted<Lifecycle> | undefined {
    const { interceptors, mounts } = this.#supervisor;
    return interceptors.complete ? mounts.resolve(path) : undefined;
  }

  /** Resolves with the plugin that has the path, once it has and a guard cannot be missing; with undefined when the boot is over or KERNEL_BOOT_WAIT_MS have passed without it. */
  async of(path: string): Promise<Mounted<Lifecycle> | undefined> {
    const supervisor = this.#supervisor;
    if (supervisor.booted || this.#waiting >= KERNEL_BOOT_WAITING_MAX) return undefined;
    this.#waiting += 1;
    try {
      return await new Promise((resolve) => {
        const settle = (mounted: Mounted<Lifecycle> | undefined): void => {
          clearTimeout(timer);
          forget();
          resolve(mounted);
        };
        const timer = setTimeout(() => settle(undefined), KERNEL_BOOT_WAIT_MS);
        const look = (): void => {
          const mounted = this.now(path);
          if (mounted !== undefined) settle(mounted);
        };
        const forget = supervisor.onTransition(look);
        void supervisor.interceptors.whenComplete.then(look);
        void supervisor.whenBooted.then(() => settle(this.now(path)));
      });
    } finally {
      this.#waiting -= 1;
    }
  }
}
