/** How long a guest may take to come up, where the environment says so. */

/** Milliseconds that VMSAN_BOOT_TIMEOUT (seconds, at most a day) asks for; undefined: nothing. */
export function givenBootTimeoutMs(): number | undefined {
  const seconds = Number(process.env["VMSAN_BOOT_TIMEOUT"]);
  if (!Number.isFinite(seconds) || seconds <= 0) return undefined;
  return Math.min(Math.ceil(seconds * 1000), 86_400_000);
}

/**
 * Milliseconds that a slow host gives a guest: VMSAN_BOOT_TIMEOUT (seconds), else the default.
 * Everything that waits for a boot asks here: the composer, the drivers, their suite, tests.
 */
export function bootTimeoutMs(defaultMs: number): number {
  return givenBootTimeoutMs() ?? defaultMs;
}
