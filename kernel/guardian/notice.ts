// What clients hear from the guardian itself while there is no kernel to answer them. Must not know why there is none.
import { createServer, STATUS_CODES, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { BulkheadError, REQUEST_ID_HEADER, type ErrorBody } from '../../protocol/errors.js';
import { DATABASE_PING_TIMEOUT_MS } from '../../protocol/database-limits.js';
import { NOTICE_TIMEOUT_MS } from '../../protocol/guardian-limits.js';
import { CONNECTIONS_CLOSE_TIMEOUT_MS } from '../../protocol/limits.js';
import { Connections } from '../connections.js';

export interface NoticeOptions {
  /** Undefined while it is not known. */
  readonly databaseUrl: () => string | undefined;
  /** Why nobody else answers, now. */
  readonly cause: () => BulkheadError<'KERNEL_STARTING' | 'KERNEL_UNAVAILABLE' | 'KERNEL_STOPPING'>;
}

export class Notice {
  readonly #connections: Connections;
  readonly #options: NoticeOptions;
  #count = 0;

  constructor(options: NoticeOptions) {
    this.#options = options;
    const server = createServer((request, response) => void this.#answer(request, response));
    server.timeout = NOTICE_TIMEOUT_MS;
    this.#connections = new Connections(server);
  }

  /** Answers one request of a connection, and closes it: the next one shall find a kernel. */
  readonly give = (socket: Socket): void => this.#connections.accept(socket);

  /** Waits for the last answers to leave. */
  close(): Promise<void> {
    return this.#connections.close(CONNECTIONS_CLOSE_TIMEOUT_MS);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const error = this.#options.cause();
    const requestId = `guardian-${(this.#count += 1).toString(36)}`;
    const path = request.url?.split('?')[0];
    // Not alive either: what a container engine asks is whether its service is, and a guardian whose kernel cannot boot for
    // minutes may well be mended by a new container.
    const body = path === '/health/live' ? { status: 'error', reason: error.message }
      : path === '/health' || path === '/health/ready' ? { status: 'error', database: await this.#database(), reason: error.message }
        : { statusCode: error.statusCode, code: error.code, error: STATUS_CODES[error.statusCode] ?? 'Error', message: error.message, requestId } satisfies ErrorBody;
    const text = JSON.stringify(body);
    response.writeHead(error.statusCode, {
      'content-type': 'application/json; charset=utf-8', 'content-length': Buffer.byteLength(text), 'retry-after': String(error.retryAfterSeconds ?? 1), connection: 'close', [REQUEST_ID_HEADER]: requestId,
    });
    response.end(request.method === 'HEAD' ? undefined : text);
  }

  /** Whether the server takes connections: the guardian has no credentials to say hello with. */
  async #database(): Promise<'ok' | 'error'> {
    const url = this.#options.databaseUrl();
    if (url === undefined) return 'error';
    const { hostname, port, searchParams } = new URL(url);
    const host = searchParams.get('host') ?? hostname;
    const number = Number(port || 5_432);
    const socket = host.startsWith('/') ? connect(`${host}/.s.PGSQL.${number}`) : connect(number, host);
    return new Promise((resolve) => {
      const settle = (word: 'ok' | 'error'): void => {
        socket.destroy();
        resolve(word);
      };
      socket.setTimeout(DATABASE_PING_TIMEOUT_MS, () => settle('error')).once('connect', () => settle('ok')).once('error', () => settle('error'));
    });
  }
}
