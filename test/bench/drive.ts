// Calls something over and over, some calls at a time, and tells how many it has made and how long each took. Must not know what is called.

export interface Drive {
  readonly perSecond: number;
  /** In milliseconds. */
  readonly p50: number;
}

export async function drive(add: (a: number, b: number) => Promise<number>, outstanding: number, durationMs: number): Promise<Drive> {
  const times: number[] = [];
  const began = performance.now();
  await Promise.all(Array.from({ length: outstanding }, async () => {
    for (let before = performance.now(); before - began < durationMs;) {
      const sum = await add(times.length, 1);
      const after = performance.now();
      if (!Number.isInteger(sum)) throw new Error(`the sum is ${sum}`);
      times.push(after - before);
      before = after;
    }
  }));
  const seconds = (performance.now() - began) / 1_000;
  return { perSecond: times.length / seconds, p50: times.sort((a, b) => a - b)[times.length >> 1]! };
}

/** What every server that drives takes as its query. */
export interface DriveQuery { readonly outstanding: string; readonly ms: string }
