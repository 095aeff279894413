// The kernel's working directory: a place where nothing can be written. Must not know workers.

/** Linux has it for every process; not even root can make or change a file there. */
const NOWHERE = '/proc/self/fdinfo';

let path: string | null = null;

/** From here on relative paths lead nowhere. Where there is no such place nothing changes. */
export function goNowhere(): void {
  try {
    process.chdir(NOWHERE);
    path = process.cwd();
  } catch {
    // Another system than Linux, or a container without it: then a kernel that a plugin took down may not say which.
  }
}

/**
 * What a worker must be allowed to write, so that Node writes a report when the worker ends the process: on Node 20 the working
 * directory, wherever the report goes, and only nowhere is that harmless; later the reports' own folder, in which a plugin may then
 * leave files. Not to know who took the kernel down would cost more.
 */
export function reportPermissions(): readonly string[] {
  if (path === null) return [];
  const { directory } = process.report;
  return Number(process.versions.node.split('.')[0]) < 22 || directory === '' ? [path] : [path, directory];
}
