// An error of another thread, as an Error again. Must not know where it was thrown.
import type { PlainError } from '../../protocol/errors.js';

/** An error as it was thrown on the other side, but for its class. */
export function revive({ name, message, code, statusCode, cause }: PlainError): Error {
  return Object.assign(new Error(message, cause === undefined ? undefined : { cause: revive(cause) }), { name, code, statusCode });
}
