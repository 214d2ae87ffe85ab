/** What host and guest tell one another first: hello and the configuration. */
import { VmsanError } from "../model/errors.ts";
import { protocolError } from "./frames.ts";

/** What the agent says of itself. */
export interface Hello {
  protocol: number;
  build: string;
  pid: number;
  bootId: string;
  kernel: string;
  arch: string;
  configured: boolean;
  mode: "init" | "process";
  uptimeMs: number;
}

/** One network card as the guest is to set it up. */
export interface InterfaceConfig {
  mac: string;
  /** With prefix length. */
  addresses: string[];
  gateway4?: string;
  gateway6?: string;
  /** Ranges that lead over {@link gateway4} too, and the address to speak to them from. */
  routes?: { to: string; source: string }[];
  mtu?: number;
}

/** Something for the agent to mount; see protocol/README.md. */
export interface GuestMount {
  kind: "own" | "volume" | "tmpfs";
  target: string;
  label?: string;
  readOnly?: boolean;
  fill?: boolean;
  /** Of kind own: nothing of the image, and everybody may write there, or whom `mode` lets. */
  empty?: boolean;
  /** Mounts of one kind and name show the same directory; `part`: a part of it, or of a volume, which must have it. */
  name?: string;
  part?: string;
  /** Of kind tmpfs: most bytes, permissions of its root and whose that is, whether programs in it cannot be run. */
  sizeBytes?: number;
  mode?: number;
  uid?: number;
  gid?: number;
  noexec?: boolean;
  optional?: boolean;
}

/** Body of `PUT /v1/config`; what is absent is left as it is. */
export interface GuestConfig {
  hostname?: string;
  /** Nanoseconds since the epoch, decimal. */
  time?: { unixNs: string };
  /** Host entropy, base64. */
  seed?: string;
  /** A new channel token, 32 hex digits. */
  token?: string;
  network?: {
    interfaces: InterfaceConfig[];
    dns: string[];
    search: string[];
    hosts: { address: string; names: string[] }[];
  };
  /** `KEY=VALUE`, beneath every command's own. */
  env?: string[];
  /** An authority to trust, or (empty) that none of ours is to be any more. */
  trust?: {
    /** PEM. */
    certificate: string;
    /** Its common name. */
    subject: string;
    /** Public authorities, PEM, for images without any. */
    roots: string;
    /** Absolute paths of further bundles. */
    files: string[];
  };
  /** In this order, each once. */
  mounts?: GuestMount[];
  /** Values by path below /proc/sys; one that is not there is an error. */
  sysctls?: Record<string, string>;
  /** Shared directories, in the order of the file server's; the port must be there. */
  shares?: { target: string; readOnly: boolean; file?: true }[];
  /** Whose they are in the guest where the host cannot tell owners apart. */
  sharesUser?: string;
  /** 32 hex digits. */
  machineId?: string;
  /** Absolute paths that are made, root's and 0755, where they are missing. */
  directories?: string[];
  /** 32 hex digits, written where programs see that the guest came out of a file. */
  generation?: string;
  /** Nobody claims the guest yet: it is to be cloned. Names or paths of what clones are likely to run first. */
  rehearsal?: { programs: string[] };
  /** The guest has just come out of a file, and why. */
  restored?: "clone" | "restore" | "resume";
}

/** What the agent says of a configuration that it has applied. */
export interface ConfigReply {
  /** Milliseconds by step. */
  timings: Record<string, number>;
  /** Sentences about what could not be done and leaves the guest usable. */
  warnings: string[];
}

/** The agent's reply, checked and bounded. */
export function parseConfigReply(value: unknown): ConfigReply {
  const given = (typeof value === "object" && value !== null ? value : {}) as Record<
    string,
    unknown
  >;
  const timings = typeof given["timings"] === "object" ? (given["timings"] ?? {}) : {};
  const warnings = Array.isArray(given["warnings"]) ? given["warnings"] : [];
  return {
    timings: Object.fromEntries(
      Object.entries(timings).filter(([, ms]) => typeof ms === "number"),
    ) as Record<string, number>,
    warnings: warnings
      .filter((text): text is string => typeof text === "string")
      .slice(0, 20)
      .map((text) => text.slice(0, 500)),
  };
}

/**
 * Check an agent's hello.
 * @param build this vmsan's build, named in the error
 * @throws ERR_AGENT_VERSION when the agent speaks another protocol version
 */
export function parseHello(value: unknown, build: string): Hello {
  if (typeof value !== "object" || value === null) throw protocolError("hello is not an object");
  const given = value as Record<string, unknown>;
  const text = (key: string): string => {
    const field = given[key];
    return typeof field === "string" ? field.slice(0, 200) : "";
  };
  const number = (key: string): number => {
    const field = given[key];
    return typeof field === "number" && Number.isFinite(field) ? field : 0;
  };
  const protocol = number("protocol");
  if (protocol !== 1) {
    throw new VmsanError({
      code: "ERR_AGENT_VERSION",
      message: `The guest's agent speaks protocol ${protocol} (build ${text("build")}), this vmsan speaks protocol 1 (build ${build})`,
      why: "The VM was started by another version of vmsan.",
      fix: "Stop the VM and start it again: it then boots with this version's agent.",
    });
  }
  return {
    protocol,
    build: text("build"),
    pid: number("pid"),
    bootId: text("bootId"),
    kernel: text("kernel"),
    arch: text("arch"),
    configured: given["configured"] === true,
    mode: given["mode"] === "process" ? "process" : "init",
    uptimeMs: number("uptimeMs"),
  };
}
