/**
 * What vmsan changed of the host's own network, so that it is put back when the last VM has gone.
 * Shared by all installations on the host: kept below /run, which a reboot empties like the
 * kernel's settings themselves.
 */
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { errnoOf, messageOf } from "../../model/errors.ts";
import { writeFileAtomic } from "../../util/atomic.ts";
import { tryLock, withLock } from "../../util/lock.ts";
import type { Lock } from "../../util/lock.ts";
import { identityOf } from "../../util/process-identity.ts";

/** A setting that was changed: the file's content before, and the one that was written. */
interface Change {
  was: string;
  set: string;
}

/** Directory of this network namespace's state. */
function defaultDir(): string {
  const inode = /\d+/.exec(readlinkSync("/proc/self/ns/net"))?.[0] ?? "0";
  return `/run/vmsan-network-${inode}`;
}

/**
 * Whether a mark is a living process's that cannot be seen from here: one of another PID namespace, such as a container's, has
 * another number there, and this one may be nobody's.
 */
function isHeld(path: string): boolean {
  try {
    const mark = tryLock(path);
    mark?.release();
    return mark === undefined;
  } catch {
    // ERR_LOCK_FILE: nothing is known of it, and what may live stays.
    return true;
  }
}

/** The record of changes; one for each process. */
export class HostState {
  private readonly dir: string;
  /** Held for as long as this process uses the host's network. */
  private mark: Lock | undefined;

  /** @param dir where it is kept; default below /run */
  constructor(dir: string = defaultDir()) {
    this.dir = dir;
  }

  /** Whether some process has changed something and it was not put back. */
  get exists(): boolean {
    return existsSync(this.dir);
  }

  private locked<T>(body: () => Promise<T>): Promise<T> {
    mkdirSync(this.dir, { recursive: true, mode: 0o700 });
    return withLock(join(this.dir, "lock"), body, { timeoutMs: 30_000 });
  }

  /** Marks of living processes that use the host's network; marks of the dead are removed. */
  private users(): string[] {
    return readdirSync(this.dir).filter((name) => {
      const match = /^user-(\d+)-(\d+)$/.exec(name);
      if (match === null) return false;
      if (identityOf(Number(match[1]))?.startTime === Number(match[2])) return true;
      const path = join(this.dir, name);
      if (isHeld(path)) return true;
      rmSync(path, { force: true });
      return false;
    });
  }

  /** This process's mark. */
  private get own(): string {
    return `user-${process.pid}-${identityOf(process.pid)?.startTime ?? 0}`;
  }

  /** What was changed so far, by file. */
  private changes(): Map<string, Change> {
    try {
      const stored = JSON.parse(readFileSync(join(this.dir, "changes.json"), "utf8")) as object;
      return new Map(
        Object.entries(stored).filter(
          (entry): entry is [string, Change] =>
            entry[0].startsWith("/proc/sys/net/") &&
            typeof (entry[1] as Change).was === "string" &&
            typeof (entry[1] as Change).set === "string",
        ),
      );
    } catch (error) {
      // ENOENT: nothing yet; SyntaxError: a damaged file, after which nothing can be put back.
      if (errnoOf(error) === "ENOENT" || error instanceof SyntaxError) return new Map();
      throw error;
    }
  }

  /**
   * Use the host's network from now on.
   * @param wanted content by absolute path below /proc/sys/net; what was there is remembered first
   * @param affected files that the kernel changes along with those
   * @param body further preparation, while no other process can take anything back
   */
  async use(
    wanted: Readonly<Record<string, string>>,
    affected: readonly string[],
    body: () => Promise<void>,
  ): Promise<void> {
    const store = async (changes: Map<string, Change>): Promise<void> => {
      const text = `${JSON.stringify(Object.fromEntries(changes))}\n`;
      await writeFileAtomic(join(this.dir, "changes.json"), text);
    };
    await this.locked(async () => {
      this.mark ??= tryLock(join(this.dir, this.own));
      const changes = this.changes();
      const due = Object.entries(wanted).filter(([path, set]) => {
        if (!existsSync(path)) return false;
        const was = readFileSync(path, "utf8").trim();
        if (was === set) return false;
        changes.set(path, { was: changes.get(path)?.was ?? was, set });
        return true;
      });
      if (due.length > 0) {
        const beside = affected.filter((path) => existsSync(path) && !changes.has(path));
        for (const path of beside) {
          const was = readFileSync(path, "utf8").trim();
          changes.set(path, { was, set: was });
        }
        await store(changes);
        for (const [path, set] of due) writeFileSync(path, set);
        // Also what has not changed: taking the rest back may change it.
        for (const path of beside) {
          const { was } = changes.get(path) ?? { was: "" };
          changes.set(path, { was, set: readFileSync(path, "utf8").trim() });
        }
        await store(changes);
      }
      await body();
    });
  }

  /**
   * This process no longer uses the host's network; put everything back if nobody does.
   * @param inUse whether VMs of any installation still have networks here
   * @param body what else to take back
   * @returns what could not be put back
   */
  async leave(
    inUse: () => boolean,
    body: () => Promise<void>,
  ): Promise<{ what: string; why: string }[]> {
    return await this.locked(async () => {
      const failed: { what: string; why: string }[] = [];
      this.mark?.release();
      this.mark = undefined;
      rmSync(join(this.dir, this.own), { force: true });
      if (inUse() || this.users().length > 0) return failed;
      await body();
      const now = (path: string): string | undefined =>
        existsSync(path) ? readFileSync(path, "utf8").trim() : undefined;
      // Somebody else's later choice stays.
      const ours = [...this.changes()].filter(([path, { set }]) => now(path) === set);
      for (const [path, { was }] of ours) {
        try {
          if (now(path) !== was) writeFileSync(path, was);
        } catch (error) {
          failed.push({ what: path, why: messageOf(error) });
        }
      }
      rmSync(this.dir, { recursive: true, force: true });
      return failed;
    });
  }
}
