// Answers of a plugin that HTTP does not allow: the client gets exactly one clear answer, and nobody else notices.
import { connect } from 'node:net';
import { once } from 'node:events';
import t from 'tap';
import { eventually, startTestKernel } from '../helpers/kernel.js';

const PLUGIN = `
import { Readable } from 'node:stream';
export default {
  name: 'liar', version: '1.0.0',
  async stop() { await globalThis.opened.close(); },
  async init() { globalThis.opened = { close: async () => {} }; },
  limits: { heapMb: 48 },
  async routes(app, ctx) {
    app.addHook('onClose', async () => { ctx.log.info('the onClose hook ran'); });
    app.get('/status-message', (request, reply) => { reply.raw.statusMessage = 'h\\u2192\\r\\nx'; reply.send('x'); });
    app.get('/informational', (request, reply) => { reply.code(103).send('x'); });
    app.get('/long', (request, reply) => { reply.header('content-length', '3'); return reply.send(Readable.from([Buffer.from('abcHTTP/1.1 200 OK\\r\\ncontent-length: 6\\r\\n\\r\\nFORGED')])); });
    app.get('/short', (request, reply) => { reply.header('content-length', '100'); return reply.send(Readable.from([Buffer.from('abc')])); });
    app.get('/whole', (request, reply) => { reply.hijack(); reply.raw.setHeader('content-length', '3'); reply.raw.end('abcFORGED'); });
    app.get('/two-lengths', (request, reply) => { reply.hijack(); reply.raw.writeHead(200, ['content-length', '3', 'content-length', '6']); reply.raw.end('abcdef'); });
    app.get('/odd-length', (request, reply) => { reply.hijack(); reply.raw.writeHead(200, { 'content-length': '0x3' }); reply.raw.end('abc'); });
    app.get('/no-content', (request, reply) => { reply.hijack(); reply.raw.writeHead(204, { 'content-length': '30' }); reply.raw.end(); });
    app.get('/hints', async (request, reply) => { reply.raw.writeEarlyHints({ link: '</' + 'x'.repeat(20000) + '>; rel=preload' }); reply.raw.writeEarlyHints({ link: '</a.css>; rel=preload' }); return { good: true }; });
    app.get('/growing', (request, reply) => {
      const { postMessage } = MessagePort.prototype;
      MessagePort.prototype.postMessage = function (batch, transfer) {
        for (const frame of Array.isArray(batch) ? batch : []) {
          if (frame.kind !== 'chunk') continue;
          frame.data = new Uint8Array(new SharedArrayBuffer(5, { maxByteLength: 500 }));
          transfer = [];
        }
        return postMessage.call(this, batch, transfer);
      };
      return reply.send(Readable.from([Buffer.from('hello')]));
    });
    app.get('/good', async () => ({ good: true }));
  },
};`;

t.test('a plugin cannot break the protocol of the connection it answers on', async (t) => {
  const kernel = await startTestKernel(t, { PLUGINS_ENABLED: 'hello' });
  await kernel.writePlugin('liar', PLUGIN, 'plugin.js');
  t.equal((await kernel.verb('load', 'liar')).status, 200, 'a plugin with a heap of its own loads, though it boots twice');
  t.equal((await kernel.verb('start', 'liar')).status, 200);

  for (const path of ['status-message', 'informational', 'whole', 'two-lengths', 'odd-length']) {
    const answer = await kernel.get(`/plugins/liar/${path}`);
    t.equal(answer.status, 502, `${path} is a bad answer`);
    t.equal(answer.json.code, 'PLUGIN_BAD_ANSWER');
  }

  /** All that is answered to this until the connection ends. */
  const said = async (text: string): Promise<string> => {
    const { hostname, port } = new URL(kernel.url);
    const socket = connect(Number(port), hostname);
    let received = '';
    socket.on('data', (data: Buffer) => (received += data.toString('latin1')));
    socket.write(text);
    await once(socket, 'end');
    socket.end();
    return received;
  };

  for (const path of ['long', 'short']) {
    await t.rejects(kernel.get(`/plugins/liar/${path}`), `an answer that is too ${path} is cut off`);
    const { hostname, port } = new URL(kernel.url);
    const socket = connect(Number(port), hostname);
    let received = '';
    socket.on('data', (data: Buffer) => (received += data.toString()));
    socket.on('error', () => {});
    const closed = once(socket, 'close');
    socket.write(`GET /plugins/liar/${path} HTTP/1.1\r\nhost: x\r\n\r\nGET /plugins/hello/ HTTP/1.1\r\nhost: x\r\n\r\n`);
    await Promise.race([closed, eventually('the connection is closed', 5_000, async () => (socket.destroyed ? true : undefined))]);
    t.notMatch(received, /FORGED/, 'what is beyond the promised length never reaches the client');
  }

  t.strictSame((await kernel.get('/plugins/liar/good')).json, { good: true });
  const both = await said(`GET /plugins/liar/no-content HTTP/1.1\r\nhost: x\r\n\r\nGET /plugins/liar/good HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`);
  t.match(both, /^HTTP\/1\.1 204 No Content\r\n[^]*HTTP\/1\.1 200 OK\r\n[^]*\{"good":true\}$/, 'an answer that can have no body leaves the connection in order');
  t.notMatch(both.split('HTTP/1.1 200')[0], /content-length/i, 'and promises none');
  const hinted = await said('GET /plugins/liar/hints HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
  t.match(hinted, /^HTTP\/1\.1 103 Early Hints\r\nLink: <\/a\.css>; rel=preload\r\n\r\nHTTP\/1\.1 200 OK/i, 'a hint as long as a book is none');
  t.match(await said('GET /plugins/liar/hints HTTP/1.0\r\n\r\n'), /^HTTP\/1\.1 200 OK/, 'HTTP/1.0 has no hints');
  t.equal((await kernel.get('/plugins/hello/')).status, 200);
  t.equal((await kernel.status('liar')).deaths.length, 0, 'the plugin itself lives');

  await t.rejects(kernel.get('/plugins/liar/growing'), 'bytes that could become more on their way are none');
  const [death] = (await eventually('its generation has ended', 5_000, async () => ((await kernel.status('liar')).deaths.length > 0 ? await kernel.status('liar') : undefined))).deaths;
  t.match(death?.cause, /a chunk frame that cannot be handled: its bytes could become more/);
  t.strictSame((await kernel.get('/plugins/liar/good')).json, { good: true });

  t.equal((await kernel.verb('stop', 'liar')).status, 200);
  t.ok(kernel.logLines.some(({ msg }) => msg === 'the onClose hook ran'), 'its onClose hooks run at the stop');
});

t.test('a stop() that never returns is ended, and the operator reads why', async (t) => {
  const kernel = await startTestKernel(t, {});
  await kernel.writePlugin('clinger', `export default { name: 'clinger', version: '1.0.0', stop() { for (;;); } };`, 'plugin.js');
  await kernel.verb('load', 'clinger');
  await kernel.verb('start', 'clinger');
  const stopped = await kernel.verb('stop', 'clinger');
  t.equal(stopped.json.status, 'stopped');
  t.match(stopped.json.transitions.at(-1).cause, /event loop stood still/);
});
