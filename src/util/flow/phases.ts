/**
 * Where the time of one call goes: phases are noted for the call in which they are gone through, however deep
 * below it, and for nobody where nobody asked.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import type { CallTiming } from "../../model/api.ts";

/** Far more than one call goes through; what comes after is left out. */
const MAX_PHASES = 200;

/** Shorter ones are no phases, in milliseconds. */
const LEAST_MS = 0.1;

interface Noted {
  began: number;
  phases: CallTiming["phases"];
}

const calls = new AsyncLocalStorage<Noted>();

/** Do a call's work; the phases in it are noted from now on. */
export function notingPhases<T>(body: () => T): T {
  return calls.run({ began: performance.now(), phases: [] }, body);
}

/**
 * Note a phase of the call that this is part of.
 * @param from as performance.now() tells @param to default: now
 */
export function notePhase(
  name: string,
  from: number,
  to: number = performance.now(),
  by?: "guest",
): void {
  const noted = calls.getStore();
  if (noted === undefined || noted.phases.length === MAX_PHASES || to - from < LEAST_MS) return;
  noted.phases.push({ name, fromMs: from - noted.began, ms: to - from, ...(by && { by }) });
}

/** Do work as a phase, however it ends. */
export async function asPhase<T>(name: string, body: () => Promise<T>): Promise<T> {
  const from = performance.now();
  try {
    return await body();
  } finally {
    notePhase(name, from);
  }
}

/** What has been noted of the call that this is part of; undefined where nobody asked. */
export function timingOfCall(): CallTiming | undefined {
  const noted = calls.getStore();
  if (noted === undefined) return undefined;
  return { ms: performance.now() - noted.began, phases: noted.phases };
}
