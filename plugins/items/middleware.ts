// What happens around every route of this plugin, and around those of the others.
import type { Interceptor, PluginApp, PluginContext } from 'bulkhead/protocol';

const MARK = { 'X-Items-Plugin': 'enabled' };

/** Marks every answer of this plugin, also those to mistakes. */
export function markAnswers(app: PluginApp): void {
  app.addHook('onRequest', async (_request, reply) => {
    void reply.headers(MARK);
  });
}

/** Marks every answer of the others, for as long as this plugin runs. */
export const markOthers: Interceptor<PluginContext> = { failMode: 'open', onResponse: { headers: MARK } };
