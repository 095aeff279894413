// What happens around every route of this plugin.
import type { PluginApp } from 'bulkhead/protocol';

/** Marks every answer, also those to mistakes. */
export function markAnswers(app: PluginApp): void {
  app.addHook('onRequest', async (_request, reply) => {
    void reply.header('X-Items-Plugin', 'enabled');
  });
}
