// The public surface: all that a plugin may import. Everything else in this folder is between kernel and host.
export { definePlugin } from './plugin.js';
export type { PluginApp, PluginContext, PluginDefinition } from './plugin.js';
export type { EventMap, Events, Remote, ServiceMap, Services } from './services.js';
export type { HeaderChanges, InterceptedRequest, InterceptedResponse, Interceptor, InterceptorAnswer } from './interceptors.js';
export type { PluginLimits } from './limits.js';
export type { Permission } from './permissions.js';
export { BulkheadError } from './errors.js';
export type { ErrorBody, ErrorCode } from './errors.js';
