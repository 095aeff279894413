// The guard before the routes of other plugins.
import type { Interceptor, InterceptorAnswer, PluginContext } from 'bulkhead/protocol';
import type { Keys } from './services.js';

/** Of the writes below `/items`, under whichever mount; while this plugin is down, nobody writes. `keys` is not called before `init`. */
export function guardWrites(keys: () => Keys): Interceptor<PluginContext> {
  return {
    paths: ['/items/**'],
    methods: ['POST', 'PUT', 'PATCH', 'DELETE'],
    order: -100, // before others spend work on a request that is refused
    failMode: 'closed',
    onRequest({ headers, requestId }) {
      const key = headers['x-api-key'];
      // The plugin behind the guard has no use for the key.
      if (typeof key === 'string' && keys().has(key)) return { headers: { 'x-api-key': null } };
      return { answer: refusal(requestId) };
    },
  };
}

function refusal(requestId: string): InterceptorAnswer {
  const message = 'This needs an API key: send it as "X-API-Key: <key>".';
  return { statusCode: 401, headers: { 'WWW-Authenticate': 'ApiKey header="X-API-Key"' }, body: { statusCode: 401, code: 'API_KEY_MISSING', error: 'Unauthorized', message, requestId } };
}
