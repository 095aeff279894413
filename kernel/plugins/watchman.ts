// One plugin as those see it who ask its interceptors: whether it runs, its workers, and why there is nobody. Must not know what is asked.
import type { Interceptor } from '../intercept/interceptors.js';
import type { Questions } from '../intercept/questions.js';
import { refusal } from './faults.js';
import type { PluginRecord } from './record.js';
import type { Workers } from './workers.js';

export class Watchman implements Interceptor {
  readonly #record: PluginRecord;
  readonly #workers: Workers;

  constructor(record: PluginRecord, workers: Workers) {
    this.#record = record;
    this.#workers = workers;
  }

  get name(): string {
    return this.#record.name;
  }

  get running(): boolean {
    return this.#record.is('running');
  }

  get crew(): readonly Questions[] {
    return this.#workers.all.map(({ questions }) => questions);
  }

  get absence(): Interceptor['absence'] {
    const { status } = this.#record.state;
    // One that has just died is not known to come back yet.
    if (status === 'running') return { reason: 'its worker has ended', retryAfterSeconds: undefined };
    const { retryAfterSeconds } = refusal(this.name, this.#record.state, Date.now());
    const remedy = !this.#record.is('stopped', 'failed', 'quarantined', 'mounted') ? '' : `; start it with POST /plugins/start/${this.name}, or unload it to do without it`;
    return { reason: `it is ${status}${remedy}`, retryAfterSeconds };
  }
}
