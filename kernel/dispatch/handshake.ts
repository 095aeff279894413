// The head with which a plugin answers the wish for a tunnel: it switches to another protocol, or refuses. Must not know sockets or frames.
import { TUNNEL_HEAD_MAX_BYTES } from '../../protocol/limits.js';

const NOTHING = new Uint8Array();

export class HandshakeAnswer {
  #head: Buffer = Buffer.alloc(0);
  #status = 0;

  /** Of the answer; 0 until its head is complete. */
  get status(): number {
    return this.#status;
  }

  get switches(): boolean {
    return this.#status === 101;
  }

  /**
   * Takes the plugin's bytes until the head is complete, and returns what the client is to get of them. A refusal leaves as the last answer on its
   * connection: what the client says after it is for another plugin, perhaps another client's words through the same proxy. Throws when this is no answer.
   */
  read(bytes: Uint8Array): Uint8Array {
    this.#head = Buffer.concat([this.#head, bytes]);
    const end = this.#head.indexOf('\r\n\r\n');
    if (end > TUNNEL_HEAD_MAX_BYTES || (end < 0 && this.#head.byteLength > TUNNEL_HEAD_MAX_BYTES)) throw new RangeError(`its head has more than ${TUNNEL_HEAD_MAX_BYTES} bytes`);
    if (end < 0) return NOTHING;
    const text = this.#head.toString('latin1', 0, end);
    const status = Number(/^HTTP\/1\.1 (\d{3})(?: |\r|$)/.exec(text)?.[1] ?? 0);
    if (status !== 101 && status < 200) throw new TypeError('it begins with no HTTP/1.1 answer that is final');
    this.#status = status;
    const all = this.#head;
    this.#head = Buffer.alloc(0);
    if (this.switches || /\r\nconnection:[ \t]*close[ \t]*(?:\r\n|$)/i.test(text)) return all;
    const [first, ...others] = text.split('\r\n').filter((line) => !/^(?:connection|keep-alive)[ \t]*:/i.test(line));
    return Buffer.concat([Buffer.from([first, 'Connection: close', ...others].join('\r\n'), 'latin1'), all.subarray(end)]);
  }
}
