/**
 * What must not be removed: leases of running processes, pins of longer-lived owners.
 *
 * A lease is a directory with a lock that the kernel frees when its process dies. Blobs are
 * added to it under the store's lock *before* anyone looks whether they exist, and removal
 * holds that lock from reading the leases to the last unlink: a blob that was seen stays.
 */
import { randomBytes } from "node:crypto";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Digest } from "../../model/image.ts";
import { errnoOf } from "../../model/errors.ts";
import { writeFileAtomic } from "../../util/atomic.ts";
import { tryLock } from "../../util/lock.ts";
import { imageError } from "../errors.ts";
import { isDigest } from "../reference.ts";
import type { ContentStore } from "./store.ts";

/** How long a lease's end waits for others to be done with the store. */
const RELEASE_MS = 10_000;

/** Blobs held for as long as this process works with them. */
export interface Lease {
  /** For temporary files; removed on release, or after the process's death by the next daemon or prune. */
  readonly dir: string;
  /** Hold these blobs as well, whether they exist yet or not. */
  protect(digests: Iterable<Digest>): Promise<void>;
  /** Let go, once; leaves no temporary file. */
  release(): Promise<void>;
}

/** Take a lease. @param purpose for messages, e.g. `pull of docker.io/library/node:22` */
export async function takeLease(
  store: ContentStore,
  purpose: string,
  signal?: AbortSignal,
): Promise<Lease> {
  const dir = join(store.dir, "leases", `${process.pid}-${randomBytes(6).toString("hex")}`);
  const held = new Set<Digest>();
  const guard = await store.lock(signal);
  const own = await (async () => {
    try {
      await mkdir(dir, { recursive: true });
      return tryLock(join(dir, "lock"));
    } finally {
      guard.release();
    }
  })();
  return {
    dir,
    async protect(digests) {
      const before = held.size;
      for (const digest of digests) held.add(digest);
      if (held.size === before) return;
      const inner = await store.lock(signal);
      try {
        await writeFile(join(dir, "digests.json"), JSON.stringify({ purpose, held: [...held] }));
      } finally {
        inner.release();
      }
    },
    async release() {
      try {
        // Whoever looks at the leases meanwhile would put a lock into what is being removed. Where that takes long, it is
        // left to the next prune, as one whose process has died.
        const inner = await store.lock(AbortSignal.timeout(RELEASE_MS)).catch(() => undefined);
        if (inner === undefined) return;
        try {
          await rm(dir, { recursive: true, force: true });
        } finally {
          inner.release();
        }
      } finally {
        own?.release();
      }
    },
  };
}

/** Run `body` with a lease that is let go at its end, however it ends. */
export async function withLease<T>(
  store: ContentStore,
  purpose: string,
  body: (lease: Lease) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const lease = await takeLease(store, purpose, signal);
  try {
    return await body(lease);
  } finally {
    await lease.release();
  }
}

/** Path of an owner's pin; the owner's name is checked before it touches a path. */
function pinPath(store: ContentStore, owner: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(owner)) {
    throw imageError(
      "ERR_VALIDATION_PIN",
      `Cannot pin an image for ${JSON.stringify(owner)}`,
      "The owner's name is not made of letters, digits, dots, underscores and dashes.",
      "Use the VM's ID.",
    );
  }
  return join(store.dir, "pins", `${owner}.json`);
}

/** Keep blobs until {@link unpin}, across restarts. @param owner e.g. a VM's ID @param purpose for messages; default the owner */
export async function pin(
  store: ContentStore,
  owner: string,
  digests: readonly Digest[],
  purpose?: string,
): Promise<void> {
  const path = pinPath(store, owner);
  const guard = await store.lock();
  try {
    await writeFileAtomic(path, JSON.stringify({ purpose, held: digests }));
  } finally {
    guard.release();
  }
}

/** Keep for another owner what one has pinned; nothing happens when that one has no pin. */
export async function sharePin(store: ContentStore, from: string, owner: string): Promise<void> {
  const to = pinPath(store, owner);
  const guard = await store.lock();
  try {
    await writeFileAtomic(to, await readFile(pinPath(store, from), "utf8"));
  } catch (error) {
    // A VM of a disk image of the user's.
    if (errnoOf(error) !== "ENOENT") throw error;
  } finally {
    guard.release();
  }
}

/** Undo {@link pin}; nothing happens when there is none. */
export async function unpin(store: ContentStore, owner: string): Promise<void> {
  await rm(pinPath(store, owner), { force: true });
}

/** Something that holds blobs. */
export interface Holder {
  /** For people: a purpose or an owner. */
  name: string;
  held: Set<Digest>;
}

/** Read a lease's or a pin's digests. */
async function readHolder(path: string, fallback: string): Promise<Holder> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    // A lease that has not protected anything yet has no file.
    if (errnoOf(error) === "ENOENT") return { name: fallback, held: new Set() };
    throw error;
  }
  const value = JSON.parse(text) as { purpose?: unknown; held?: unknown };
  const held = Array.isArray(value.held) ? value.held.map(String).filter(isDigest) : [];
  return {
    name: typeof value.purpose === "string" ? value.purpose : fallback,
    held: new Set(held),
  };
}

/**
 * Remove the leases of dead processes, with their temporary files. The caller holds the store's lock.
 * @returns the directories of those that live, and the names of what was removed
 */
async function partLeases(store: ContentStore): Promise<{ alive: string[]; removed: string[] }> {
  const alive: string[] = [];
  const removed: string[] = [];
  for (const id of await readdir(join(store.dir, "leases"))) {
    const dir = join(store.dir, "leases", id);
    const dead = tryLock(join(dir, "lock"));
    if (dead === undefined) {
      alive.push(dir);
      continue;
    }
    await rm(dir, { recursive: true, force: true });
    dead.release();
    removed.push(id);
  }
  return { alive, removed };
}

/** Remove what processes that were killed have left: leases and their temporary files. @returns their names */
export async function sweepLeases(store: ContentStore, signal: AbortSignal): Promise<string[]> {
  const guard = await store.lock(signal);
  try {
    return (await partLeases(store)).removed;
  } finally {
    guard.release();
  }
}

/**
 * Everything that holds blobs now. The caller holds the store's lock. Leases of dead
 * processes are removed, with their temporary files.
 */
export async function listHolders(store: ContentStore): Promise<Holder[]> {
  const holders: Holder[] = [];
  for (const dir of (await partLeases(store)).alive) {
    holders.push(await readHolder(join(dir, "digests.json"), "another process"));
  }
  for (const file of await readdir(join(store.dir, "pins"))) {
    if (!file.endsWith(".json")) continue;
    holders.push(await readHolder(join(store.dir, "pins", file), file.slice(0, -5)));
  }
  return holders;
}
