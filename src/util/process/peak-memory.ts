/** How much memory this process has needed at most. */
import { readFileSync } from "node:fs";

/**
 * The most memory this process has had at once, in bytes (VmHWM of proc(5)). getrusage's `maxRSS` would
 * be the parent's, where that is larger: a child begins in its parent's memory, and keeps the number.
 */
export function peakBytes(): number {
  const status = readFileSync("/proc/self/status", "latin1");
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}
