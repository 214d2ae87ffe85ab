/**
 * The VM that builds: made when it is first needed, with the runtime `builder` and a disk of its own,
 * which holds the cache; asleep when nobody has built for a while; removed by a prune.
 */
import { randomBytes } from "node:crypto";
import { stat } from "node:fs/promises";
import { availableParallelism, totalmem } from "node:os";
import { join } from "node:path";
import { forwardToHost } from "../../agent/ports.ts";
import type { Forwarding } from "../../agent/ports.ts";
import type { CreateRequest, VmView } from "../../model/api.ts";
import type { BuildPrune, BuildPruneRequest } from "../../model/api/builds.ts";
import { VmsanError } from "../../model/errors.ts";
import type { NetworkPolicy } from "../../model/policy.ts";
import type { Host } from "../../sandbox/host.ts";
import type { Sandboxes } from "../../sandbox/sandboxes.ts";
import type { Sleep } from "../../sandbox/snapshots/sleep.ts";
import type { Work } from "../../sandbox/stages.ts";
import { freeBytes } from "../../util/files/free-bytes.ts";
import { BuilderGuest, isGone } from "./guest.ts";
import { BuildRegistry } from "../registry/registry.ts";
import { BuildUsers } from "./users.ts";

/** Name of the VM. */
const NAME = "vmsan-builder";
/** Label of the VM, so that one of the user's is not taken for it. */
const LABEL = "vmsan.builder";
/** The disk is as large as half of what is free when it is made, but between these. */
const MIN_DISK = 8 * 2 ** 30;
const MAX_DISK = 64 * 2 ** 30;
const IDLE_MS = 10 * 60_000;
/** Port of the guest's loopback that leads to this host's registry. */
const PORT = 5000;
/** Directory of builds in the guest. */
export const GUEST_DIR = "/var/lib/vmsan-builds";
/** The same for secrets: in memory, and not below /dev, which every step sees. */
export const GUEST_SECRETS = "/run/vmsan-builds";
/** Share of the disk that must be free before a build: below it, the cache is emptied. */
const FREE_SHARE = 0.25;
/** Milliseconds that what a build left is cleared away in. */
const CLEAR_MS = 60_000;

/** Says how many blocks of the disk are free, and how many there are. */
const SAY_FREE = "stat -f -c '%a %b' /var/lib";
/** Removes the paths that it is given. */
const REMOVE = `rm -rf "$@"; ${SAY_FREE}`;
/** Keeps some room on the disk: to remove what has filled it, buildah has to write. */
const BALLAST = "/var/lib/vmsan-ballast";
const MAKE_ROOM = `rm -f ${BALLAST}`;
const KEEP_ROOM = `fallocate -l 64M ${BALLAST}`;
/**
 * Makes the disk ready for builds. buildah syncs the list of its layers and not their files, whose content
 * Linux would write some seconds later: after a VMM was killed, the cache would have layers of empty files.
 * Without delayed allocation, content is on the disk before the list is.
 * A directory of a build says that it did not come to a good end: then there may be a container, too.
 */
const MAKE_READY = `
mount -o remount,nodelalloc /
${MAKE_ROOM}
mkdir -p -m 0700 ${GUEST_DIR} ${GUEST_SECRETS}
mountpoint -q ${GUEST_SECRETS} || mount -t tmpfs -o mode=0700,nosuid,nodev,noexec vmsan-builds ${GUEST_SECRETS}
if [ -n "$(ls -A ${GUEST_DIR})" ]; then
  rm -rf ${GUEST_SECRETS}/*
  buildah rm --all >/dev/null
  rm -rf ${GUEST_DIR}/*
  fstrim /
fi
${KEEP_ROOM}
${SAY_FREE}`;
/** Empties the cache, and gives the room back to this host. */
const EMPTY = `
${MAKE_ROOM}
buildah rmi --all --force >/dev/null
find /var/tmp -mindepth 1 -delete
fstrim /
${KEEP_ROOM}
${SAY_FREE}`;

/** Bytes that a file takes on the disk, and when it was written to last; none and never when it is not there. */
async function fileUse(path: string): Promise<{ bytes: number; writtenMs: number }> {
  return await stat(path).then(
    ({ blocks, mtimeMs }) => ({ bytes: blocks * 512, writtenMs: mtimeMs }),
    () => ({ bytes: 0, writtenMs: 0 }), // ENOENT: nothing to free
  );
}

/** Share of the disk that is free, by what {@link SAY_FREE} says. */
function freeShareOf(said: string): number {
  const [free = 0, all = 1] = said.trim().split("\n").at(-1)?.split(" ").map(Number) ?? [];
  return free / all;
}

/** Size of the builder's disk: what fills it must leave room on this host for others. */
export function diskSizeFor(freeBytes: number): number {
  const half = Math.floor(freeBytes / 2 / 2 ** 30) * 2 ** 30;
  return Math.max(MIN_DISK, Math.min(MAX_DISK, half));
}

/** The builder of one VMSAN_DIR. */
export class Builder {
  readonly #sandboxes: Sandboxes;
  readonly guest: BuilderGuest;
  readonly registry: BuildRegistry;
  /** Where VMs' disks lie. */
  readonly #dir: string;
  /** Builds that run; the way to this host is open while there are some. */
  readonly #users = new BuildUsers();
  #forwarding: Forwarding | undefined;
  /** The life of the VM that it belongs to. */
  #way = "";
  /** The policy in force, as text. */
  #policy = "";
  /** The life of the VM in which nothing is left of builds that have ended; empty: unknown. */
  #ready = "";
  /** How often its cache was emptied. */
  #emptied = 0;
  /** Share of its disk that was free last. */
  #freeShare = 1;
  /** One at a time makes, wakes or clears the VM. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(host: Host, sandboxes: Sandboxes, sleeper: Pick<Sleep, "channel">) {
    this.#sandboxes = sandboxes;
    this.guest = new BuilderGuest(sleeper);
    this.#dir = host.layout.root;
    this.registry = new BuildRegistry(host.store, join(host.layout.run, "builds.sock"));
  }

  /** `HOST:PORT` of the registry in the guest. */
  get address(): string {
    return `127.0.0.1:${PORT}`;
  }

  /** The VM, if it is there. */
  #find(): VmView | undefined {
    return this.#sandboxes.list().find(({ labels }) => labels[LABEL] !== undefined);
  }

  /** Tells one cache from the next: the VM's, until it is emptied; empty without one. */
  get cache(): string {
    const id = this.#find()?.id;
    return id === undefined ? "" : `${id} ${this.#emptied}`;
  }

  /** Do something with the VM while nobody else makes, wakes or clears it. */
  async #alone<T>(body: () => Promise<T>): Promise<T> {
    const before = this.#turn;
    const mine = before.then(body, body);
    this.#turn = mine.catch(() => undefined);
    return await mine;
  }

  /**
   * Have the VM ready for one more build. Builds with the same network policy run at the same time;
   * another one waits for their end. Call {@link leave} in the end.
   * @returns its ID
   */
  async enter(policy: NetworkPolicy, work: Work): Promise<string> {
    for (;;) {
      const id = await this.#tryEnter(policy, work);
      if (id !== undefined) return id;
      work.progress({ phase: "build", message: "waiting for builds with another network policy" });
      await this.#users.none(work.signal);
    }
  }

  /** The VM's ID; undefined when builds run that may reach something else. */
  async #tryEnter(policy: NetworkPolicy, work: Work): Promise<string | undefined> {
    return await this.#alone(async () => {
      work.signal.throwIfAborted();
      if (this.#users.count > 0 && JSON.stringify(policy) !== this.#policy) return undefined;
      const id = await this.#opened(policy, work).catch(async (error: unknown) => {
        // It has ended, which is told some time after the fact: it is started, then.
        if (!isGone(error)) throw error;
        return await this.#opened(policy, work);
      });
      await this.#allow(id, policy, work);
      this.#policy = JSON.stringify(policy);
      this.#users.enter(work.signal);
      return id;
    });
  }

  /** Have the VM running, ready, and its way to this host open. @returns its ID */
  async #opened(policy: NetworkPolicy, work: Work): Promise<string> {
    const id = await this.#running(policy, work);
    const way = this.#lifeOf(id);
    if (this.#users.count > 0 && this.#way === way) return id;
    await this.#makeReady(id, work);
    await this.registry.open();
    this.#forwarding = await forwardToHost(
      this.guest.transport(id),
      { network: "tcp", host: "127.0.0.1", port: PORT },
      { network: "unix", path: this.registry.path },
    );
    this.#way = way;
    return id;
  }

  /** Tells one life of the VM from the next. */
  #lifeOf(id: string): string {
    return `${id} ${this.#find()?.startedAt ?? ""}`;
  }

  /**
   * Let the VM reach what the policy allows. Where this user's VMs can have no network, commands reach
   * nothing, whatever the policy says, and base images come all the same.
   */
  async #allow(id: string, policy: NetworkPolicy, work: Work): Promise<void> {
    const { record } = this.#sandboxes.find(id);
    const { networkReason: why, spec } = record;
    if (spec.network !== undefined || why === undefined || policy.mode === "custom") {
      await this.#sandboxes.updatePolicy(id, policy);
    } else if (policy.mode !== "deny-all") work.progress({ phase: "build", message: why });
  }

  /**
   * A build has ended. What it had in the guest goes; a builder that is gone has nothing.
   * @param signal of its work
   * @param whole whether the build came to a good end: otherwise it may have left processes and containers
   */
  async leave(
    id: string,
    signal: AbortSignal,
    dirs: { dir: string; secrets: string },
    whole: boolean,
  ): Promise<void> {
    const paths = [dirs.secrets, ...(whole ? [dirs.dir] : [])];
    const removed = await this.#orNot(async (limit) => {
      const { stdout } = await this.guest.run(id, ["sh", "-c", REMOVE, "sh", ...paths], limit);
      this.#freeShare = freeShareOf(stdout);
    });
    await this.#alone(async () => {
      this.#users.leave(signal);
      if (!whole || !removed) this.#ready = "";
      if (this.#users.count > 0) return;
      const forwarding = this.#forwarding;
      this.#forwarding = undefined;
      // The VM may be gone, and its end of it with it.
      await Promise.race([
        forwarding?.close(),
        new Promise((resolve) => setTimeout(resolve, 5000)),
      ]);
      await this.registry.close();
      if (this.#ready !== "") return;
      await this.#orNot(async (limit) => {
        await this.#makeReady(id, { signal: limit, progress: () => undefined });
      });
    });
  }

  /** Tidy up after a build, if that can be done now. @returns whether it was */
  async #orNot(body: (signal: AbortSignal) => Promise<void>): Promise<boolean> {
    try {
      await body(AbortSignal.timeout(CLEAR_MS));
      return true;
    } catch {
      // The VM was stopped or removed, or does not answer; the next build does it.
      return false;
    }
  }

  /** Make, start or wake the VM. */
  async #running(policy: NetworkPolicy, work: Work): Promise<string> {
    const found = this.#find();
    if (found?.status === "running" || found?.status === "suspended") return found.id;
    if (found !== undefined && (found.status === "stopped" || found.status === "error")) {
      work.progress({ phase: "build", message: "starting the builder" });
      await this.#sandboxes.start(found.id, work);
      return found.id;
    }
    work.progress({ phase: "build", message: "making the builder" });
    const request = this.#request(policy, diskSizeFor(await freeBytes(this.#dir)));
    const view = await this.#sandboxes.create(request, work, () => undefined);
    return view.id;
  }

  #request(policy: NetworkPolicy, diskSizeBytes: number): CreateRequest {
    const halfMib = Math.floor(totalmem() / 2 ** 21);
    return {
      runtime: "builder",
      name: NAME,
      vcpus: Math.min(4, availableParallelism()),
      memMib: Math.max(512, Math.min(2048, halfMib)),
      diskSizeBytes,
      // buildah's own overlays cannot lie on one.
      diskMode: "flat",
      project: "",
      labels: { [LABEL]: "1" },
      driver: "auto",
      env: [],
      policy,
      ports: [],
      networks: [],
      mounts: [],
      kernelArgs: [],
      sysctls: {},
      idle: { ms: IDLE_MS, action: "suspend" },
      isolation: { seccomp: true, pidNamespace: true, cgroup: true, networkNamespace: true },
      pull: "missing",
      warm: false,
      ephemeral: false,
    };
  }

  /** Take away what a build has left that did not come to its end, and the cache when it is too large. */
  async #makeReady(id: string, work: Work): Promise<void> {
    const { signal } = work;
    const life = this.#lifeOf(id);
    if (this.#ready !== life) {
      await this.guest.endBuilds(id, signal);
      this.#freeShare = freeShareOf(await this.guest.must(id, ["sh", "-c", MAKE_READY], signal));
    }
    if (this.#freeShare < FREE_SHARE) {
      work.progress({
        phase: "build",
        message: "the builder's disk is full: emptying its cache",
      });
      this.#emptied += 1;
      this.registry.had.clear();
      this.#freeShare = freeShareOf(await this.guest.must(id, ["sh", "-c", EMPTY], signal));
    }
    this.#ready = life;
  }

  /** A new identifier of a build, which nobody can guess. */
  newId(): string {
    return randomBytes(16).toString("hex");
  }

  /** Remove the VM with its cache, if it is one of those; builds that were interrupted may leave first. @throws ERR_BUILD_IN_USE while something is built */
  async prune({ unusedMs = 0, keepBytes = 0 }: BuildPruneRequest = {}): Promise<BuildPrune> {
    await this.#users.settled(AbortSignal.timeout(CLEAR_MS));
    return await this.#alone(async () => {
      if (this.#users.count > 0) {
        if (unusedMs > 0) return { removed: false, freedBytes: 0 };
        throw new VmsanError({
          code: "ERR_BUILD_IN_USE",
          message: "Cannot remove the builder",
          why: `${this.#users.count} builds run in it.`,
          fix: "Wait for their end, or interrupt them.",
        });
      }
      const found = this.#find();
      if (found === undefined) return { removed: false, freedBytes: 0 };
      const { record } = this.#sandboxes.find(found.id);
      const own = record.spec.disks.filter(({ readonly }) => !readonly);
      const files = await Promise.all(
        own.flatMap(({ path, backing = [] }) => [path, ...backing]).map(fileUse),
      );
      const freedBytes = files.reduce((sum, { bytes }) => sum + bytes, 0);
      const used = Math.max(0, ...files.map(({ writtenMs }) => writtenMs));
      const small = keepBytes > 0 && freedBytes <= keepBytes;
      if (small || Date.now() - used < unusedMs) {
        return { removed: false, freedBytes: 0 };
      }
      await this.#sandboxes.remove(found.id, true);
      this.registry.had.clear();
      return { removed: true, freedBytes };
    });
  }
}
