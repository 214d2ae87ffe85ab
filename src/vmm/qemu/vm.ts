/** A VM in a QEMU process, seen through its monitor and its channel. */
import type { Socket } from "node:net";
import { chown, link, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Duplex } from "node:stream";
import { VmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import type { IsolationReport, ProcessIdentity, VmSpec } from "../../model/vm.ts";
import { isAlive, isStopped } from "../../util/process-identity.ts";
import { formatDuration } from "../../util/units.ts";
import { connectUnix } from "../../util/socket-path.ts";
import type { FileServerPort, RunningVm, SnapshotFiles, VmmExit } from "../driver.ts";
import { killAndWait, vmmGone, within } from "../exit.ts";
import { addLayer, growDisk } from "./block.ts";
import { qemuFiles } from "./command.ts";
import { Qmp } from "./qmp.ts";
import { createState } from "./snapshot.ts";

/** Milliseconds for a running QEMU to take up a monitor connection. */
const monitorTimeoutMs = 20_000;

/** An error of a VM that does not run (any more). */
const notRunning = (id: string, cause?: unknown): VmsanError => vmmGone(id, "QEMU", cause);

/** A QEMU that is there and takes up no connection. */
function silent(process: ProcessIdentity, cause: unknown): VmsanError {
  const stopped = isStopped(process);
  return new VmsanError(
    {
      code: "ERR_VMM_MONITOR",
      message: `QEMU (process ${process.pid}) does not answer`,
      why: stopped
        ? "Its process has been stopped (SIGSTOP)."
        : `It has not taken up its monitor's connection within ${formatDuration(monitorTimeoutMs)}: ${messageOf(cause)}`,
      fix: stopped
        ? `Let it go on: kill -CONT ${process.pid}`
        : "Look at its state in /proc and at the host's disks.",
    },
    cause,
  );
}

/** A VM in a QEMU process. */
export class QemuVm implements RunningVm {
  readonly process: ProcessIdentity;
  readonly isolation: IsolationReport;
  readonly exited: Promise<VmmExit>;
  readonly fileServerPort: FileServerPort;
  private readonly spec: VmSpec;
  private readonly gone = new AbortController();
  private channel: Socket | undefined;

  constructor(
    spec: VmSpec,
    process: ProcessIdentity,
    isolation: IsolationReport,
    exited: Promise<VmmExit>,
  ) {
    this.spec = spec;
    this.process = process;
    this.isolation = isolation;
    this.exited = exited;
    void exited.then(() => this.gone.abort(notRunning(spec.id)));
    this.fileServerPort = { socket: join(spec.dir, qemuFiles.shares) };
  }

  /** {@inheritDoc RunningVm.connect} QEMU takes one client: an earlier stream is ended first. */
  async connect(signal: AbortSignal): Promise<Duplex> {
    const earlier = this.channel;
    if (earlier !== undefined && !earlier.destroyed) {
      const closed = new Promise((resolve) => {
        earlier.once("close", resolve);
      });
      earlier.destroy();
      await closed;
    }
    try {
      this.channel = await connectUnix(join(this.spec.dir, qemuFiles.channel), signal);
      return this.channel;
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (["ENOENT", "ECONNREFUSED"].includes(errnoOf(error) ?? "")) {
        throw notRunning(this.spec.id, error);
      }
      throw error;
    }
  }

  /** Use the monitor for a moment: it takes one client, and another daemon may need it. */
  private async command<T>(body: (monitor: Qmp) => Promise<T>): Promise<T> {
    let monitor: Qmp;
    try {
      const limit = AbortSignal.timeout(monitorTimeoutMs);
      // A process that ends meanwhile will never listen.
      monitor = await connectMonitor(this.spec, AbortSignal.any([limit, this.gone.signal]));
    } catch (error) {
      if (this.gone.signal.aborted) throw this.gone.signal.reason;
      if (!isAlive(this.process)) throw notRunning(this.spec.id, error);
      throw silent(this.process, error);
    }
    try {
      return await body(monitor);
    } finally {
      monitor.close();
    }
  }

  async pause(): Promise<void> {
    await this.command(async (monitor) => await monitor.execute("stop"));
  }

  async resume(): Promise<void> {
    await this.command(async (monitor) => await monitor.execute("cont"));
  }

  /** By default QEMU reports all errors of disks to the guest but this one (`werror=enospc`). */
  async retryWrites(): Promise<boolean> {
    return await this.command(async (monitor) => {
      const state = (await monitor.execute("query-status")) as { status?: string };
      if (state.status !== "io-error") return false;
      await monitor.execute("cont");
      return true;
    });
  }

  async snapshot(files: SnapshotFiles, kind: "full" | "diff"): Promise<void> {
    if (kind === "diff") {
      throw new VmsanError({
        code: "ERR_DRIVER_UNSUPPORTED",
        message: `Cannot make a diff snapshot of ${this.spec.id}`,
        why: "QEMU writes full snapshots only.",
        fix: "Make a full snapshot.",
      });
    }
    const socketDir = this.chrooted ? join(this.spec.dir, qemuFiles.root) : this.spec.dir;
    await this.command(
      async (monitor) => await createState(monitor, this.process.pid, socketDir, files),
    );
  }

  async addLayer(index: number, path: string): Promise<void> {
    const name = basename(path);
    // QEMU sees its root directory alone, and may open there what its own user owns.
    const root = join(this.spec.dir, qemuFiles.root);
    const inside = join(root, name);
    if (this.chrooted) {
      await chown(path, this.isolation.uid, this.isolation.uid);
      await link(path, inside);
    }
    try {
      await this.command(async (monitor) => {
        await addLayer(monitor, index, this.chrooted ? `/${name}` : path);
      });
    } finally {
      if (this.chrooted) await rm(inside, { force: true });
    }
  }

  async growDisk(index: number, sizeBytes: number): Promise<void> {
    await this.command(async (monitor) => await growDisk(monitor, index, sizeBytes));
  }

  /** Whether QEMU runs as a user of its own, with a root directory of its own. */
  private get chrooted(): boolean {
    return this.isolation.uid !== process.geteuid?.();
  }

  async kill(): Promise<void> {
    const gone = await killAndWait(this.process);
    this.channel?.destroy();
    if (gone) await within(this.exited, 2000);
    else {
      throw new VmsanError({
        code: "ERR_VMM_KILL",
        message: `Cannot end the VM ${this.spec.id}`,
        why: `Its process ${this.process.pid} does not die of SIGKILL (stuck in the kernel).`,
        fix: "Look at its state in /proc and at the host's disks; a reboot may be needed.",
      });
    }
  }
}

/** Connect to the monitor as soon as QEMU listens. */
export async function connectMonitor(spec: VmSpec, signal: AbortSignal): Promise<Qmp> {
  // Cheap to ask, and everything waits for it.
  for (let wait = 4; ; wait = Math.min(wait * 1.5, 12)) {
    try {
      return await Qmp.connect(join(spec.dir, qemuFiles.monitor), signal);
    } catch (error) {
      signal.throwIfAborted();
      // Not there yet, or there but not listening yet; EAGAIN: others are in the queue.
      if (!["ENOENT", "ECONNREFUSED", "EAGAIN"].includes(errnoOf(error) ?? "")) throw error;
    }
    await new Promise((resolve) => {
      setTimeout(resolve, wait);
    });
  }
}
