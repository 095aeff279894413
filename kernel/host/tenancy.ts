// What one plugin has of its worker: its definition, the context that it gets, and what stands behind that. Must not know who calls it when.
import type { Logger } from 'pino';
import { contractsOf, offerProblems } from '../../protocol/contracts.js';
import { BulkheadError } from '../../protocol/errors.js';
import type { HostToKernelFrame } from '../../protocol/frames.js';
import type { HostOrder } from '../../protocol/host-api.js';
import { EVENTS_PER_SECOND_MAX } from '../../protocol/limits.js';
import { readManifest, shareOf, type PluginContext, type PluginDefinition, type PluginManifest } from '../../protocol/plugin.js';
import type { StatusBlock } from '../../protocol/status-block.js';
import { createLentPool, type LentPool } from './database-client.js';
import { HostEvents } from './events.js';
import { ownServices } from './own-services.js';
import { Interception } from './interception.js';
import { HostServices } from './services.js';
import { Tasks } from './task.js';

export interface Tenancy {
  readonly definition: PluginDefinition;
  readonly manifest: PluginManifest;
  readonly context: PluginContext;
  readonly log: Logger;
  readonly order: HostOrder;
  readonly services: HostServices;
  readonly events: HostEvents;
  readonly database: LentPool;
  readonly tasks: Tasks;
  readonly interception: Interception;
  readonly stopping: AbortController;
}

/** `exported` is the default export of the plugin's code. Throws `PLUGIN_LOAD_FAILED` with all that is wrong with it. */
export function createTenancy(exported: unknown, order: HostOrder, log: Logger, status: StatusBlock, send: (frame: HostToKernelFrame, transfer?: readonly ArrayBuffer[]) => void): Tenancy {
  const reading = readManifest(exported, order.name);
  if ('problems' in reading) throw new BulkheadError('PLUGIN_LOAD_FAILED', { name: order.name, reason: reading.problems.join('; ') });
  const threads = order.threads ?? reading.manifest.threads;
  const stopping = new AbortController();
  const tasks = new Tasks();
  const definition = exported as PluginDefinition;
  const { requires, optional, limits } = reading.manifest;
  const services = new HostServices({ plugin: order.name, send, tasks, declared: new Set([...requires, ...optional]) });
  const events = new HostEvents({ send, perSecond: shareOf(EVENTS_PER_SECOND_MAX, { threads }), topics: reading.manifest.topics, log });
  const database = createLentPool({ send, connections: shareOf(limits.connections, { threads }), tasks, log });
  const context: PluginContext = Object.freeze({ name: order.name, folder: order.folder, config: order.config, log, services, events, signal: stopping.signal, get db() { return database.pool; } });
  const offered = offeredBy(definition, context);
  services.equip(ownServices({ log, config: order.config, tasks, status, calls: () => services.calls }), offered);
  const manifest: PluginManifest = { ...reading.manifest, threads, services: contractsOf(offered) };
  const interception = new Interception(definition.interceptors ?? [], context, send, tasks, log);
  return { definition, manifest, context, log, order, services, events, database, tasks, interception, stopping };
}

function offeredBy({ name, services = {} }: PluginDefinition, context: PluginContext): Record<string, object> {
  const offered: unknown = typeof services === 'function' ? services(context) : services;
  const problems = offerProblems(offered);
  if (problems.length > 0) throw new BulkheadError('PLUGIN_LOAD_FAILED', { name, reason: problems.join('; ') });
  return { ...(offered as Record<string, object>) };
}
