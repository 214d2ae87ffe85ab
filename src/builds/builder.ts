/**
 * The VM that builds: made when it is first needed, with the runtime `builder` and a disk of its own,
 * which holds the cache; asleep when nobody has built for a while; removed by a prune.
 */
import { randomBytes } from "node:crypto";
import { stat, statfs } from "node:fs/promises";
import { availableParallelism, totalmem } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { forwardToHost } from "../agent/ports.ts";
import type { Forwarding } from "../agent/ports.ts";
import { listStreams, signalStream } from "../agent/commands.ts";
import type { StreamInfo } from "../agent/spec.ts";
import { startStream } from "../agent/streams.ts";
import type { GuestStream, StreamOptions } from "../agent/streams.ts";
import type { GuestTransport } from "../agent/transport.ts";
import type { BuildPrune, CreateRequest, VmView } from "../model/api.ts";
import { VmsanError } from "../model/errors.ts";
import type { NetworkPolicy } from "../model/policy.ts";
import type { Host } from "../sandbox/host.ts";
import type { Sandboxes } from "../sandbox/sandboxes.ts";
import type { Sleep } from "../sandbox/snapshots/sleep.ts";
import type { Work } from "../sandbox/stages.ts";
import { BuildRegistry } from "./registry.ts";

/** Name of the VM. */
const NAME = "vmsan-builder";
/** Label of the VM, so that one of the user's is not taken for it. */
const LABEL = "vmsan.builder";
/** Label of commands that belong to a build. */
const STREAM_LABEL = "vmsan-build";
/** The disk is as large as half of what is free when it is made, but between these. */
const MIN_DISK = 8 * 2 ** 30;
const MAX_DISK = 64 * 2 ** 30;
const IDLE_MS = 10 * 60_000;
/** Port of the guest's loopback that leads to this host's registry. */
const PORT = 5000;
/** Directory of builds in the guest. */
export const GUEST_DIR = "/var/lib/vmsan-builds";
/** The same for what must not reach its disk. */
export const GUEST_SECRETS = "/dev/shm/vmsan-builds";
/** Share of the disk that must be free before a build: below it, the cache is emptied. */
const FREE_SHARE = 0.25;

const ENVIRONMENT = [
  "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  "HOME=/root",
  "LANG=C.UTF-8",
  "TMPDIR=/var/tmp",
  "BUILDAH_ISOLATION=chroot",
];

/** What a command in the builder said and how it ended. */
export interface Said {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** Bytes that a file takes on the disk; 0 when it is not there. */
async function allocatedBytes(path: string): Promise<number> {
  return await stat(path).then(
    ({ blocks }) => blocks * 512,
    () => 0, // ENOENT: nothing to free
  );
}

/** Size of the builder's disk: what fills it must leave room on this host for others. */
export function diskSizeFor(freeBytes: number): number {
  const half = Math.floor(freeBytes / 2 / 2 ** 30) * 2 ** 30;
  return Math.max(MIN_DISK, Math.min(MAX_DISK, half));
}

/** Most of a short command's output that is kept, in characters. */
const SAID_LIMIT = 64 << 10;

/** Looks, a tenth of a second apart, at whether what was killed in the guest has ended. */
const END_TRIES = 50;

/** Whether a stream is a build's command, or the way to the registry of a daemon that was killed. */
function isOfBuilds({ running, label, kind }: StreamInfo): boolean {
  return running && (label === STREAM_LABEL || kind === "listen");
}

/** Kill what a stream runs, all of it. */
async function endStream(transport: GuestTransport, id: string): Promise<void> {
  try {
    await signalStream(transport, id, "SIGKILL", true);
  } catch (error) {
    // It has ended since it was listed: nothing is left to be killed.
    if (!(error instanceof VmsanError) || error.code !== "ERR_AGENT_STREAM_ENDED") throw error;
  }
}

/** The builder of one VMSAN_DIR. */
export class Builder {
  readonly #sandboxes: Sandboxes;
  readonly #sleeper: Pick<Sleep, "channel">;
  readonly registry: BuildRegistry;
  /** Where VMs' disks lie. */
  readonly #dir: string;
  /** Builds that run; the way to this host is open while there are some. */
  #users = 0;
  #forwarding: Forwarding | undefined;
  /** The policy in force, as text. */
  #policy = "";
  readonly #waiting = new Set<() => void>();
  /** One at a time makes, wakes or clears the VM. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(host: Host, sandboxes: Sandboxes, sleeper: Pick<Sleep, "channel">) {
    this.#sandboxes = sandboxes;
    this.#sleeper = sleeper;
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

  /** The way to the VM's agent; wakes it. */
  transport(id: string): GuestTransport {
    return {
      open: async (path, signal) =>
        (await this.#sleeper.channel(id, true, signal)).open(path, signal),
      request: async (method, path, options = {}) => {
        const signal = options.signal ?? new AbortController().signal;
        return (await this.#sleeper.channel(id, true, signal)).request(method, path, options);
      },
    };
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
      const { signal } = work;
      await new Promise<void>((resolve, reject) => {
        this.#waiting.add(resolve);
        signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
      });
    }
  }

  /** The VM's ID; undefined when builds run that may reach something else. */
  async #tryEnter(policy: NetworkPolicy, work: Work): Promise<string | undefined> {
    return await this.#alone(async () => {
      work.signal.throwIfAborted();
      if (this.#users > 0 && JSON.stringify(policy) !== this.#policy) return undefined;
      const id = await this.#running(policy, work);
      const transport = this.transport(id);
      if (this.#users === 0) {
        await this.#clear(id, transport, work);
        await this.registry.open();
        this.#forwarding = await forwardToHost(
          transport,
          { network: "tcp", host: "127.0.0.1", port: PORT },
          { network: "unix", path: this.registry.path },
        );
      }
      await this.#allow(id, policy, work);
      this.#policy = JSON.stringify(policy);
      this.#users += 1;
      return id;
    });
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

  /** A build has ended. */
  async leave(): Promise<void> {
    await this.#alone(async () => {
      this.#users -= 1;
      if (this.#users > 0) return;
      for (const wake of this.#waiting) wake();
      this.#waiting.clear();
      const forwarding = this.#forwarding;
      this.#forwarding = undefined;
      // The VM may be gone, and its end of it with it.
      await Promise.race([
        forwarding?.close(),
        new Promise((resolve) => setTimeout(resolve, 5000)),
      ]);
      await this.registry.close();
    });
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
    const { bavail, bsize } = await statfs(this.#dir);
    const request = this.#request(policy, diskSizeFor(bavail * bsize));
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

  /** Take away what a build has left whose daemon was killed, and the cache when it is too large. */
  async #clear(id: string, transport: GuestTransport, work: Work): Promise<void> {
    const { signal } = work;
    for (let tries = 0; tries < END_TRIES; tries += 1) {
      const running = (await listStreams(transport)).filter(isOfBuilds);
      if (running.length === 0) break;
      for (const { id: left } of running) await endStream(transport, left);
      await sleep(100, undefined, { signal });
    }
    const left = await this.run(
      id,
      ["find", GUEST_DIR, "-mindepth", "1", "-maxdepth", "1"],
      signal,
    );
    if (left.stdout !== "") {
      await this.run(id, ["rm", "-rf", GUEST_DIR, GUEST_SECRETS], signal);
      await this.run(id, ["buildah", "rm", "--all"], signal);
    }
    const { stdout } = await this.run(id, ["stat", "-f", "-c", "%a %b", "/var/lib"], signal);
    const [free = 0, all = 1] = stdout.trim().split(" ").map(Number);
    if (free / all >= FREE_SHARE) return;
    work.progress({ phase: "build", message: "the builder's disk is full: emptying its cache" });
    await this.run(id, ["buildah", "rmi", "--all", "--force"], signal);
    await this.run(id, ["find", "/var/tmp", "-mindepth", "1", "-delete"], signal);
  }

  /** Start a command in the builder, as root. */
  start(id: string, argv: readonly string[], options: StreamOptions, stdin = false): GuestStream {
    const spec = {
      kind: "exec" as const,
      argv: [...argv],
      env: ENVIRONMENT,
      user: "0",
      workdir: "/",
      stdin,
      label: STREAM_LABEL,
    };
    return startStream(this.transport(id), spec, options);
  }

  /** Run a short command in the builder to its end. */
  async run(id: string, argv: readonly string[], signal: AbortSignal): Promise<Said> {
    const said = { stdout: "", stderr: "" };
    const keep = (which: keyof typeof said) => (bytes: Buffer) => {
      said[which] = (said[which] + bytes.toString("utf8")).slice(-SAID_LIMIT);
    };
    const stream = this.start(id, argv, {
      signal,
      onStdout: keep("stdout"),
      onStderr: keep("stderr"),
    });
    const { exitCode } = await stream.exit;
    return { exitCode, ...said };
  }

  /** The same, of a command that must succeed. @throws ERR_BUILD_BUILDER */
  async must(id: string, argv: readonly string[], signal: AbortSignal): Promise<string> {
    const { exitCode, stdout, stderr } = await this.run(id, argv, signal);
    if (exitCode === 0) return stdout;
    throw new VmsanError({
      code: "ERR_BUILD_BUILDER",
      message: `The builder cannot run ${argv.slice(0, 2).join(" ")}`,
      why: stderr.trim().slice(-1000) || `It ended with status ${exitCode}.`,
      fix: "Build again; `vmsan build prune` makes a new builder.",
    });
  }

  /** A new identifier of a build, which nobody can guess. */
  newId(): string {
    return randomBytes(16).toString("hex");
  }

  /** Remove the VM with its cache. @throws ERR_BUILD_IN_USE while something is built */
  async prune(): Promise<BuildPrune> {
    return await this.#alone(async () => {
      if (this.#users > 0) {
        throw new VmsanError({
          code: "ERR_BUILD_IN_USE",
          message: "Cannot remove the builder",
          why: `${this.#users} builds run in it.`,
          fix: "Wait for their end, or interrupt them.",
        });
      }
      const found = this.#find();
      if (found === undefined) return { removed: false, freedBytes: 0 };
      const { record } = this.#sandboxes.find(found.id);
      const own = record.spec.disks.filter(({ readonly }) => !readonly);
      const sizes = await Promise.all(
        own.flatMap(({ path, backing = [] }) => [path, ...backing]).map(allocatedBytes),
      );
      const freedBytes = sizes.reduce((sum, size) => sum + size, 0);
      await this.#sandboxes.remove(found.id, true);
      return { removed: true, freedBytes };
    });
  }
}
