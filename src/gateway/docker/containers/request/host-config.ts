/** What a request asks of its host: refused where a microVM has no such thing, filled in where it says nothing. */
import type { ContainerBody, ContainerRecord, HostConfig } from "../../../../schema/docker.ts";
import { DockerError, refused } from "../../errors.ts";

const MIB = 2 ** 20;
/** What a container gets that asks for nothing. */
const DEFAULT_MIB = 512;
/** The least that a guest's kernel and its work need. */
const LEAST_MIB = 128;

/** Log drivers of Docker's that there are not here. */
const OTHER_LOG_DRIVERS = new Set(
  "awslogs etwlogs fluentd gcplogs gelf journald splunk syslog".split(" "),
);

/** Log drivers that are what `json-file` is here. */
const LOG_DRIVERS = new Set(["", "json-file", "local"]);

const OWN_KERNEL = "a container is a microVM with a kernel of its own";

/** Whether a namespace is to be shared with the host or another container. */
function isShared(mode: string | null | undefined): boolean {
  return mode === "host" || (mode ?? "").startsWith("container:");
}

/** Refuse what a microVM cannot do. @throws 400 */
function refuseImpossible(host: HostConfig): void {
  const shared: [string, string | null | undefined][] = [
    ["--pid", host.PidMode],
    ["--ipc", host.IpcMode],
    ["--uts", host.UTSMode],
    ["--network", host.NetworkMode],
    ["--cgroupns", host.CgroupnsMode],
  ];
  for (const [flag, mode] of shared) {
    if (isShared(mode)) throw refused(`${flag} ${mode}`, `${OWN_KERNEL}, and shares none of it.`);
  }
  if ((host.Devices ?? []).length > 0) {
    throw refused("--device", `${OWN_KERNEL}, which does not see the host's devices.`);
  }
  if ((host.DeviceRequests ?? []).length > 0) {
    throw refused("--gpus", `${OWN_KERNEL}, which does not see the host's devices.`);
  }
  if ((host.VolumesFrom ?? []).length > 0) {
    throw refused(
      "--volumes-from",
      "name the volumes: two microVMs cannot write to one at a time.",
    );
  }
  // On networks that users have made, where compose sends them, names lead to each other anyway.
  if ((host.Links ?? []).length > 0 && networkModeOf(host.NetworkMode) === "bridge") {
    throw refused("--link", "use a network and its names.");
  }
  if ((host.CgroupParent ?? "") !== "") {
    throw refused("--cgroup-parent", "vmsan keeps each VM in a control group of its own.");
  }
  refuseLogDriver(host.LogConfig?.Type ?? "");
  refuseOthers(host);
}

/** @throws 400 for a log driver that is none, or not here */
function refuseLogDriver(driver: string): void {
  if (LOG_DRIVERS.has(driver) || driver === "none") return;
  const name = driver.slice(0, 60);
  if (OTHER_LOG_DRIVERS.has(driver)) {
    throw refused(`--log-driver ${name}`, "there are json-file, local and none.");
  }
  throw new DockerError(400, `logger: no log driver named '${name}' is registered`);
}

/** Refuse kinds of things of which there is one. @throws 400 */
function refuseOthers(host: HostConfig): void {
  const { Runtime: runtime, Isolation: isolation, VolumeDriver: driver } = host;
  // What Docker calls its own runtime is in many files, and asks for nothing else than a container.
  if (runtime && !["vmsan", "runc", "io.containerd.runc.v2"].includes(runtime)) {
    throw new DockerError(400, `unknown or invalid runtime name: ${runtime.slice(0, 60)}`);
  }
  if (isolation && isolation !== "default") {
    throw refused(`--isolation ${isolation.slice(0, 60)}`, "there is the default one.");
  }
  const drivers = (host.Mounts ?? []).map((mount) => mount.VolumeOptions?.DriverConfig?.Name);
  for (const name of [driver, ...drivers]) {
    if (name && name !== "local") {
      throw refused(`--volume-driver ${name.slice(0, 60)}`, "volumes are local.");
    }
  }
  for (const option of Object.keys(host.StorageOpt ?? {})) {
    if (option !== "size") throw refused(`--storage-opt ${option.slice(0, 60)}`, "there is size.");
  }
}

/** Fields of a request that do nothing, by the flags that they come from and by the reason. */
const UNAPPLIED: readonly (readonly [why: string, fields: Readonly<Record<string, string>>])[] = [
  [
    "what keeps a microVM in is its hardware, not its kernel",
    { CapDrop: "--cap-drop", SecurityOpt: "--security-opt" },
  ],
  ["names are resolved by the network policy's own server", { Dns: "--dns" }],
  [
    "a microVM is bounded by its memory and its processors (-m, --cpus)",
    {
      BlkioWeight: "--blkio-weight",
      BlkioWeightDevice: "--blkio-weight-device",
      BlkioDeviceReadBps: "--device-read-bps",
      BlkioDeviceReadIOps: "--device-read-iops",
      BlkioDeviceWriteBps: "--device-write-bps",
      BlkioDeviceWriteIOps: "--device-write-iops",
      CpuRealtimePeriod: "--cpu-rt-period",
      CpuRealtimeRuntime: "--cpu-rt-runtime",
      CpuShares: "--cpu-shares",
      CpusetCpus: "--cpuset-cpus",
      CpusetMems: "--cpuset-mems",
      MemoryReservation: "--memory-reservation",
      OomKillDisable: "--oom-kill-disable",
      PidsLimit: "--pids-limit",
    },
  ],
  ["a guest does not see the host's devices", { DeviceCgroupRules: "--device-cgroup-rule" }],
];

/** Whether a field says something; clients send defaults for all that they know. */
function isSet(value: unknown): boolean {
  return Array.isArray(value) ? value.length > 0 : Boolean(value) && value !== -1;
}

/** What is asked of a host and does nothing: the fields, and words about them. */
export function unappliedOf(host: Readonly<Record<string, unknown>>): {
  fields: Record<string, unknown>;
  words: string[];
} {
  const names = UNAPPLIED.flatMap(([, fields]) => Object.keys(fields));
  const asked = names.filter((name) => isSet(host[name])).map((name) => [name, host[name]]);
  return { fields: Object.fromEntries(asked) as Record<string, unknown>, words: wordsAbout(host) };
}

function wordsAbout(host: Readonly<Record<string, unknown>>): string[] {
  return UNAPPLIED.flatMap(([why, fields]) => {
    const flags = Object.entries(fields).filter(([field]) => isSet(host[field]));
    const names = flags.map(([, flag]) => flag).join(", ");
    return names === "" ? [] : [`Not applied: ${names}: ${why}.`];
  });
}

/** Words about what is asked for and does nothing. */
function unapplied(body: ContainerBody): string[] {
  const host = body.HostConfig ?? {};
  const places = Object.values(body.NetworkingConfig?.EndpointsConfig ?? {});
  const mac = body.MacAddress || places.some((place) => place?.MacAddress);
  const card = mac ? ["Not applied: --mac-address: a VM's network card has vmsan's."] : [];
  const links = [...(host.Links ?? []), ...places.flatMap((place) => place?.Links ?? [])];
  // `web:web` and `web` ask for no other name than the one that there is.
  if (links.some((link) => new Set(link.split(":")).size > 1)) {
    card.push("Not applied: --link: give the other container that name (--network-alias).");
  }
  return [...wordsAbout(host), ...card];
}

/** Sizes of the VM, and what is said about them. */
export interface Machine {
  vcpus: number;
  memMib: number;
  warnings: string[];
}

/** Memory in MiB for a wish in bytes. */
export function memoryOf(bytes: number | null | undefined): { memMib: number; warning?: string } {
  if (bytes === null || bytes === undefined || bytes <= 0) return { memMib: DEFAULT_MIB };
  const wished = Math.ceil(bytes / MIB);
  if (wished >= LEAST_MIB) return { memMib: wished };
  return {
    memMib: LEAST_MIB,
    warning: `A microVM has at least ${LEAST_MIB} MiB of memory; ${wished} were asked for.`,
  };
}

/** Processors for what was asked for. */
export function processorsOf(
  host: Pick<HostConfig, "NanoCpus" | "CpuQuota" | "CpuPeriod">,
): number {
  const { NanoCpus: nano, CpuQuota: quota, CpuPeriod: period } = host;
  const wished = nano ? nano / 1e9 : quota && quota > 0 ? quota / (period || 100_000) : 1;
  return Math.max(1, Math.min(32, Math.ceil(wished)));
}

/** Check what is asked of the host, and say what kind of VM it comes to. @throws 400 */
export function machineOf(body: ContainerBody): Machine {
  const host = body.HostConfig ?? {};
  refuseImpossible(host);
  const { memMib, warning } = memoryOf(host.Memory);
  const warnings = [...(warning === undefined ? [] : [warning]), ...unapplied(body)];
  return { vcpus: processorsOf(host), memMib, warnings };
}

/** What is recorded of the host's part: as it was asked for, with what it amounts to. */
export function recordedHost(host: HostConfig): ContainerRecord["hostConfig"] {
  const driver = host.LogConfig?.Type ?? "";
  return {
    ...host,
    Binds: host.Binds ?? null,
    NetworkMode: networkModeOf(host.NetworkMode),
    PortBindings: host.PortBindings ?? {},
    RestartPolicy: {
      Name: host.RestartPolicy?.Name || "no",
      MaximumRetryCount: host.RestartPolicy?.MaximumRetryCount ?? 0,
    },
    AutoRemove: host.AutoRemove ?? false,
    LogConfig: { Type: driver === "" ? "json-file" : driver, Config: host.LogConfig?.Config ?? {} },
    Memory: host.Memory ?? 0,
    NanoCpus: host.NanoCpus ?? 0,
    ShmSize: host.ShmSize ?? 0,
    MemorySwappiness: null,
    OomKillDisable: false,
    PidsLimit: null,
    ReadonlyRootfs: host.ReadonlyRootfs ?? false,
    Runtime: host.Runtime || "vmsan",
    Isolation: host.Isolation ?? "",
  };
}

/** A network mode in one spelling. */
export function networkModeOf(mode: string | null | undefined): string {
  return mode === undefined || mode === null || mode === "" || mode === "default" ? "bridge" : mode;
}

/** The restart policy of a record. @throws 400 for one that is none */
export function checkRestartPolicy(host: HostConfig): void {
  const { Name: name, MaximumRetryCount: count } = host.RestartPolicy ?? {};
  if (!["", "no", "always", "unless-stopped", "on-failure"].includes(name ?? "")) {
    throw new DockerError(
      400,
      `invalid restart policy: unknown policy '${(name ?? "").slice(0, 60)}'`,
    );
  }
  const retries = count ?? 0;
  if (retries > 0 && name !== "on-failure") {
    throw new DockerError(
      400,
      "invalid restart policy: maximum retry count can only be used with 'on-failure'",
    );
  }
  if (host.AutoRemove === true && !["", "no"].includes(name ?? "")) {
    throw new DockerError(400, "can't create 'AutoRemove' container with restart policy");
  }
}
