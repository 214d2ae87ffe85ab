/** A VmSpec as the calls that configure Firecracker, and as command lines: pure, no effects. */
import { VmsanError } from "../../model/errors.ts";
import type { VmSpec } from "../../model/vm.ts";
import type { CgroupLimits } from "../cgroup.ts";
import { hostIdOf } from "../host-id.ts";
import type {
  ApiCall,
  Balloon,
  BootSource,
  Drive,
  MachineConfig,
  NetworkInterface,
  RateLimiter,
  SnapshotLoad,
  Vsock,
} from "./api.ts";

/** The port on which the agent listens in the guest (protocol, section 1). */
export const agentPort = 1024;
/** The port on which it waits for a file server, if directories are shared. */
export const fileServerPort = 1025;

/** Names below the directory that Firecracker sees as its root, or works in without a jail. */
export const fcFiles = {
  api: "run/api.sock",
  vsock: "run/vsock.sock",
  log: "run/vmm.log",
  metrics: "run/metrics.json",
  kernel: "vmlinux",
  initramfs: "initramfs",
  snapshotState: "snapshot.state",
  snapshotMemory: "snapshot.memory",
} as const;

/** Name of the n-th disk. */
export function diskFile(index: number): string {
  return `disk${index}`;
}

/** Choices that are not the VM's but the installation's. */
export interface FirecrackerChoices {
  /** In front of each name: `/` in a jail, empty in the VM's directory. */
  prefix: string;
  arch: "x86_64" | "aarch64";
  driveLimits?: RateLimiter;
  networkLimits?: RateLimiter;
}

/** Kernel arguments for Firecracker's machine, before the VM's own. */
function kernelArguments(spec: VmSpec, arch: FirecrackerChoices["arch"]): string {
  const machine =
    arch === "x86_64"
      ? ["i8042.noaux", "i8042.nomux", "i8042.dumbkbd", "pci=off", "swiotlb=noforce"]
      : ["keep_bootcon", "pci=off"];
  return [
    "console=ttyS0",
    // A reboot ends Firecracker by the keyboard controller; a panic reboots at once.
    ...(arch === "x86_64" ? ["reboot=k"] : []),
    "panic=-1",
    "quiet",
    "cryptomgr.notests",
    ...machine,
    "vmsan.channel=vsock",
    ...spec.kernelArgs,
  ].join(" ");
}

/** PUT with a body. */
function put(path: string, body: object): ApiCall {
  return { method: "PUT", path, body };
}

/** Refuse what Firecracker cannot do before anything is made. */
export function checkSpec(spec: VmSpec): void {
  const refuse = (why: string, fix: string): never => {
    const message = `Cannot run the VM ${spec.id} with Firecracker`;
    throw new VmsanError({ code: "ERR_DRIVER_UNSUPPORTED", message, why, fix });
  };
  if (spec.vcpus > 32) refuse(`It has ${spec.vcpus} processors; 32 is the most.`, "Use fewer.");
  if (!/^[A-Za-z0-9-]{1,64}$/.test(hostIdOf(spec))) {
    refuse("Its name is not one of 1 to 64 letters, digits and hyphens.", "Use another name.");
  }
  if (spec.network?.socket !== undefined) {
    refuse("Its network is a socket; Firecracker takes tap devices only.", "Use --driver qemu.");
  }
  if (spec.network !== undefined && spec.network.tap === undefined) {
    refuse("Its network has no tap device.", "Use --network none, or --driver qemu.");
  }
}

/** Calls that configure a VM and start it, in order. */
export function bootCalls(spec: VmSpec, choices: FirecrackerChoices): ApiCall[] {
  const at = (name: string): string => `${choices.prefix}${name}`;
  const machine: MachineConfig = { vcpu_count: spec.vcpus, mem_size_mib: spec.memMib };
  const boot: BootSource = {
    kernel_image_path: at(fcFiles.kernel),
    initrd_path: at(fcFiles.initramfs),
    boot_args: kernelArguments(spec, choices.arch),
  };
  const drives = spec.disks.map((disk, index): ApiCall => {
    const drive: Drive = {
      drive_id: `disk${index}`,
      // The initramfs finds its root itself.
      is_root_device: false,
      path_on_host: at(diskFile(index)),
      is_read_only: disk.readonly,
      cache_type: disk.readonly ? "Unsafe" : "Writeback",
      ...(choices.driveLimits === undefined || disk.readonly
        ? {}
        : { rate_limiter: choices.driveLimits }),
    };
    return put(`/drives/${drive.drive_id}`, drive);
  });
  const vsock: Vsock = { guest_cid: 3, uds_path: at(fcFiles.vsock) };
  const balloon: Balloon = { amount_mib: 0, deflate_on_oom: true, stats_polling_interval_s: 5 };
  const network: ApiCall[] = [];
  if (spec.network?.tap !== undefined) {
    const limits = choices.networkLimits;
    const card: NetworkInterface = {
      iface_id: "eth0",
      host_dev_name: spec.network.tap,
      guest_mac: spec.network.mac,
      ...(limits === undefined ? {} : { rx_rate_limiter: limits, tx_rate_limiter: limits }),
    };
    network.push(put(`/network-interfaces/${card.iface_id}`, card));
  }
  return [
    put("/metrics", { metrics_path: at(fcFiles.metrics) }),
    put("/machine-config", machine),
    put("/boot-source", boot),
    ...drives,
    ...network,
    put("/vsock", vsock),
    put("/balloon", balloon),
    put("/entropy", {}),
    // The kernel and the initramfs are read here, maybe from a cold disk.
    { ...put("/actions", { action_type: "InstanceStart" }), timeoutMs: 60_000 },
  ];
}

/** Calls that load a snapshot; the VM is paused afterwards. */
export function restoreCalls(
  spec: VmSpec,
  choices: FirecrackerChoices,
  overrides: boolean,
): ApiCall[] {
  const at = (name: string): string => `${choices.prefix}${name}`;
  const load: SnapshotLoad = {
    snapshot_path: at(fcFiles.snapshotState),
    mem_backend: { backend_type: "File", backend_path: at(fcFiles.snapshotMemory) },
    resume_vm: false,
    ...(overrides && spec.network?.tap !== undefined
      ? { network_overrides: [{ iface_id: "eth0", host_dev_name: spec.network.tap }] }
      : {}),
  };
  return [
    put("/metrics", { metrics_path: at(fcFiles.metrics) }),
    { ...put("/snapshot/load", load), timeoutMs: 120_000 },
  ];
}

/** Firecracker's own arguments. */
export function firecrackerArguments(spec: VmSpec, prefix: string): string[] {
  return [
    ["--api-sock", `${prefix}${fcFiles.api}`],
    ["--log-path", `${prefix}${fcFiles.log}`, "--level", "Warning"],
    spec.isolation.seccomp ? [] : ["--no-seccomp"],
  ].flat();
}

/** What the jailer is told. */
export interface JailChoices {
  jailer: string;
  firecracker: string;
  /** Directory that holds the jail; must exist. */
  base: string;
  uid: number;
  gid: number;
  netns?: string;
  /** Control group version and settings; none: no control group. */
  cgroup?: { version: 1 | 2; settings: [file: string, value: string][] };
}

/** The jailer's command line. */
export function jailerArguments(spec: VmSpec, choices: JailChoices): string[] {
  const group = choices.cgroup;
  const groups =
    group === undefined
      ? []
      : [
          "--cgroup-version",
          String(group.version),
          "--parent-cgroup",
          "vmsan",
          ...group.settings.flatMap(([file, value]) => ["--cgroup", `${file}=${value}`]),
        ];
  return [
    [choices.jailer, "--id", hostIdOf(spec), "--exec-file", choices.firecracker],
    ["--uid", String(choices.uid), "--gid", String(choices.gid)],
    ["--chroot-base-dir", choices.base],
    choices.netns === undefined ? [] : ["--netns", choices.netns],
    spec.isolation.pidNamespace ? ["--new-pid-ns"] : [],
    groups,
    ["--resource-limit", "no-file=2048"],
    ["--", ...firecrackerArguments(spec, "/")],
  ].flat();
}

/** Memory of Firecracker beyond the guest's: 5 MiB of its own, page tables, vsock buffers. */
const overheadMib = 64;

/** What a VM's control group allows. */
export function cgroupLimits(spec: VmSpec): CgroupLimits {
  return {
    memoryBytes: (spec.memMib + overheadMib) * (1 << 20),
    // A quarter of a processor for devices and the API beside the guest's own.
    cpus: spec.vcpus + 0.25,
    pids: 32 + spec.vcpus,
  };
}
