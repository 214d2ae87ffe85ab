/** How long a guest may take to come up, where the environment says so. */

/**
 * Milliseconds that a slow host gives a guest: VMSAN_BOOT_TIMEOUT (seconds), else the default.
 * Everything that waits for a boot asks here: the composer, the drivers, their suite, tests.
 */
export function bootTimeoutMs(defaultMs: number): number {
  const seconds = Number(process.env["VMSAN_BOOT_TIMEOUT"]);
  return Number.isFinite(seconds) && seconds > 0 ? seconds * 1000 : defaultMs;
}
