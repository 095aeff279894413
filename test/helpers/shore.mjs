// The neighbours' clients and a probe, in threads apart from the kernel's: a client that shared the kernel's thread could not tell its own delay from the kernel's.
import { once } from 'node:events';
import { Agent, createServer, request as httpRequest } from 'node:http';
import { fileURLToPath } from 'node:url';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { parentPort, Worker, workerData } from 'node:worker_threads';

/** How often the clients tell what they have seen, in milliseconds: not with each answer, which would keep the kernel's thread busy. */
const TELL_MS = 50;

const ROLES = {
  /** Asks `targets` each in a stream of its own until there is a message, and the probe beside each in the same way. */
  async clients({ targets, pauseMs, databaseUrl }) {
    const probe = begin('probe', { databaseUrl });
    const [port] = await once(probe, 'message');
    const agent = new Agent({ keepAlive: true });
    let over = false;
    let seen = [];
    const stream = async (name, shot) => {
      for (let n = 0; !over; n += 1) {
        const began = performance.now();
        const { timed = true, ...one } = shot(n);
        const failure = await ask(agent, one).catch((error) => error.message);
        const end = performance.now();
        seen.push({ name, at: performance.timeOrigin + end, ms: timed ? end - began : null, failure });
        await delay(pauseMs);
      }
    };
    const streams = targets.flatMap(({ name, shots, bounces, database }) => [
      stream(name, (n) => shots[n % shots.length]),
      stream(`probe of ${name}`, () => ({ method: 'GET', url: `http://127.0.0.1:${port}/${bounces}${database ? '/db' : ''}`, status: 200 })),
    ]);
    const timer = setInterval(() => {
      parentPort.postMessage(seen);
      seen = [];
    }, TELL_MS);
    await once(parentPort, 'message');
    over = true;
    await Promise.all(streams);
    clearInterval(timer);
    agent.destroy();
    await probe.terminate();
  },

  /** A server that does nothing but hand each request to another thread and back, as often as its path says; with `/db` it then asks PostgreSQL for nothing. */
  async probe({ databaseUrl }) {
    const db = new pg.Pool({ connectionString: databaseUrl, max: 1 });
    db.on('error', () => {});
    const echo = begin('echo');
    const waiting = new Map();
    let last = 0;
    const bounce = () => new Promise((resolve) => {
      waiting.set((last += 1), resolve);
      echo.postMessage(last);
    });
    echo.on('message', (id) => {
      waiting.get(id)();
      waiting.delete(id);
    });
    const server = createServer(async ({ url }, response) => {
      const [, bounces, query] = url.split('/');
      for (let left = Number(bounces); left > 0; left -= 1) await bounce();
      if (query !== undefined) await db.query('SELECT 1');
      response.end('ok');
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    parentPort.postMessage(server.address().port);
  },

  async echo() {
    parentPort.on('message', (id) => parentPort.postMessage(id));
  },
};

function begin(role, data) {
  return new Worker(fileURLToPath(import.meta.url), { workerData: { role, ...data } });
}

/** Null, or what is wrong with the answer. */
function ask(agent, { method, url, body = '', status }) {
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest(url, { method, agent, headers: body === '' ? {} : { 'content-type': 'application/json', 'content-length': body.length } }, (incoming) => {
      let text = '';
      incoming.setEncoding('utf8').on('data', (chunk) => { text += chunk; }).once('error', reject).once('end', () => resolve(incoming.statusCode === status ? null : `${incoming.statusCode} ${text}`));
    });
    outgoing.once('error', reject).end(body);
  });
}

await ROLES[workerData.role](workerData);
