// Ends a connection whatever the server is doing on it, and finds out that it has ended. Must not know pools or why.
import type { Socket } from 'node:net';
import pg, { type PoolClient } from 'pg';
import { DATABASE_CANCEL_TIMEOUT_MS, DATABASE_HANG_UP_WAITS_MS, DATABASE_IDLE_HANG_UP_MS } from '../../protocol/database-limits.js';

/** What pg has and its types leave out. */
interface ClientInternals { readonly processID: number; readonly secretKey: number; readonly sslNegotiation: string }
interface ConnectionInternals { connect(port: number | string, host?: string): void; requestSsl(): void; cancel(processId: number, secretKey: number): void }

/** The socket of an authenticated client, encrypted where the connection is. */
export function socketOf(client: PoolClient): Socket {
  return client.connection.stream as Socket;
}

/** Number of the client's server process. */
export function processIdOf(client: PoolClient): number {
  return (client as unknown as ClientInternals).processID;
}

/**
 * Ends our side of the connection and cancels whatever the server still does on it until the server ends its side as well.
 * A closed socket alone does not stop a statement, and one cancel request may come before the statement that it is meant for.
 * An idle server process ends by itself and is given the time for it: with many at once, cancel requests would only keep them from it. Resolves to whether it has ended.
 */
export async function hangUp(client: PoolClient, busy: boolean): Promise<boolean> {
  const socket = socketOf(client);
  socket.removeAllListeners('data');
  // A server that cannot get rid of its rows does not hear us either.
  socket.resume();
  socket.end();
  for (const ms of busy ? DATABASE_HANG_UP_WAITS_MS : [DATABASE_IDLE_HANG_UP_MS, ...DATABASE_HANG_UP_WAITS_MS]) {
    if (await closesWithin(socket, ms)) return true;
    sendCancel(client);
  }
  socket.destroy();
  return false;
}

/** Whether it is closed within `ms`. */
export function closesWithin(socket: Socket, ms: number): Promise<boolean> {
  if (socket.closed) return Promise.resolve(true);
  return new Promise((resolve) => {
    const onClose = (): void => {
      clearTimeout(timer);
      resolve(true);
    };
    const timer = setTimeout(() => {
      socket.off('close', onClose);
      resolve(false);
    }, ms);
    socket.once('close', onClose);
  });
}

/** Asks the server, over a connection of its own, to cancel what this client is running. */
function sendCancel(client: PoolClient): void {
  const { processID, secretKey, sslNegotiation } = client as unknown as ClientInternals;
  const { host, port, ssl } = client;
  const connection = new pg.Connection({ ssl, sslNegotiation } as object) as pg.Connection & ConnectionInternals;
  const timer = setTimeout(() => connection.stream.destroy(), DATABASE_CANCEL_TIMEOUT_MS);
  const cancel = (): void => connection.cancel(processID, secretKey);
  connection.on('error', () => {});
  connection.once('end', () => clearTimeout(timer));
  if (!ssl) connection.once('connect', cancel);
  else if (sslNegotiation !== 'direct') connection.once('connect', () => connection.requestSsl());
  connection.once('sslconnect', cancel);
  if (host.startsWith('/')) connection.connect(`${host}/.s.PGSQL.${port}`);
  else connection.connect(port, host);
}
