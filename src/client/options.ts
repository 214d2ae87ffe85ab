/** What SDK users may write, made into the daemon's request: human units, defaults, checks. */
import type {
  BlobPeers,
  CreateRequest,
  PullPolicy,
  HostWishes,
  RegistryAccess,
} from "../model/api.ts";
import type { Mount } from "../model/mount.ts";
import type { NetworkPolicy, PublishedPort } from "../model/policy.ts";
import type { DriverName, EndAction } from "../model/vm.ts";
import {
  checkPortsAgainstPolicy,
  parsePolicy,
  parsePublishedPorts,
} from "../network/policy/parse.ts";
import { parseKernelArgs, parseSysctls } from "../util/guest-settings.ts";
import { checkMounts, parseVolumeWord } from "../util/mounts.ts";
import { parseName } from "../util/names.ts";
import { givenBootTimeoutMs, parseBootTimeout } from "../util/boot-timeout.ts";
import { absolutePath } from "../util/byte-text.ts";
import { registryVariables } from "../util/registry-env.ts";
import { invalid, parseDiskSize, parseDuration, parseInteger, parseMemory } from "../util/units.ts";
import { textPath } from "./paths.ts";
import { memberships, type PlaceOptions } from "./private-networks.ts";
import { secretRequests, type SecretOptions } from "./secrets/secrets.ts";

/** Network wishes as people write them; see docs/network.md. */
export interface NetworkOptions {
  /** `allow-all` (default), `deny-all`, `custom` or `none`. */
  networkPolicy?: string;
  allowedDomains?: string[];
  allowedCidrs?: string[];
  deniedCidrs?: string[];
  /** Only these ports of what the lists allow; without it every port. */
  allowedPorts?: (string | number)[];
  allowHostPorts?: (string | number)[];
  allowIcmp?: boolean;
  allowUdp?: boolean;
  /** `50mbit`, `50m`. */
  bandwidth?: string;
}

/** A VM as SDK users ask for it. Only what differs from the defaults needs to be given. */
export interface CreateOptions extends NetworkOptions {
  /** Image source: `node:22`, `oci:DIR[:TAG]`, `rootfs:FILE.tar` … */
  image?: string;
  /** Name from the catalogue: `base` (default), `node22`, `node24`, `python3.13`. */
  runtime?: string;
  /** Path of an ext4 image to boot from. */
  rootfs?: string;
  kernel?: string;
  /** ID or name of a snapshot to go on from; then nothing else says what is on the disk. */
  snapshot?: string;
  /** With a snapshot: boot from its disk instead. */
  cold?: boolean;
  name?: string;
  /** 1–32, default 1. */
  vcpus?: number | string;
  /** MiB or with unit, default 512. */
  memory?: number | string;
  /** GiB, default 10. */
  disk?: number | string;
  diskMode?: "overlay" | "flat";
  project?: string;
  labels?: Record<string, string>;
  driver?: DriverName | "auto";
  /** `KEY=VALUE`, for every command; `KEY` alone takes away what the image has. */
  env?: string[];
  user?: string;
  workdir?: string;
  /** `8080` or `host:guest`, also `address:host:guest` and `…/udp`. */
  ports?: string[];
  /** Private networks that it is in from the beginning, by name or with its place in them. */
  networks?: (string | (PlaceOptions & { network: string }))[];
  /**
   * What the guest uses without seeing it: `NAME=env|file:PATH@domain,…`, or in full; see
   * docs/secrets.md.
   */
  secrets?: (string | SecretOptions)[];
  /** `30s`, `5m`, `1h`; a bare number is minutes. */
  timeout?: number | string;
  /** What happens then; default `stop`. */
  onTimeout?: EndAction;
  /** As `timeout`, of time in which nobody and nothing uses the VM. */
  idleTimeout?: number | string;
  /** What happens then; default `suspend`. */
  onIdle?: EndAction;
  seccomp?: boolean;
  pidNamespace?: boolean;
  cgroup?: boolean;
  networkNamespace?: boolean;
  pull?: PullPolicy;
  /** `os/architecture[/variant]`. */
  platform?: string;
  /** Path of certificates of authorities, of registries and of secrets' domains, besides the system's. */
  caFile?: string;
  /** Boot the image's own init: true for /sbin/init, or its path in the guest. */
  init?: boolean | string;
  /** Volumes and directories: `NAME:/path`, `./dir:/path`, both with `:ro`, `/path`, or in full. */
  mounts?: (string | Mount)[];
  /** Further arguments of the guest's kernel. */
  kernelArgs?: string[];
  /** `net.ipv4.ip_forward=1`; set before the first command, at each boot. */
  sysctls?: string[];
  /** Longest boot, as `timeout`; default what the host needs. */
  bootTimeout?: number | string;
  /** May start from a template of its image, and have one made; default: see docs/snapshots.md. */
  warm?: boolean;
  /** Remove the VM as soon as this process lets go of it. */
  ephemeral?: boolean;
}

/** How this process reaches registries: its variables, authorities if any are named, hosts that may have layers. */
export function registryAccess(caFile?: string, peers?: BlobPeers): RegistryAccess {
  return {
    env: registryVariables(process.env),
    ...(caFile === undefined ? {} : { caFile: textPath(caFile) }),
    ...(peers === undefined ? {} : { peers }),
  };
}

/** What this process's environment says of the host. */
export function hostWishes(): HostWishes {
  const bootTimeoutMs = givenBootTimeoutMs();
  return {
    ...(process.env["VMSAN_KVM"] === "assume" ? { assumeKvm: true } : {}),
    ...(bootTimeoutMs === undefined ? {} : { bootTimeoutMs }),
  };
}

const PATH_SOURCES = /^(oci|oci-archive|docker-archive|rootfs):(?!-$)(.+)$/s;

/** Whether an image source names files or an engine of the host, and no registry. */
export function isHostSource(source: string): boolean {
  return /^(?:oci|oci-archive|docker-archive|docker-daemon|rootfs):/.test(source);
}

/** An image source whose path is absolute: the daemon's working directory is another. */
export function absoluteSource(source: string): string {
  const match = PATH_SOURCES.exec(source);
  if (match === null) return source;
  return `${match[1]}:${absolutePath(match[2] ?? "")}`;
}

/** The policy that these wishes amount to. @throws ERR_VALIDATION_* */
export function policyOf(options: NetworkOptions): NetworkPolicy {
  return parsePolicy({
    mode: options.networkPolicy,
    allowedDomains: options.allowedDomains,
    allowedCidrs: options.allowedCidrs,
    deniedCidrs: options.deniedCidrs,
    allowedPorts: options.allowedPorts,
    allowHostPorts: options.allowHostPorts,
    allowIcmp: options.allowIcmp,
    allowUdp: options.allowUdp,
    bandwidth: options.bandwidth,
  });
}

/** Entries of an environment: `KEY=VALUE`, or `KEY` to take it away. @throws ERR_VALIDATION_FLAGS */
export function parseEnv(entries: readonly string[]): string[] {
  for (const entry of entries) {
    if (/^[^=\0]+(=[^\0]*)?$/s.test(entry)) continue;
    throw invalid(
      "FLAGS",
      "environment entry",
      entry,
      "It takes KEY=VALUE, or KEY.",
      "For example: -e A=1.",
    );
  }
  return [...entries];
}

/** The limits of a VM's life. @throws ERR_VALIDATION_DURATION, ERR_VALIDATION_FLAGS */
export function timeLimits(
  options: Pick<CreateOptions, "timeout" | "onTimeout" | "idleTimeout" | "onIdle">,
): Pick<CreateRequest, "timeoutMs" | "onTimeout" | "idle"> {
  const { timeout, onTimeout, idleTimeout, onIdle } = options;
  if (onTimeout !== undefined && timeout === undefined) throw alone("onTimeout", "timeout");
  if (onIdle !== undefined && idleTimeout === undefined) throw alone("onIdle", "idleTimeout");
  return {
    ...(timeout === undefined ? {} : { timeoutMs: parseDuration(timeout) }),
    ...(onTimeout === undefined ? {} : { onTimeout }),
    ...(idleTimeout === undefined
      ? {}
      : { idle: { ms: parseDuration(idleTimeout), action: onIdle ?? "suspend" } }),
  };
}

/** An option that means nothing without another one. */
function alone(option: string, other: string): Error {
  return invalid(
    "FLAGS",
    option,
    option,
    `It says what happens at ${other}, which is not given.`,
    `Give ${other} as well.`,
  );
}

/** Mounts in full, in order. @throws ERR_VALIDATION_MOUNT, ERR_VALIDATION_VOLUME */
function mountsOf(mounts: readonly (string | Mount)[]): Mount[] {
  return checkMounts(
    mounts.map((mount) => {
      if (typeof mount === "string") return parseVolumeWord(mount);
      return mount.kind === "bind" ? { ...mount, source: textPath(mount.source) } : mount;
    }),
  );
}

/** What keeps a VM apart: all of it, but for what is switched off. */
export function isolationOf(
  options: Pick<CreateOptions, "seccomp" | "pidNamespace" | "cgroup" | "networkNamespace">,
): CreateRequest["isolation"] {
  return {
    seccomp: options.seccomp ?? true,
    pidNamespace: options.pidNamespace ?? true,
    cgroup: options.cgroup ?? true,
    networkNamespace: options.networkNamespace ?? true,
  };
}

/** What VMSAN_WARM says of warm starts: `on`, anything else for off; undefined: nothing. */
function warmSwitch(): boolean | undefined {
  const said = process.env["VMSAN_WARM"];
  return said === undefined || said === "" ? undefined : said === "on";
}

/** The request for these options. @throws ERR_VALIDATION_* */
export function createRequest(options: CreateOptions): CreateRequest {
  const ports: PublishedPort[] = parsePublishedPorts(options.ports);
  const policy = policyOf(options);
  checkPortsAgainstPolicy(policy, ports);
  const warm = options.warm ?? warmSwitch();
  const init = options.init === true ? "/sbin/init" : options.init;
  return {
    ...(options.image === undefined ? {} : { image: absoluteSource(options.image) }),
    ...(options.runtime === undefined ? {} : { runtime: options.runtime }),
    ...(options.rootfs === undefined ? {} : { rootfs: textPath(options.rootfs) }),
    ...(options.kernel === undefined ? {} : { kernel: textPath(options.kernel) }),
    ...(options.name === undefined ? {} : { name: parseName(options.name) }),
    vcpus: parseInteger("vcpus", options.vcpus ?? 1, 1, 32),
    memMib: parseMemory(options.memory ?? 512),
    diskSizeBytes: parseDiskSize(options.disk ?? 10),
    diskMode: options.diskMode ?? "overlay",
    project: options.project ?? "",
    labels: options.labels ?? {},
    driver: options.driver ?? "auto",
    env: parseEnv(options.env ?? []),
    ...(options.user === undefined ? {} : { user: options.user }),
    ...(options.workdir === undefined ? {} : { workdir: options.workdir }),
    policy,
    ports,
    networks: memberships(options.networks ?? []),
    ...(options.secrets === undefined ? {} : { secrets: secretRequests(options.secrets) }),
    ...timeLimits(options),
    isolation: isolationOf(options),
    pull: options.pull ?? "missing",
    ...(options.platform === undefined ? {} : { platform: options.platform }),
    registry: registryAccess(options.caFile),
    host: hostWishes(),
    ...(init === undefined || init === false ? {} : { init }),
    mounts: mountsOf(options.mounts ?? []),
    kernelArgs: parseKernelArgs(options.kernelArgs ?? []),
    sysctls: parseSysctls(options.sysctls ?? []),
    ...(options.bootTimeout === undefined
      ? {}
      : { bootTimeoutMs: parseBootTimeout(options.bootTimeout) }),
    ...(warm === undefined ? {} : { warm }),
    ephemeral: options.ephemeral ?? false,
  };
}
