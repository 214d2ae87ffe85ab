/**
 * Room on this host while a build runs. A hypervisor that cannot write to a disk's file stands still, with
 * all that its guest does; so a build ends before that, and leaves to others what is left.
 */
import { VmsanError } from "../model/errors.ts";
import { freeBytes } from "../util/files/free-bytes.ts";
import { formatBytes } from "../util/units.ts";

/** Bytes that builds leave free where VMs' disks lie. */
export const RESERVE = 512 * 2 ** 20;
/** Milliseconds between looks. */
const EVERY = 500;

/** The error for a host on which nothing more can be built. */
function noRoom(dir: string, free: number): VmsanError {
  return new VmsanError({
    code: "ERR_DISK_FULL",
    message: "Cannot build",
    why: `${formatBytes(free)} are free in ${dir}; builds leave ${formatBytes(RESERVE)} to others.`,
    fix: "Free some space there: `vmsan build prune` removes the builder's cache, `vmsan image prune --all` what no VM uses.",
  });
}

/**
 * Do something for as long as there is room.
 * @param dir where VMs' disks lie
 * @param body is given a signal that ends it when there is no room left, too
 * @param freeIn bytes that are free in a directory
 * @throws ERR_DISK_FULL
 */
export async function withRoom<T>(
  dir: string,
  signal: AbortSignal,
  body: (signal: AbortSignal) => Promise<T>,
  freeIn = freeBytes,
): Promise<T> {
  const full = new AbortController();
  const look = async (): Promise<void> => {
    const left = await freeIn(dir);
    if (left < RESERVE) full.abort(noRoom(dir, left));
  };
  await look();
  full.signal.throwIfAborted();
  let looking = false;
  const timer = setInterval(() => {
    if (looking) return;
    looking = true;
    // A directory that has gone is somebody else's error.
    void look()
      .catch(() => undefined)
      .finally(() => (looking = false));
  }, EVERY);
  try {
    return await body(AbortSignal.any([signal, full.signal]));
  } finally {
    clearInterval(timer);
  }
}
