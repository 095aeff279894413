// The documentation: OpenAPI and its page, in a Fastify of their own. Must not know plugins' code, or when it is made.
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { FastifyInstance } from 'fastify';
import type { Supervisor } from '../plugins/supervisor.js';
import { LiveDocument, type Document } from './openapi.js';

export interface DocsOptions {
  readonly appName: string;
  readonly version: string;
  readonly supervisor: Supervisor;
  readonly operatorToken: string | null;
}

/** Everything from this server, nothing from elsewhere; Swagger UI writes styles into its page. */
const DOCS_CSP = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'self'; frame-ancestors 'self'";

/** Makes `app` answer `/docs` and `/openapi.json`. The kernel's own routes are documented as `registerRoutes` adds them to it; nobody calls them there. */
export async function addDocs(app: FastifyInstance, options: DocsOptions, registerRoutes: (app: FastifyInstance) => Promise<void>): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: options.appName, version: options.version, description: 'The kernel and its plugins. Plugins come and go with their worker threads; so do their routes here.' },
      tags: [{ name: 'kernel', description: 'Health and the operator\'s verbs' }],
      ...(options.operatorToken !== null && { components: { securitySchemes: { operator: { type: 'http', scheme: 'bearer' } } } }),
    },
  });
  const live = new LiveDocument(options.supervisor);
  const document = (): Document => live.get(app.swagger() as Document);
  await app.register(swaggerUi, { routePrefix: '/docs', staticCSP: DOCS_CSP, transformSpecification: document, transformSpecificationClone: false });
  app.get('/openapi.json', { schema: { hide: true } }, async () => document());
  await registerRoutes(app);
  await app.ready();
}
