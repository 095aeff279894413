// Ends the kernel process of a ship, and waits for what the guardian says of it. Must not know what ended it, or why.
import type { Ship } from './ship.js';

/** From the fault to the moment at which the guardian has said that the kernel ended; in milliseconds of `performance.now()`. */
export interface Sinking { readonly from: number; readonly to: number; readonly fault: string }

/** Does what ends the kernel and waits until the guardian has noticed. */
export async function sink(ship: Ship, fault: string, how: () => unknown): Promise<Sinking> {
  const lines = ship.logLines.length;
  const from = performance.now();
  await how();
  await ship.logged('the kernel was ended by', lines);
  return { from, to: performance.now(), fault };
}

export const back = (ship: Ship, lines: number): Promise<Record<string, any>> => ship.logged('the kernel is back', lines);
