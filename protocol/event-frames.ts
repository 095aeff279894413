// The part of the data plane that carries events, as plain cloneable data. Must not know how frames are sent or handled.
import type { PlainError } from './errors.js';

export interface SubscribeFrame {
  readonly kind: 'subscribe';
  readonly pattern: string;
  /** For a durable one, the attempts that each event gets; else null. */
  readonly attempts: number | null;
}
export interface UnsubscribeFrame { readonly kind: 'unsubscribe'; readonly pattern: string; readonly durable: boolean }
/** `payload` is serialised with node:v8, so that the kernel passes it on unread. */
export interface PublishFrame { readonly kind: 'publish'; readonly topic: string; readonly payload: Uint8Array }
/** The event is to be stored; `ref` is the host's own number for the answer. */
export interface StoreFrame { readonly kind: 'event-store'; readonly ref: number; readonly topic: string; readonly key: string | null; readonly payload: Uint8Array }
/** The plugin's durable subscription to the pattern is over; answered like a store. */
export interface ForgetFrame { readonly kind: 'event-forget'; readonly ref: number; readonly pattern: string }
/** What has become of events since the last such frame: so many were taken in, and of their handlers so many have ended, and so many never began for want of room. */
export interface EventsTakenFrame { readonly kind: 'events-taken'; readonly taken: number; readonly delivered: number; readonly dropped: number }
/** Why a handler has failed, null when it has not. `refused` when there was none any more. */
export interface EventHandledFrame { readonly kind: 'event-handled'; readonly ref: number; readonly refused: boolean; readonly error: string | null }

/** At most once, for all handlers in the worker that hear the topic. */
export interface EventFrame { readonly kind: 'event'; readonly topic: string; readonly payload: Uint8Array; readonly publisher: string; readonly at: number }
/** At least once, for the one handler of the durable subscription to `pattern`; `ref` is the kernel's own number for the answer. */
export interface DurableEventFrame extends Omit<EventFrame, 'kind'> {
  readonly kind: 'durable-event';
  readonly ref: number;
  readonly pattern: string;
  readonly id: string;
  readonly key: string | null;
  readonly attempt: number;
}
/** What was asked under `ref` is done, or failed. */
export interface EventAnswerFrame { readonly kind: 'event-answer'; readonly ref: number; readonly error: PlainError | null }

export type EventFrameToHost = EventFrame | DurableEventFrame | EventAnswerFrame;
export type EventFrameToKernel = SubscribeFrame | UnsubscribeFrame | PublishFrame | StoreFrame | ForgetFrame | EventsTakenFrame | EventHandledFrame;
