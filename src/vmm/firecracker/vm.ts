/** A VM in a Firecracker process, seen through its API and its vsock socket. */
import { mkdir, rename, rm, chmod, chown } from "node:fs/promises";
import type { Socket } from "node:net";
import { dirname, join } from "node:path";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { VmsanError, errnoOf } from "../../model/errors.ts";
import type { IsolationReport, ProcessIdentity, VmSpec } from "../../model/vm.ts";
import { isAlive } from "../../util/process-identity.ts";
import { run } from "../../util/run.ts";
import { connectUnix } from "../../util/socket-path.ts";
import type { FileServerPort, RunningVm, SnapshotFiles, VmmExit } from "../driver.ts";
import { killAndWait, vmmGone, within } from "../exit.ts";
import { tailOf } from "../launch.ts";
import { FirecrackerApi } from "./api.ts";
import { withLog } from "./causes.ts";
import { agentPort, fcFiles, fileServerPort } from "./config.ts";

/**
 * Milliseconds to wait for the guest's answer, at first and at most: until its driver is up there
 * is none at all, and a slow guest must not be given up too soon each time.
 */
const answerMs = { first: 100, most: 3000 };
/** Milliseconds between attempts. */
const retryMs = 50;

/** Where a VM's Firecracker runs. */
export interface Place {
  /** Directory on the host that its paths are relative to. */
  root: string;
  /** `/` in a jail, empty outside. */
  prefix: string;
  /** User and group of the process; undefined: ours. */
  uid?: number;
}

/** An error of a VM that does not run (any more). */
const notRunning = (id: string, cause?: unknown): VmsanError => vmmGone(id, "Firecracker", cause);

/**
 * Ask for a connection to a guest port on a freshly connected vsock socket.
 * @returns the stream, or undefined when nobody answers or listens yet
 */
async function openPort(
  socket: Socket,
  port: number,
  waitMs: number,
  signal: AbortSignal,
): Promise<Duplex | undefined> {
  return await new Promise((resolve) => {
    let seen = Buffer.alloc(0);
    const finish = (result: Duplex | undefined): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", giveUp);
      socket.removeListener("readable", read);
      socket.removeListener("close", giveUp);
      if (result === undefined) socket.destroy();
      resolve(result);
    };
    const giveUp = (): void => finish(undefined);
    // Not by "data" and pause(): the next reader's "data" would then wait for a resume().
    const read = (): void => {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null) return;
      seen = Buffer.concat([seen, chunk]);
      const end = seen.indexOf("\n");
      if (end < 0 && seen.length < 64) return;
      if (end < 0 || !/^OK \d+$/.test(seen.toString("latin1", 0, end))) return giveUp();
      if (end + 1 < seen.length) socket.unshift(seen.subarray(end + 1));
      finish(socket);
    };
    const timer = setTimeout(giveUp, waitMs);
    signal.addEventListener("abort", giveUp, { once: true });
    // A guest that resets the connection closes it as well, which is what counts.
    socket.on("error", () => undefined);
    socket.on("close", giveUp);
    socket.on("readable", read);
    socket.write(`CONNECT ${port}\n`);
  });
}

/** A running Firecracker. */
export class FirecrackerVm implements RunningVm {
  readonly process: ProcessIdentity;
  readonly isolation: IsolationReport;
  readonly exited: Promise<VmmExit>;
  readonly fileServerPort: FileServerPort;
  /** The API, for what is beyond the common interface (balloon). */
  readonly api: FirecrackerApi;
  private readonly spec: VmSpec;
  private readonly place: Place;

  constructor(
    spec: VmSpec,
    place: Place,
    process: ProcessIdentity,
    isolation: IsolationReport,
    exited: Promise<VmmExit>,
  ) {
    this.spec = spec;
    this.place = place;
    this.process = process;
    this.isolation = isolation;
    this.exited = exited;
    this.fileServerPort = { socket: join(place.root, fcFiles.vsock), vsockPort: fileServerPort };
    this.api = new FirecrackerApi(join(place.root, fcFiles.api));
  }

  /** {@inheritDoc RunningVm.connect} */
  async connect(signal: AbortSignal): Promise<Duplex> {
    const path = join(this.place.root, fcFiles.vsock);
    for (let wait = answerMs.first; ; wait = Math.min(wait * 1.5, answerMs.most)) {
      signal.throwIfAborted();
      if (!isAlive(this.process)) throw notRunning(this.spec.id);
      try {
        const socket = await connectUnix(path, signal);
        const stream = await openPort(socket, agentPort, wait, signal);
        if (stream !== undefined) return stream;
      } catch (error) {
        if (signal.aborted) throw signal.reason;
        // The socket is made at the start and removed by nobody: without it the process has ended
        // or is just ending. EAGAIN: too many connections wait.
        if (!["ENOENT", "ECONNREFUSED", "EAGAIN"].includes(errnoOf(error) ?? "")) throw error;
      }
      // Rejects with an AbortError, which is not the reason that the caller gave.
      await sleep(retryMs, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Make an API call; a dead process is told apart from one that refuses. */
  private async use(body: (api: FirecrackerApi) => Promise<void>): Promise<void> {
    try {
      await body(this.api);
    } catch (error) {
      if (!isAlive(this.process)) throw notRunning(this.spec.id, error);
      throw withLog(error, await tailOf(join(this.place.root, fcFiles.log), 2000));
    }
  }

  async pause(): Promise<void> {
    await this.use(async (api) => await api.setState("Paused"));
  }

  async resume(): Promise<void> {
    await this.use(async (api) => await api.setState("Resumed"));
  }

  async snapshot(files: SnapshotFiles, kind: "full" | "diff"): Promise<void> {
    const { root, prefix, uid } = this.place;
    // Firecracker writes where it may: in a directory of its own, from where the files move.
    const name = "snapshot.new";
    const dir = join(root, name);
    await rm(dir, { recursive: true, force: true });
    await mkdir(dir, { mode: 0o700 });
    try {
      if (uid !== undefined) await chown(dir, uid, uid);
      await this.use(
        async (api) =>
          await api.createSnapshot({
            snapshot_type: kind === "diff" ? "Diff" : "Full",
            snapshot_path: `${prefix}${name}/state`,
            mem_file_path: `${prefix}${name}/memory`,
          }),
      );
      await keep(join(dir, "state"), files.state);
      await keep(join(dir, "memory"), files.memory);
    } catch (error) {
      for (const path of [files.state, files.memory]) await rm(path, { force: true });
      throw error;
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  }

  async addLayer(index: number): Promise<void> {
    throw new VmsanError({
      code: "ERR_DRIVER_UNSUPPORTED",
      message: `Cannot add a layer to disk ${index} of ${this.spec.id}`,
      why: "Firecracker takes disks of one file.",
      fix: "Copy the disk instead.",
    });
  }

  async growDisk(index: number): Promise<void> {
    throw new VmsanError({
      code: "ERR_DRIVER_UNSUPPORTED",
      message: `Cannot grow disk ${index} of ${this.spec.id} while it runs`,
      why: "With Firecracker disks are grown while the VM is stopped.",
      fix: "Stop the VM first.",
    });
  }

  async kill(): Promise<void> {
    if (await killAndWait(this.process)) {
      await within(this.exited, 2000);
      return;
    }
    throw new VmsanError({
      code: "ERR_VMM_KILL",
      message: `Cannot end the VM ${this.spec.id}`,
      why: `Its process ${this.process.pid} does not die of SIGKILL (stuck in the kernel).`,
      fix: "Look at its state in /proc and at the host's disks; a reboot may be needed.",
    });
  }
}

/** Move a snapshot file out of the jail; across file systems it is copied with its holes. */
async function keep(from: string, to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  if (process.geteuid?.() === 0) await chown(from, 0, 0);
  await chmod(from, 0o600);
  try {
    await rename(from, to);
  } catch (error) {
    if (errnoOf(error) !== "EXDEV") throw error;
    const result = await run("cp", ["--sparse=always", "--preserve=mode", "--", from, to]);
    if (result.code !== 0) throw new Error(result.stderr.trim(), { cause: error });
  }
}
