// What an error of the database says about the database. Must not know what was asked of it.
import { BulkheadError } from '../../protocol/errors.js';

/** SQLSTATE of an error that the server has sent; empty when it has sent none. */
export function sqlState(error: unknown): string {
  const { code } = (error instanceof BulkheadError ? error.cause ?? {} : error) as { code?: unknown };
  // Each has a digit, unlike EPIPE and its kin.
  return typeof code === 'string' && /^(?=.*\d)[0-9A-Z]{5}$/.test(code) ? code : '';
}

/** Whether there is no server, or one that takes no connections now: it said nothing, lost the connection (class 08), or begins or ends (57P). A server that only turns somebody away is there. */
export function isAway(error: unknown): boolean {
  return /^(|08...|57P..)$/.test(sqlState(error));
}

/** Whether the same may succeed a little later: the server is away, a transaction lost against another (class 40), something has run out (53), or a lock was not to be had. */
export function isPassing(error: unknown): boolean {
  return isAway(error) || /^(40...|53...|55P03)$/.test(sqlState(error));
}
