// The diagnostic reports that a dying kernel leaves: which thread ended it, and of what. Must not know plugins.
import { readdir, readFile, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { REPORT_MAX_BYTES, REPORTS_MAX } from '../../protocol/guardian-limits.js';

export interface Finding {
  /** Null where Node does not say: when V8 gave up outside of any JavaScript, or in a thread of its own. */
  readonly threadId: number | null;
  /** The limit of the heap that was used up, in bytes; null when the end was of another kind. */
  readonly heapLimitBytes: number | null;
  /** What ended the process, in Node's words. */
  readonly event: string;
  /** The report's file. */
  readonly file: string;
}

/** The parts of a report that are read. */
interface Report {
  readonly header: { readonly threadId: number | null; readonly event: unknown; readonly trigger: unknown };
  readonly javascriptHeap: { readonly memoryLimit: number };
}

/** Report on fatal errors, on one line. Reports look up the names of all peers, for seconds, unless told not to, which older versions of Node cannot be. */
export function reportFlags(folder: string): string[] {
  const optional = ['--report-exclude-network', '--report-exclude-env'].filter((flag) => process.allowedNodeEnvironmentFlags.has(flag));
  return ['--report-on-fatalerror', '--report-compact', `--report-directory=${folder}`, ...optional];
}

/** What the newest report of this process says; null when it left none, as after SIGKILL or a fault in native code. Never rejects. */
export async function readReport(folder: string, pid: number): Promise<Finding | null> {
  try {
    const file = (await reports(folder)).findLast((name) => name.split('.')[3] === String(pid));
    if (file === undefined) return null;
    const path = join(folder, file);
    if ((await stat(path)).size > REPORT_MAX_BYTES) return null;
    const { header, javascriptHeap } = JSON.parse(await readFile(path, 'utf8')) as Report;
    return { threadId: header.threadId, heapLimitBytes: header.trigger === 'OOMError' ? javascriptHeap.memoryLimit : null, event: String(header.event), file: path };
  } catch {
    // The process died while it wrote, or the disk is full. Nobody is blamed on half of the evidence.
    return null;
  }
}

/** Deletes all but the newest reports. Never rejects. */
export async function tidyReports(folder: string): Promise<void> {
  const old = (await reports(folder).catch(() => [])).slice(0, -REPORTS_MAX);
  await Promise.all(old.map((file) => unlink(join(folder, file)).catch(() => {})));
}

/** `report.<date>.<time>.<process>.<thread>.<number>.json`, oldest first. */
async function reports(folder: string): Promise<string[]> {
  return (await readdir(folder)).filter((name) => /^report\.\d+\.\d+\.\d+\.\d+\.\d+\.json$/.test(name)).sort();
}
