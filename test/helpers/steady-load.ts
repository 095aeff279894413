// A steady stream of requests, some on kept connections and some on new ones, and a record of each. Must not know what is asked for.
import { Agent, request as httpRequest } from 'node:http';

export interface Shot {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  /** Sent as JSON. */
  readonly body?: unknown;
}

export interface Hit {
  readonly shot: Shot;
  readonly newConnection: boolean;
  /** Both in milliseconds of `performance.now()`. */
  readonly begin: number;
  readonly end: number;
  /** HTTP status, or the code of the error. */
  readonly result: number | string;
  readonly text: string;
}

/** Longer than any wait that the system promises. */
const PATIENCE_MS = 15_000;

export class SteadyLoad {
  /** In order of their end. */
  readonly hits: Hit[] = [];
  readonly #url: URL;
  readonly #next: (count: number) => Shot;
  readonly #agent = new Agent({ keepAlive: true });
  readonly #open = new Set<Promise<void>>();
  readonly #timer: NodeJS.Timeout;
  readonly #began = performance.now();
  #count = 0;

  constructor(url: string, perSecond: number, next: (count: number) => Shot) {
    this.#url = new URL(url);
    this.#next = next;
    this.#timer = setInterval(() => {
      // Timers come late on a busy machine; what they owe is made up for, a little at a time.
      const due = Math.min(10, Math.floor(((performance.now() - this.#began) * perSecond) / 1_000) - this.#count);
      for (let i = 0; i < due; i += 1) this.#fire();
    }, 5);
  }

  /** Ends the stream and waits for the last answers. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all(this.#open);
    this.#agent.destroy();
  }

  #fire(): void {
    const count = (this.#count += 1);
    const shot = this.#next(count);
    const newConnection = count % 2 === 0;
    const begin = performance.now();
    const done = new Promise<void>((resolve) => {
      const settle = (result: number | string, text = ''): void => {
        this.hits.push({ shot, newConnection, begin, end: performance.now(), result, text });
        resolve();
      };
      const { hostname, port } = this.#url;
      const request = httpRequest({
        hostname, port, method: shot.method, path: shot.path, agent: newConnection ? false : this.#agent, signal: AbortSignal.timeout(PATIENCE_MS),
        ...(shot.body !== undefined && { headers: { 'content-type': 'application/json' } }),
      }, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
        response.once('end', () => settle(response.statusCode ?? 0, text)).once('error', (error: NodeJS.ErrnoException) => settle(error.code ?? error.message));
      });
      request.once('error', (error: NodeJS.ErrnoException) => settle(error.code ?? error.message));
      request.end(shot.body === undefined ? undefined : JSON.stringify(shot.body));
    });
    this.#open.add(done);
    void done.then(() => this.#open.delete(done));
  }
}
