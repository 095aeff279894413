// The states of a plugin, each with the data that state has, and the table of allowed transitions. Must not know what causes a transition.

/** Why a generation ended. */
export type DeathKind =
  | 'stopped'       // the operator or the kernel asked for it
  | 'crashed'       // threw outside a handler, rejected unhandled, or called process.exit
  | 'out-of-memory' // heap exhausted
  | 'unresponsive'  // ended by the watchdog
  | 'failed'        // a lifecycle hook threw or timed out
  ;

/** One death of a generation, as the operator sees it. */
export interface Death {
  readonly kind: DeathKind;
  /** One sentence, without a stack. */
  readonly cause: string;
  /** The generation that died. */
  readonly generation: number;
  /** Milliseconds since 1970. */
  readonly at: number;
  /** Method and URL of the request that was being handled, where that is known. */
  readonly request: string | null;
}

/** Why a plugin failed, in the words of the error catalogue. */
export interface Fault {
  readonly code: string;
  readonly message: string;
}

export type PluginState =
  | { readonly status: 'registered' }
  | { readonly status: 'initialized'; readonly generation: number }
  | { readonly status: 'mounted'; readonly generation: number }
  | { readonly status: 'started'; readonly generation: number }
  | { readonly status: 'running'; readonly generation: number }
  | { readonly status: 'stopping'; readonly generation: number }
  | { readonly status: 'stopped' }
  | { readonly status: 'failed'; readonly fault: Fault }
  | { readonly status: 'restarting'; readonly fault: Fault; readonly restartAt: number }
  | { readonly status: 'quarantined'; readonly fault: Fault };

export type PluginStatus = PluginState['status'];

/** From each state, the states that may follow. */
export const TRANSITIONS: { readonly [S in PluginStatus]: readonly PluginStatus[] } = Object.freeze({
  registered: ['initialized', 'failed', 'stopped', 'quarantined'],
  initialized: ['mounted', 'stopping', 'failed'],
  mounted: ['started', 'stopping', 'failed'],
  started: ['running', 'stopping', 'failed'],
  running: ['stopping', 'failed'],
  stopping: ['stopped'],
  stopped: ['initialized', 'failed', 'registered'],
  failed: ['restarting', 'quarantined', 'initialized', 'stopped', 'registered', 'failed'],
  restarting: ['initialized', 'stopped', 'failed', 'registered'],
  quarantined: ['initialized', 'stopped', 'failed', 'registered'],
});

/** One change of state, as it is logged, published and kept. */
export interface Transition {
  readonly plugin: string;
  readonly from: PluginStatus;
  readonly to: PluginStatus;
  readonly generation: number;
  readonly cause: string;
  /** Milliseconds since 1970. */
  readonly at: number;
  /** Milliseconds spent in `from`. */
  readonly ms: number;
}
