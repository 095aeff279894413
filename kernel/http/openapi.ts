// The OpenAPI document: the kernel's own routes and, as data, those of every plugin that is mounted now. Must not compile or run anything of a plugin.
import type { RouteDescription } from '../../protocol/plugin.js';
import type { Lifecycle } from '../plugins/lifecycle.js';
import type { Supervisor } from '../plugins/supervisor.js';

/** The parts of an OpenAPI 3.1 document that this file touches; schemas are plain JSON Schema there. */
export interface Document {
  readonly tags?: readonly { readonly name: string; readonly description?: string }[];
  readonly paths?: Readonly<Record<string, object>>;
}
type JsonSchema = Readonly<Record<string, unknown>>;
interface Parameter {
  readonly name: string;
  readonly in: 'path' | 'query' | 'header';
  readonly required: boolean;
  readonly description?: string;
  readonly schema: JsonSchema;
}

/** What OpenAPI knows of HTTP's methods. */
const METHODS: ReadonlySet<string> = new Set(['GET', 'PUT', 'POST', 'DELETE', 'OPTIONS', 'HEAD', 'PATCH', 'TRACE']);

/** Keeps the merged document until the mounts change. */
export class LiveDocument {
  readonly #supervisor: Supervisor;
  #version = -1;
  #document: Document | null = null;

  constructor(supervisor: Supervisor) {
    this.#supervisor = supervisor;
  }

  /** `base` is the document of the kernel's own routes. */
  get(base: Document): Document {
    const { version } = this.#supervisor.mounts;
    if (this.#document === null || this.#version !== version) {
      this.#document = merge(base, this.#supervisor.lives.filter(({ record }) => record.manifest !== null));
      this.#version = version;
    }
    return this.#document;
  }
}

function merge(base: Document, lives: readonly Lifecycle[]): Document {
  const paths: Record<string, object> = { ...base.paths };
  const tags = [...(base.tags ?? [])];
  for (const { record } of lives) {
    const { manifest, mounts, routes } = record;
    if (manifest === null || routes.length === 0) continue;
    tags.push({ name: record.name, description: manifest.description || `Plugin ${record.name} ${manifest.version}` });
    for (const mount of mounts) {
      for (const route of routes) {
        if (!METHODS.has(route.method)) continue;
        const { path, names } = templated(route.url === '/' && mount !== `/plugins/${record.name}` ? mount : mount + route.url);
        paths[path] = { ...paths[path], [route.method.toLowerCase()]: operation(record.name, mount, route, names) };
      }
    }
  }
  return { ...base, tags, paths };
}

/** `/items/:id` as `/items/{id}`, with the parameters' names. Regular expressions of a parameter are left out unread. */
function templated(url: string): { readonly path: string; readonly names: readonly string[] } {
  const names: string[] = [];
  const path = url.replace(/:([A-Za-z0-9_]+)(\([^)]*\))?\??/g, (_, name: string) => {
    names.push(name);
    return `{${name}}`;
  }).replace(/\*$/, () => {
    names.push('wildcard');
    return '{wildcard}';
  });
  return { path, names };
}

function operation(plugin: string, mount: string, route: RouteDescription, names: readonly string[]): object {
  const { summary, description, tags, deprecated, params, querystring, headers, body, response, consumes } = route.schema;
  return {
    operationId: `${route.method.toLowerCase()} ${mount}${route.url}`.replace(/[^A-Za-z0-9]+/g, '_').replace(/_$/, ''),
    tags: Array.isArray(tags) ? (tags as string[]) : [plugin],
    ...(typeof summary === 'string' && { summary }),
    ...(typeof description === 'string' && { description }),
    ...(deprecated === true && { deprecated }),
    parameters: [
      ...names.map((name): Parameter => ({ name, in: 'path', required: true, schema: propertiesOf(params)[name] ?? { type: 'string' } })),
      ...parameters('query', querystring),
      ...parameters('header', headers),
    ],
    ...(isObject(body) && { requestBody: { required: true, content: contentOf(body, consumes) } }),
    responses: responses(response),
  };
}

function parameters(where: 'query' | 'header', schema: unknown): Parameter[] {
  const required = isObject(schema) && Array.isArray(schema['required']) ? (schema['required'] as unknown[]) : [];
  return Object.entries(propertiesOf(schema)).map(([name, property]) => ({
    name,
    in: where,
    required: required.includes(name) && property['default'] === undefined, // what has a default may be left out
    ...(typeof property['description'] === 'string' && { description: property['description'] }),
    schema: property,
  }));
}

function responses(schema: unknown): object {
  if (!isObject(schema) || Object.keys(schema).length === 0) return { 200: { description: 'Success' } };
  return Object.fromEntries(Object.entries(schema).map(([status, answer]) => {
    const { description = 'Answer', type } = isObject(answer) ? answer : {};
    const empty = type === 'null' || status === '204' || !isObject(answer);
    return [status, { description, ...(!empty && { content: contentOf(answer) }) }];
  }));
}

function contentOf(schema: JsonSchema, consumes?: unknown): object {
  const types = Array.isArray(consumes) ? (consumes as string[]) : ['application/json'];
  return Object.fromEntries(types.map((type) => [type, { schema }]));
}

function propertiesOf(schema: unknown): Record<string, JsonSchema> {
  return isObject(schema) && isObject(schema['properties']) ? (schema['properties'] as Record<string, JsonSchema>) : {};
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
