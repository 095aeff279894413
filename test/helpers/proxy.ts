// A way to a PostgreSQL that can be cut, or go silent, while the server itself knows nothing of it.
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Test } from 'tap';

export interface Proxy {
  /** By TCP, to the database of the URL that it was made for. */
  readonly url: string;
  open(): Promise<void>;
  /** Ends all connections; further ones are refused. */
  cut(): Promise<void>;
  /** Ends all connections; further ones are accepted and nothing is said on them. */
  mute(): Promise<void>;
}

/** `url` leads to a unix socket. It begins closed. */
export async function startProxy(t: Test, url: string): Promise<Proxy> {
  const { searchParams, username, pathname } = new URL(url);
  const target = join(searchParams.get('host')!, '.s.PGSQL.5432');
  const sockets = new Set<Socket>();
  let server: Server | null = null;
  let port = 0;
  const listen = async (onSocket: (socket: Socket) => void): Promise<void> => {
    const made = server = createServer((socket) => {
      sockets.add(socket.on('error', () => {}).once('close', () => sockets.delete(socket)));
      onSocket(socket);
    });
    await new Promise<void>((resolve) => made.listen(port, '127.0.0.1', resolve));
    ({ port } = made.address() as AddressInfo);
  };
  const cut = async (): Promise<void> => {
    const gone = server === null ? null : new Promise((resolve) => server!.close(resolve));
    server = null;
    for (const socket of sockets) socket.destroy();
    await gone;
  };
  const pass = (socket: Socket): void => {
    const other = connect(target);
    sockets.add(other.on('error', () => {}).once('close', () => { sockets.delete(other); socket.destroy(); }));
    socket.once('close', () => other.destroy());
    socket.pipe(other).pipe(socket);
  };
  await listen(pass);
  await cut();
  t.teardown(cut);
  return {
    url: `postgresql://${username}@127.0.0.1:${port}${pathname}`,
    open: async () => { await cut(); await listen(pass); },
    cut,
    mute: async () => { await cut(); await listen(() => {}); },
  };
}
