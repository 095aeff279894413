// The public surface: all that a plugin may import. Everything else in this folder is between kernel and host.
export { definePlugin } from './plugin.js';
export type { PluginApp, PluginContext, PluginDefinition } from './plugin.js';
export type { Fallback, OfferedServices, Remote, RemoteStream, ServiceMap, ServiceName, Services } from './services.js';
export type { KernelClock, KernelConfig, KernelLogger, KernelMetrics, WorkerMetrics } from './own-services.js';
export { method, transfer } from './marks.js';
export type { MethodPromise } from './marks.js';
export type { DurableEventInfo, DurableSubscribeOptions, EventInfo, EventMap, Events, PublishOptions } from './events.js';
export type { TopicDeclaration } from './topics.js';
export type { PluginStatus, Transition } from './lifecycle.js';
export type { HeaderChanges, InterceptedRequest, InterceptedResponse, Interceptor, InterceptorAnswer } from './interceptors.js';
export type { PluginLimits } from './limits.js';
export type { Permission } from './permissions.js';
export { BulkheadError } from './errors.js';
export type { ErrorBody, ErrorCode } from './errors.js';
