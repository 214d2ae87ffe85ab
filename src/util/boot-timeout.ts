/** How long a guest may take to come up, where the environment says so. */

import { invalid, parseDuration } from "./units.ts";

const DAY_MS = 86_400_000;

/** The limit of a boot in milliseconds, written as other durations. @throws ERR_VALIDATION_DURATION */
export function parseBootTimeout(value: string | number): number {
  const ms = parseDuration(value);
  if (ms <= DAY_MS) return ms;
  throw invalid("DURATION", "boot timeout", value, "A day is the most.", "For example: 90s, 5m.");
}

/** Milliseconds that VMSAN_BOOT_TIMEOUT (seconds, at most a day) asks for; undefined: nothing. */
export function givenBootTimeoutMs(): number | undefined {
  const seconds = Number(process.env["VMSAN_BOOT_TIMEOUT"]);
  if (!Number.isFinite(seconds) || seconds <= 0) return undefined;
  return Math.min(Math.ceil(seconds * 1000), DAY_MS);
}

/**
 * Milliseconds that a slow host gives a guest: VMSAN_BOOT_TIMEOUT (seconds), else the default.
 * Everything that waits for a boot asks here: the composer, the drivers, their suite, tests.
 */
export function bootTimeoutMs(defaultMs: number): number {
  return givenBootTimeoutMs() ?? defaultMs;
}
