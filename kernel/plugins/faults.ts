// What a failed step or a death is called in the error catalogue. Must not know what follows from it.
import { BulkheadError, ERRORS, type ErrorCode } from '../../protocol/errors.js';
import type { Death, Fault, PluginState } from '../../protocol/lifecycle.js';
import { CAUSE_MAX_CHARACTERS } from '../../protocol/limits.js';

export type StepCode = Extract<ErrorCode, 'PLUGIN_LOAD_FAILED' | 'PLUGIN_START_FAILED'>;

/** What a step threw, as an error for the operator. One that came from the host with this code has its whole sentence already. */
export function stepError(code: StepCode, name: string, thrown: unknown): BulkheadError {
  if (thrown instanceof BulkheadError) return thrown;
  const { code: thrownCode, message } = thrown as Error & { code?: string };
  const error = new BulkheadError(code, { name, reason: message.slice(0, CAUSE_MAX_CHARACTERS) }, { cause: thrown });
  return thrownCode === code ? Object.assign(error, { message }) : error;
}

/** Why a plugin in this state takes no request. `now` is in milliseconds since 1970. */
export function refusal(name: string, state: PluginState, now: number): BulkheadError {
  if (state.status === 'quarantined') return new BulkheadError('PLUGIN_QUARANTINED', { name, reason: state.fault.message });
  const retryAfterSeconds = state.status === 'restarting' ? Math.max(1, Math.ceil((state.restartAt - now) / 1_000)) : undefined;
  return new BulkheadError('PLUGIN_NOT_RUNNING', { name, status: state.status }, { retryAfterSeconds });
}

export function faultOf(error: BulkheadError): Fault {
  return { code: error.code, message: error.message };
}

export function faultOfDeath(death: Death): Fault {
  return { code: death.kind === 'unresponsive' ? 'PLUGIN_UNRESPONSIVE' : 'PLUGIN_CRASHED', message: death.cause };
}

/** Whether a restart of the same code would fail in the same way. */
export function isPermanent({ code }: Fault): boolean {
  return code === 'PLUGIN_LOAD_FAILED' || code === 'PLUGIN_CONFLICT' || code === 'PLUGIN_MIGRATION_FAILED' || code === 'DEPENDENCY_MISSING' || code === 'DEPENDENCY_CYCLE' || code === 'DATABASE_SETUP_FAILED';
}

/** Whether what a step threw comes from something that the plugin needs and that will be back, such as the database. */
export function isExcuse(thrown: unknown): boolean {
  const code = (thrown as { code?: unknown }).code;
  return typeof code === 'string' && Object.hasOwn(ERRORS, code) && ERRORS[code as ErrorCode].retryable;
}
