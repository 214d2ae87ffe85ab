/**
 * The Firecracker driver. As root each VM runs under the jailer: a user id of its own, a root
 * directory with only what it needs, namespaces, a control group, the built-in seccomp filters.
 * Without root Firecracker runs in a user and network namespace of its own.
 */
import { readFileSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { hostArch } from "../../boot/kernel.ts";
import { VmsanError, asVmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import type { IsolationReport, ProcessIdentity, VmSpec, MachineIdentity } from "../../model/vm.ts";
import { bootTimeoutMs } from "../../util/boot-timeout.ts";
import { hostCpu } from "../machine.ts";
import { isAlive } from "../../util/process-identity.ts";
import { cgroupName, findCgroups, removeCgroup } from "../cgroup.ts";
import { boundLog, cutPlaced } from "../console-log.ts";
import type {
  CleanupReport,
  Driver,
  DriverCapabilities,
  DriverProbe,
  ProbeWishes,
  RunningVm,
  SnapshotFiles,
} from "../driver.ts";
import { killAndWait, processExit, within } from "../exit.ts";
import { hostIdOf } from "../host-id.ts";
import { checkIsolation, readIsolation } from "../isolation.ts";
import { probeKvm } from "../kvm.ts";
import { findProgram, tailOf } from "../launch.ts";
import { killLeftovers } from "../leftovers.ts";
import { defaultUidRange, releaseUids, type UidRange } from "../uids.ts";
import { FirecrackerApi, type ApiCall, type RateLimiter } from "./api.ts";
import {
  findFirecracker,
  isOlder,
  type FirecrackerPrograms,
  type ProgramsProblem,
} from "./binaries.ts";
import { withLog } from "./causes.ts";
import { bootCalls, checkSpec, fcFiles, restoreCalls, type FirecrackerChoices } from "./config.ts";
import { jailOf, lend, processesInJail, removeJail } from "./jail.ts";
import { startBare, startError, startJailed, type Launched, type StartRequest } from "./start.ts";
import { FirecrackerVm, type Place } from "./vm.ts";

/** What the driver is told about the host. */
export interface FirecrackerDriverOptions {
  /** Directory for cached probe results, e.g. VMSAN_DIR/probes. */
  stateDir: string;
  /** Where user ids are claimed; default `stateDir`/uids. See {@link uidDirectory}. */
  uidDir?: string;
  /** Where `vmsan setup` puts the programs, e.g. VMSAN_DIR/bin. */
  binDir?: string;
  /** Programs; default: in `binDir`, then in PATH. */
  firecracker?: string;
  jailer?: string;
  /** User ids for VMs; default: ones that exist in this user namespace. */
  uids?: UidRange;
  /** Limits for every writable disk and every network card. */
  driveLimits?: RateLimiter;
  networkLimits?: RateLimiter;
  /** Judge of KVM; default {@link probeKvm}. Tests against a stand-in need none. */
  kvm?: () => Promise<{ usable: boolean; reason: string; fix?: string }>;
  /** Milliseconds until the API must answer after the start; default 20 000, or VMSAN_BOOT_TIMEOUT. */
  startTimeoutMs?: number;
}

const capabilities: DriverCapabilities = {
  snapshots: true,
  // Without dirty tracking Firecracker finds changed pages by mincore(2) since 1.13.
  diffSnapshots: true,
  diskLayers: false,
  diskGrowth: false,
  multipleStreams: true,
  isolation: ["seccomp", "pidNamespace", "cgroup", "networkNamespace"],
};

/** What is said of KVM when nobody has tried it. */
export const assumedKvm: { usable: boolean; reason: string; fix?: string } = {
  usable: true,
  reason: "KVM is assumed to work: VMSAN_KVM says so.",
};

/** The driver of this host's Firecracker. */
export class FirecrackerDriver implements Driver {
  readonly name = "firecracker";
  readonly capabilities = capabilities;
  private readonly options: FirecrackerDriverOptions;
  private readonly uidDir: string;

  constructor(options: FirecrackerDriverOptions) {
    this.options = options;
    this.uidDir = options.uidDir ?? join(options.stateDir, "uids");
  }

  /** {@inheritDoc Driver.probe} */
  async probe(wishes: ProbeWishes = {}): Promise<DriverProbe> {
    const found = await this.findPrograms();
    if ("reason" in found) return { usable: false, accelerator: "none", ...found };
    const base = { accelerator: "none", version: found.version } as const;
    const kvm = wishes.assumeKvm === true ? assumedKvm : await this.judgeKvm();
    return {
      ...base,
      usable: kvm.usable,
      accelerator: kvm.usable ? "kvm" : "none",
      reason: kvm.usable ? kvm.reason : `Firecracker needs KVM: ${kvm.reason}`,
      ...(kvm.fix === undefined ? {} : { fix: kvm.fix }),
    };
  }

  /** The programs that a VM is run by, or why there are none to be used. */
  private async findPrograms(): Promise<FirecrackerPrograms | ProgramsProblem> {
    const found = await findFirecracker(this.options);
    if ("reason" in found || found.jailer !== undefined || process.geteuid?.() !== 0) return found;
    return {
      reason: "There is no jailer beside Firecracker, and root must not run it without.",
      fix: "Run `vmsan setup`, or put the jailer of the same release into PATH.",
    };
  }

  /** Whether KVM works here; tried with QEMU where there is one. */
  private async judgeKvm(): Promise<{ usable: boolean; reason: string; fix?: string }> {
    if (this.options.kvm !== undefined) return await this.options.kvm();
    const qemu = await findProgram(`qemu-system-${hostArch()}`);
    const cacheDir = this.options.stateDir;
    return await probeKvm({ cacheDir, ...(qemu === undefined ? {} : { qemu }) });
  }

  /** {@inheritDoc Driver.start} */
  async start(spec: VmSpec, signal: AbortSignal): Promise<RunningVm> {
    return await this.launch(spec, signal);
  }

  /** {@inheritDoc Driver.restore} */
  async restore(spec: VmSpec, from: SnapshotFiles, signal: AbortSignal): Promise<RunningVm> {
    return await this.launch(spec, signal, from);
  }

  /** The programs, or a typed refusal before anything is made. Whether KVM works, a probe has told. */
  private async programs(): Promise<FirecrackerPrograms> {
    const found = await this.findPrograms();
    if ("firecracker" in found) return found;
    const message = "Cannot use Firecracker here";
    const { reason: why, fix } = found;
    throw new VmsanError({ code: "ERR_DRIVER_UNUSABLE", message, why, fix });
  }

  /** Start Firecracker and configure it; on failure or abort nothing is left. */
  private async launch(
    spec: VmSpec,
    signal: AbortSignal,
    from?: SnapshotFiles,
  ): Promise<RunningVm> {
    signal.throwIfAborted();
    checkIsolation(this, spec.isolation, spec.network !== undefined);
    checkSpec(spec);
    const programs = await this.programs();
    let launched: Launched | undefined;
    const giveBack = from === undefined ? undefined : await lend([from.state, from.memory]);
    try {
      await this.clear(spec, programs);
      await mkdir(spec.dir, { recursive: true, mode: 0o700 });
      signal.throwIfAborted();
      launched = await this.run(spec, programs, from);
      await this.configure(spec, launched, programs.version, from !== undefined, signal);
      return this.hold(spec, launched);
    } catch (error) {
      if (launched !== undefined) await killAndWait(launched.identity);
      const left = await this.clear(spec, programs);
      if (signal.aborted) throw signal.reason;
      const known = asVmsanError(
        error,
        `Cannot start Firecracker for the VM ${spec.id}`,
        "ERR_VMM_START",
        "Check that kernel, initramfs and disks exist and that the host's disk is not full.",
      );
      if (left.failed.length === 0) throw known;
      const details = { ...known.details, notCleanedUp: left.failed };
      throw new VmsanError({ ...known.toJSON(), details }, error);
    } finally {
      await giveBack?.();
    }
  }

  /** Run Firecracker, jailed if possible. */
  private async run(
    spec: VmSpec,
    { firecracker, jailer }: FirecrackerPrograms,
    from?: SnapshotFiles,
  ): Promise<Launched> {
    const request: StartRequest = {
      spec,
      firecracker,
      console: this.consolePath(spec),
      timeoutMs: this.options.startTimeoutMs ?? bootTimeoutMs(20_000),
      ...(from === undefined ? {} : { from }),
    };
    if (jailer === undefined || process.geteuid?.() !== 0) return await startBare(request);
    const range = this.options.uids ?? defaultUidRange();
    return await startJailed({ ...request, jailer, uidDir: this.uidDir, range });
  }

  /** Wait for the API, then make the calls that boot or restore. */
  private async configure(
    spec: VmSpec,
    { identity, place, exited }: Launched,
    version: string,
    restore: boolean,
    signal: AbortSignal,
  ): Promise<void> {
    const api = new FirecrackerApi(join(place.root, fcFiles.api));
    const dead = new AbortController();
    const died = new Error("Firecracker has ended");
    void exited.then(() => dead.abort(died));
    const any = AbortSignal.any([signal, dead.signal]);
    const choices: FirecrackerChoices = {
      prefix: place.prefix,
      arch: hostArch(),
      ...(this.options.driveLimits === undefined ? {} : { driveLimits: this.options.driveLimits }),
      ...(this.options.networkLimits === undefined
        ? {}
        : { networkLimits: this.options.networkLimits }),
    };
    const calls = restore
      ? restoreCalls(spec, choices, !isOlder(version, "1.12.0"))
      : bootCalls(spec, choices);
    let call: ApiCall = { method: "GET", path: "/" };
    try {
      await this.awaitApi(api, any);
      for (call of calls) await api.call(call, any);
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      // The end of a process is known a moment later than the end of its connections.
      const exit = await within(exited, isAlive(identity) ? 300 : 2000);
      const log = await tailOf(join(place.root, fcFiles.log), 2000);
      if (exit === undefined) throw withLog(error, log);
      const how = exit.signal ?? (exit.code === null ? "an unknown status" : `status ${exit.code}`);
      const said =
        error === died ? "" : ` ${error instanceof VmsanError ? error.why : messageOf(error)}`;
      throw await startError(
        spec.id,
        this.consolePath(spec),
        `It ended with ${how} at ${call.method} ${call.path}.${said}${log === "" ? "" : ` Its log ends with: ${log}`}`,
        { call: `${call.method} ${call.path}` },
      );
    }
  }

  /** Wait until the API answers. */
  private async awaitApi(api: FirecrackerApi, signal: AbortSignal): Promise<void> {
    const limit = AbortSignal.timeout(this.options.startTimeoutMs ?? bootTimeoutMs(20_000));
    for (let wait = 4; ; wait = Math.min(wait * 1.5, 100)) {
      try {
        await api.instance(AbortSignal.any([signal, limit]));
        return;
      } catch (error) {
        signal.throwIfAborted();
        const cause = error instanceof VmsanError ? error.cause : error;
        const early = ["ENOENT", "ECONNREFUSED"].includes(errnoOf(cause) ?? "");
        if (limit.aborted) {
          throw new VmsanError({
            code: "ERR_VMM_API_TIMEOUT",
            message: "Firecracker does not answer",
            why: "Its API did not answer in time after the start.",
            fix: "VMSAN_BOOT_TIMEOUT (seconds) gives a slow host more time; `vmsan doctor` checks the host.",
          });
        }
        if (!early) throw error;
      }
      await sleep(wait);
    }
  }

  /** A handle of a running Firecracker, its logs bounded from now on. */
  private hold(spec: VmSpec, launched: Launched): FirecrackerVm {
    const { identity, place, exited, notEnforced } = launched;
    const bound = (path: string, cut?: (path: string) => Promise<void>): void => {
      const failed = (error: unknown): void => {
        process.emitWarning(`cannot bound ${path}: ${messageOf(error)}`);
      };
      boundLog(path, exited, failed, cut);
    };
    bound(this.consolePath(spec));
    for (const name of [fcFiles.log, fcFiles.metrics]) bound(join(place.root, name), cutPlaced);
    const isolation = this.report(spec, identity, place, notEnforced);
    return new FirecrackerVm(spec, place, identity, isolation, exited);
  }

  /** What confines the process, as /proc says. */
  private report(
    spec: VmSpec,
    identity: ProcessIdentity,
    place: Place,
    notEnforced: string[],
  ): IsolationReport {
    let groups = "";
    try {
      groups = readFileSync(`/proc/${identity.pid}/cgroup`, "utf8");
    } catch (error) {
      // It has just ended, which whoever asked will be told otherwise.
      if (errnoOf(error) !== "ENOENT" && errnoOf(error) !== "ESRCH") throw error;
    }
    const cgroup = cgroupName(hostIdOf(spec));
    return readIsolation(identity.pid, {
      mode: place.prefix === "/" ? "jailer" : "user namespace",
      notEnforced,
      ...(groups.includes(cgroup) ? { cgroup } : {}),
    });
  }

  /** {@inheritDoc Driver.machine} */
  async machine(): Promise<MachineIdentity> {
    const { version } = await this.programs();
    return { vmm: `Firecracker ${version}`, accelerator: "kvm", cpu: hostCpu() };
  }

  /** {@inheritDoc Driver.adopt} */
  async adopt(spec: VmSpec, identity: ProcessIdentity): Promise<RunningVm | undefined> {
    if (!isAlive(identity)) return undefined;
    const found = await findFirecracker(this.options);
    const jailed =
      "firecracker" in found &&
      (await processesInJail(jailOf(spec, found.firecracker).root)).some(
        (one) => one.pid === identity.pid,
      );
    const place: Place =
      jailed && "firecracker" in found
        ? {
            root: jailOf(spec, found.firecracker).root,
            prefix: "/",
            uid: readIsolation(identity.pid, { mode: "jailer", notEnforced: [] }).uid,
          }
        : { root: join(spec.dir, "vmm"), prefix: "" };
    return this.hold(spec, { identity, place, exited: processExit(identity), notEnforced: [] });
  }

  /** Kill and remove everything of a VM. */
  private async clear(spec: VmSpec, programs?: FirecrackerPrograms): Promise<CleanupReport> {
    const report: CleanupReport = { removed: [], failed: [] };
    if (programs !== undefined) {
      const { root } = jailOf(spec, programs.firecracker);
      for (const one of await processesInJail(root)) {
        if (await killAndWait(one)) report.removed.push(`process ${one.pid}`);
        else report.failed.push({ what: `process ${one.pid}`, why: "It does not die of SIGKILL." });
      }
    }
    const killed = await killLeftovers(spec.dir, hostIdOf(spec));
    report.removed.push(...killed.map((pid) => `process ${pid}`));
    const groups = await removeCgroup(hostIdOf(spec), await findCgroups());
    report.removed.push(...groups.removed);
    report.failed.push(...groups.failed);
    const base = join(spec.dir, "jail");
    const why = await removeJail(base);
    if (why !== undefined) report.failed.push({ what: base, why });
    try {
      await rm(join(spec.dir, "vmm"), { recursive: true, force: true });
      await releaseUids(this.uidDir, hostIdOf(spec));
    } catch (error) {
      report.failed.push({ what: spec.dir, why: messageOf(error) });
    }
    return report;
  }

  /** {@inheritDoc Driver.cleanup} */
  async cleanup(spec: VmSpec): Promise<CleanupReport> {
    const found = await findFirecracker(this.options);
    return await this.clear(spec, "firecracker" in found ? found : undefined);
  }

  /** {@inheritDoc Driver.consolePath} */
  consolePath(spec: VmSpec): string {
    return join(spec.dir, "console.log");
  }
}
