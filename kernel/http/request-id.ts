// The name of a request in every log line and answer about it: the client's own, or one of ours. Must not know who asks for it.
import { randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { REQUEST_ID_HEADER } from '../../protocol/errors.js';

/** What ids of others look like: UUIDs, ULIDs, traces, base64. Anything else could be meant to confuse those who read logs. */
const ACCEPTABLE = /^[\w.:+/=@-]{1,128}$/;

export type IdOfRequest = (req: Pick<IncomingMessage, 'headers'>) => string;

/** Ours are unique over restarts of the kernel, and cheap: this runs once per request. */
export function requestIds(): IdOfRequest {
  const prefix = randomBytes(6).toString('base64url');
  let count = 0;
  return ({ headers }) => {
    const wish = headers[REQUEST_ID_HEADER];
    return typeof wish === 'string' && ACCEPTABLE.test(wish) ? wish : `${prefix}-${(count += 1).toString(36)}`;
  };
}
