// Waits for something, but not for ever, and leaves no timer behind. Must not know what it waits for.

/** Resolves with whether the promise has settled within `timeoutMs`; never rejects. */
export async function within(promise: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(resolve, timeoutMs, false).unref();
  });
  const settled = promise.then(() => true, () => true);
  const inTime = await Promise.race([settled, late]);
  clearTimeout(timer);
  return inTime;
}
