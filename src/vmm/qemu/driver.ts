/**
 * The QEMU driver: the machine `microvm` with KVM where it works, else by software emulation,
 * which needs nothing of the host. One virtio-serial port is the way to the agent.
 */
import { chmod, mkdir, rm, stat, symlink } from "node:fs/promises";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { hostArch, type KernelArch } from "../../boot/kernel.ts";
import { VmsanError, asVmsanError, messageOf } from "../../model/errors.ts";
import type { ProcessIdentity, VmSpec, MachineIdentity } from "../../model/vm.ts";
import { bootTimeoutMs } from "../../util/boot-timeout.ts";
import { hostCpu } from "../machine.ts";
import { isAlive } from "../../util/process-identity.ts";
import { cgroupName, createCgroup, removeCgroup, type Cgroup } from "../cgroup.ts";
import { boundLog } from "../console-log.ts";
import type {
  CleanupReport,
  Driver,
  DriverCapabilities,
  DriverProbe,
  RunningVm,
  SnapshotFiles,
  VmmExit,
} from "../driver.ts";
import { killAndWait, processExit } from "../exit.ts";
import { hostIdOf } from "../host-id.ts";
import { capability, checkIsolation, hasCapabilities, readIsolation } from "../isolation.ts";
import { killLeftovers } from "../leftovers.ts";
import {
  boxed,
  findProgram,
  spawnDetached,
  tailOf,
  whyNoNetworkNamespace,
  type Boxes,
  type Started,
} from "../launch.ts";
import { claimUid, defaultUidRange, releaseUids, type UidRange } from "../uids.ts";
import {
  guestName,
  qemuArguments,
  qemuFiles,
  translationBufferMib,
  type QemuHost,
  type QemuRestore,
} from "./command.ts";
import { probeQemu } from "./probe.ts";
import type { Qmp } from "./qmp.ts";
import { loadState, memoryOf, withBalloon } from "./snapshot.ts";
import { QemuVm, connectMonitor } from "./vm.ts";

/** What the driver is told about the host. */
export interface QemuDriverOptions {
  /** Directory for cached probe results, e.g. VMSAN_DIR/probes. */
  stateDir: string;
  /** Where user ids are claimed; default `stateDir`/uids. See {@link uidDirectory}. */
  uidDir?: string;
  /** Program; default `qemu-system-ARCH` from PATH. */
  binary?: string;
  /** Default: KVM if the probe says that it works. */
  accelerator?: "kvm" | "tcg";
  /** Guests' processor; default this machine's. Another one only by emulation, for tests. */
  arch?: KernelArch;
  /** User ids for VMs, used as root; default: one that exists in this user namespace. */
  uids?: UidRange;
}

/** Milliseconds until the monitor must answer after the start. */
const startTimeoutMs = bootTimeoutMs(20_000);
/** Memory of the process beyond the guest's and translated code: devices, I/O, snapshots. */
const overheadMib = 192;

const capabilities: DriverCapabilities = {
  snapshots: true,
  diffSnapshots: false,
  diskLayers: true,
  diskGrowth: true,
  multipleStreams: false,
  isolation: ["seccomp", "cgroup", "networkNamespace"],
};

/** Everything a start has made so far, so that a failure can undo it. */
interface Attempt {
  spec: VmSpec;
  host: QemuHost;
  cgroup?: Cgroup;
  notEnforced: string[];
}

/** Time stamp counter of this host in kHz, from /proc/cpuinfo; undefined when it does not say. */
function hostTscKhz(): number | undefined {
  const text = readFileSync("/proc/cpuinfo", "utf8");
  const value = Number(/^bogomips\s*:\s*([\d.]+)/m.exec(text)?.[1]);
  return Number.isFinite(value) && value > 0 ? Math.round(value * 500) : undefined;
}

/** The driver of this host's QEMU. */
export class QemuDriver implements Driver {
  readonly name = "qemu";
  readonly capabilities = capabilities;
  private readonly options: QemuDriverOptions;
  private readonly uidDir: string;
  private probed: Promise<DriverProbe> | undefined;
  /** Tells the program that was probed from another one in its place: upgrades do not wait for daemons to end. */
  private stamp: string | undefined;
  /** Processor model that works with KVM here. */
  private cpu = "host";

  constructor(options: QemuDriverOptions) {
    this.options = options;
    this.uidDir = options.uidDir ?? join(options.stateDir, "uids");
  }

  /** {@inheritDoc Driver.probe} */
  async probe(): Promise<DriverProbe> {
    const stamp = await this.stampOf();
    if (stamp !== this.stamp) this.probed = undefined;
    this.stamp = stamp;
    this.probed ??= this.look();
    try {
      const probe = await this.probed;
      // What is missing may be installed while we run: only success is remembered.
      if (!probe.usable) this.probed = undefined;
      return probe;
    } catch (error) {
      this.probed = undefined;
      throw error;
    }
  }

  private get program(): string {
    return this.options.binary ?? `qemu-system-${this.options.arch ?? hostArch()}`;
  }

  /** Another one whenever the program is; undefined when there is none. */
  private async stampOf(): Promise<string | undefined> {
    try {
      const path = await findProgram(this.program);
      if (path === undefined) return undefined;
      const { dev, ino, size, ctimeNs } = await stat(path, { bigint: true });
      return [path, dev, ino, size, ctimeNs].join(" ");
    } catch {
      // ENOENT: it is being replaced at this moment.
      return undefined;
    }
  }

  /** Find the program, its version and an accelerator. */
  private async look(): Promise<DriverProbe> {
    const { probe, cpu } = await probeQemu(this.options);
    this.cpu = cpu;
    return probe;
  }

  /** The same, where it can be used. @throws ERR_DRIVER_UNUSABLE */
  private async usable(): Promise<{ accelerator: "kvm" | "tcg"; version: string }> {
    const { usable, accelerator, version, reason, fix } = await this.probe();
    if (usable && accelerator !== "none" && version !== undefined) return { accelerator, version };
    throw new VmsanError({
      code: "ERR_DRIVER_UNUSABLE",
      message: "Cannot use QEMU here",
      why: reason,
      ...(fix === undefined ? {} : { fix }),
    });
  }

  /** {@inheritDoc Driver.start} */
  async start(spec: VmSpec, signal: AbortSignal): Promise<RunningVm> {
    return await this.launch(spec, signal);
  }

  /** {@inheritDoc Driver.restore} */
  async restore(spec: VmSpec, from: SnapshotFiles, signal: AbortSignal): Promise<RunningVm> {
    return await this.launch(spec, signal, from);
  }

  /** Start QEMU and take hold of it; on failure or abort nothing is left. */
  private async launch(spec: VmSpec, signal: AbortSignal, from?: SnapshotFiles): Promise<QemuVm> {
    signal.throwIfAborted();
    checkIsolation(this, spec.isolation, spec.network !== undefined);
    const { accelerator, version } = await this.usable();
    const attempt: Attempt = {
      spec,
      host: {
        arch: this.options.arch ?? hostArch(),
        accelerator,
        version,
        cpu: this.cpu,
      },
      notEnforced: [],
    };
    let started: Started | undefined;
    try {
      let restore = from === undefined ? undefined : await memoryOf(from);
      const boxes = await this.prepare(attempt);
      const state = from === undefined ? undefined : await loadState(from);
      const copy = join(spec.dir, qemuFiles.memory);
      try {
        if (restore !== undefined && state?.balloon === true)
          restore = await withBalloon(restore, copy);
        started = await this.spawn(attempt, boxes, restore, state?.descriptors);
        const vm = await this.take(attempt, started, signal);
        try {
          await state?.load(vm.monitor, restore?.memory !== undefined);
        } finally {
          vm.monitor.close();
        }
        return vm.vm;
      } finally {
        if (state?.balloon === true) await rm(copy, { force: true });
        await state?.close();
      }
    } catch (error) {
      if (started !== undefined) await killAndWait(started.identity);
      const left = (await this.cleanup(spec)).failed;
      if (signal.aborted) throw signal.reason;
      const known = asVmsanError(
        error,
        `Cannot start QEMU for the VM ${spec.id}`,
        "ERR_VMM_START",
        "Check that kernel, initramfs and disks exist and that the host's disk is not full.",
      );
      if (left.length === 0) throw known;
      const details = { ...known.details, notCleanedUp: left };
      throw new VmsanError({ ...known.toJSON(), details }, error);
    }
  }

  /** Make the directory, uid, control group and network of a VM ready. */
  private async prepare(attempt: Attempt): Promise<Boxes> {
    const { spec, host, notEnforced } = attempt;
    await mkdir(spec.dir, { recursive: true, mode: 0o700 });
    // A daemon that was killed at the wrong moment may have left one that nobody knows of.
    await killLeftovers(spec.dir, guestName(spec.id));
    await this.removeFiles(spec);
    const khz = hostTscKhz();
    if (khz !== undefined) host.tscKhz = khz;
    await this.chooseUser(attempt);
    if (spec.isolation.cgroup) {
      const code = host.accelerator === "tcg" ? translationBufferMib(spec.memMib) : 0;
      const memoryBytes = (spec.memMib + overheadMib + code) * (1 << 20);
      // A quarter of a processor for devices and I/O beside the guest's own.
      const limits = { memoryBytes, cpus: spec.vcpus + 0.25, pids: 128 + spec.vcpus };
      attempt.cgroup = await createCgroup(hostIdOf(spec), limits);
      notEnforced.push(...attempt.cgroup.notEnforced);
    }
    if (spec.network?.socket !== undefined) {
      await symlink(spec.network.socket, join(spec.dir, qemuFiles.network));
    }
    return {
      cgroups: attempt.cgroup?.dirs ?? [],
      userNamespace: process.geteuid?.() !== 0,
      noNewPrivileges: true,
      network: await this.chooseNetwork(attempt),
    };
  }

  /** Which network namespace QEMU runs in: the VM's, an empty one, or ours if told so. */
  private async chooseNetwork({ spec, notEnforced }: Attempt): Promise<Boxes["network"]> {
    if (spec.network?.netns !== undefined) {
      const { netns, userns } = spec.network;
      return { path: netns, ...(userns === undefined ? {} : { user: userns }) };
    }
    // A tap in our own namespace can be opened there only.
    if (!spec.isolation.networkNamespace || spec.network?.tap !== undefined) return "host";
    const why = await whyNoNetworkNamespace();
    if (why === undefined) return "new";
    notEnforced.push(`network namespace: ${why}`);
    return "host";
  }

  /** As root with the capabilities for it: a user id of the VM's own and another root directory. */
  private async chooseUser(attempt: Attempt): Promise<void> {
    const { spec, host, notEnforced } = attempt;
    if (process.geteuid?.() !== 0) return;
    const { setuid, setgid, sysChroot, kill } = capability;
    if (!hasCapabilities(setuid, setgid, sysChroot, kill)) {
      notEnforced.push("own user id: root here lacks CAP_SETUID, SETGID, SYS_CHROOT or KILL");
      return;
    }
    const range = this.options.uids ?? defaultUidRange();
    if (range === undefined) {
      notEnforced.push("own user id: this user namespace has none to spare");
      return;
    }
    const uid = await claimUid(this.uidDir, range, hostIdOf(spec), spec.dir);
    host.runAs = { uid, gid: uid };
    const root = join(spec.dir, qemuFiles.root);
    await mkdir(root, { recursive: true });
    await chmod(root, 0o755);
  }

  /** Run QEMU in its boxes. */
  private async spawn(
    { spec, host }: Attempt,
    boxes: Boxes,
    restore: QemuRestore | undefined,
    descriptors: readonly number[] = [],
  ): Promise<Started> {
    const lowly = spec.background === true ? ["nice", "-n", "5", "--"] : [];
    const argv = boxed([...lowly, this.program, ...qemuArguments(spec, host, restore)], boxes);
    const log = join(spec.dir, qemuFiles.log);
    return await spawnDetached(argv, { cwd: spec.dir, log, descriptors, env: { LC_ALL: "C" } });
  }

  /** Wait until the monitor of a started QEMU answers. */
  private async take(
    attempt: Attempt,
    { child, identity }: Started,
    signal: AbortSignal,
  ): Promise<{ vm: QemuVm; monitor: Qmp }> {
    const { spec } = attempt;
    const exited = processExit(identity, child);
    const giveUp = new AbortController();
    let ended: VmmExit | undefined;
    void exited.then((exit) => {
      ended = exit;
      giveUp.abort(new Error("QEMU has ended"));
    });
    const limit = AbortSignal.timeout(startTimeoutMs);
    const any = AbortSignal.any([signal, giveUp.signal, limit]);
    try {
      const monitor = await connectMonitor(spec, any);
      const { cgroup, notEnforced } = attempt;
      const joined = cgroup !== undefined && cgroup.dirs.length > 0;
      const known = { spec, notEnforced, ...(joined ? { cgroup: cgroup.name } : {}) };
      return { vm: this.hold(known, identity, exited), monitor };
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      const log = await tailOf(join(spec.dir, qemuFiles.log));
      let why = messageOf(error);
      if (ended !== undefined) why = `It ended with ${ended.signal ?? `status ${ended.code}`}.`;
      else if (limit.aborted) why = `Its monitor did not answer within ${startTimeoutMs} ms.`;
      throw new VmsanError(
        {
          code: "ERR_VMM_START",
          message: `Cannot start QEMU for the VM ${spec.id}`,
          why: log === "" ? why : `${why} It said: ${log}`,
          fix: "Run `vmsan doctor`; if it finds nothing, report this with the text above.",
        },
        error,
      );
    }
  }

  /** A handle of a running QEMU, its console log bounded from now on. */
  private hold(
    attempt: { spec: VmSpec; cgroup?: string; notEnforced: string[] },
    identity: ProcessIdentity,
    exited: Promise<VmmExit>,
  ): QemuVm {
    const { spec, ...known } = attempt;
    boundLog(this.consolePath(spec), exited, (error) => {
      process.emitWarning(`cannot bound ${this.consolePath(spec)}: ${messageOf(error)}`);
    });
    const isolation = readIsolation(identity.pid, { mode: "process", ...known });
    const own = isolation.uid !== process.geteuid?.();
    return new QemuVm(
      spec,
      identity,
      own ? { ...isolation, mode: "own uid, chroot" } : isolation,
      exited,
    );
  }

  /** {@inheritDoc Driver.machine} */
  async machine(): Promise<MachineIdentity> {
    // Memory of a machine that nobody could name would fit none.
    const { accelerator, version } = await this.usable();
    const emulated = accelerator === "tcg";
    const khz = emulated ? hostTscKhz() : undefined;
    return {
      vmm: `QEMU ${version}`,
      accelerator,
      // What emulation offers depends on the program alone.
      cpu: emulated ? "max" : `${this.cpu}: ${hostCpu()}`,
      ...(khz === undefined ? {} : { tscKhz: khz }),
    };
  }

  /** {@inheritDoc Driver.adopt} */
  async adopt(spec: VmSpec, identity: ProcessIdentity): Promise<RunningVm | undefined> {
    if (!isAlive(identity)) return undefined;
    const exited = processExit(identity);
    const groups = readFileSync(`/proc/${identity.pid}/cgroup`, "utf8");
    const name = cgroupName(hostIdOf(spec));
    return this.hold(
      {
        spec,
        // What could not be enforced was said at the start and is in the VM's record.
        notEnforced: [],
        ...(groups.includes(name) ? { cgroup: name } : {}),
      },
      identity,
      exited,
    );
  }

  /** Remove sockets and links that a QEMU leaves behind. */
  private async removeFiles(spec: VmSpec): Promise<void> {
    const { channel, monitor, network, migration, memory, root } = qemuFiles;
    const there = existsSync(spec.dir) ? readdirSync(spec.dir) : [];
    const own = [channel, monitor, network, migration, memory, root].filter((name) =>
      there.includes(name),
    );
    await Promise.all(
      own.map(async (name) => rm(join(spec.dir, name), { recursive: true, force: true })),
    );
  }

  /** {@inheritDoc Driver.cleanup} */
  async cleanup(spec: VmSpec): Promise<CleanupReport> {
    const killed = await killLeftovers(spec.dir, guestName(spec.id));
    const [report, why] = await Promise.all([
      removeCgroup(hostIdOf(spec)),
      this.removeFiles(spec)
        .then(() => releaseUids(this.uidDir, hostIdOf(spec)))
        .catch(messageOf),
    ]);
    report.removed.push(...killed.map((pid) => `process ${pid}`));
    if (why !== undefined) report.failed.push({ what: spec.dir, why });
    return report;
  }

  /** {@inheritDoc Driver.consolePath} */
  consolePath(spec: VmSpec): string {
    return join(spec.dir, qemuFiles.console);
  }
}
