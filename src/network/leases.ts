/**
 * Leases: which VM has which slot, and with which policy. One file a VM, written before
 * anything is made in the kernel, so that a crash at any moment leaves a name to clean up by.
 */
import { existsSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { VmsanError, errnoOf, messageOf } from "../model/errors.ts";
import type { NetworkPolicy, PolicyMode } from "../model/policy.ts";
import { ASIDE, writeFileAtomic } from "../util/atomic.ts";
import { isSameDirectory } from "../util/files/directory.ts";
import { slotCount } from "./kernel/address.ts";
import { parseAddress, parseCidr } from "./policy/cidr.ts";
import type { PrivateLink } from "./private/links.ts";

/** What is kept of a VM's network. */
export interface Lease {
  schema: 1;
  vmId: string;
  /**
   * Absolute path of the directory that it was written in: a copy of it elsewhere is no lease.
   * Absent in those of versions that did not say so.
   */
  dir?: string;
  /** Name of the network namespace; absent: from the VM's ID. */
  netns?: string;
  slot: number;
  /** First 48 bits of the guests' IPv6 addresses. */
  prefix6: string;
  ipv6: boolean;
  policy: NetworkPolicy;
  /** Number of the policy, counted up by every change. */
  generation: number;
  /** A change of policy or of links was begun and its end is not known. */
  changing: boolean;
  /** The bandwidth limit is set up in the kernel (0: none). */
  shapedMbit: number;
  /** Ways into private networks, made or about to be. */
  links: readonly PrivateLink[];
}

/** Ids become file names and namespace names. Throws ERR_NETWORK_ID. */
export function checkId(vmId: string): void {
  if (/^[a-z0-9][a-z0-9-]{0,60}$/.test(vmId)) return;
  throw new VmsanError({
    code: "ERR_NETWORK_ID",
    message: `Cannot make a network for a VM called ${JSON.stringify(vmId)}`,
    why: "An id consists of lower-case letters, digits and hyphens.",
  });
}

/** A list of strings, or undefined. */
const strings = (value: unknown): string[] | undefined =>
  Array.isArray(value) && value.every((entry) => typeof entry === "string") ? value : undefined;

/** A list of integers, or undefined. */
const numbers = (value: unknown): number[] | undefined =>
  Array.isArray(value) && value.every((entry) => Number.isInteger(entry)) ? value : undefined;

/** A stored policy; undefined when it is not one. */
function readPolicy(value: unknown): NetworkPolicy | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const from = value as Record<string, unknown>;
  const modes: readonly PolicyMode[] = ["allow-all", "deny-all", "custom", "none"];
  const mode = modes.find((known) => known === from["mode"]);
  const allowedDomains = strings(from["allowedDomains"]);
  const allowedCidrs = strings(from["allowedCidrs"]);
  const deniedCidrs = strings(from["deniedCidrs"]);
  const hostPorts = numbers(from["allowHostPorts"]);
  // Leases of versions that knew no such list.
  const allowedPorts = numbers(from["allowedPorts"] ?? []);
  if (
    mode === undefined ||
    allowedDomains === undefined ||
    allowedCidrs === undefined ||
    deniedCidrs === undefined ||
    hostPorts === undefined ||
    allowedPorts === undefined
  ) {
    return undefined;
  }
  const mbit = from["bandwidthMbit"];
  return {
    mode,
    allowedDomains,
    allowedCidrs,
    deniedCidrs,
    allowedPorts,
    allowHostPorts: hostPorts,
    allowIcmp: from["allowIcmp"] === true,
    allowUdp: from["allowUdp"] === true,
    ...(typeof mbit === "number" ? { bandwidthMbit: mbit } : {}),
  };
}

/** A stored way into a private network; undefined when it is not one. */
function readLink(value: unknown): PrivateLink | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { network, netns, index, subnet, address } = value as Record<string, unknown>;
  return typeof network === "string" &&
    typeof netns === "string" &&
    /^vmsan-net-[0-9a-f]{8}$/.test(netns) &&
    typeof index === "number" &&
    Number.isInteger(index) &&
    typeof subnet === "string" &&
    parseCidr(subnet)?.family === 4 &&
    typeof address === "string" &&
    parseAddress(address)?.family === 4
    ? { network, netns, index, subnet, address }
    : undefined;
}

/** A lease from its file's text; undefined when it is damaged. */
function readLease(text: string): Lease | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // SyntaxError: a damaged file, which the caller reports.
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const from = value as Record<string, unknown>;
  const { vmId, slot, prefix6, generation } = from;
  const policy = readPolicy(from["policy"]);
  if (
    from["schema"] !== 1 ||
    typeof vmId !== "string" ||
    typeof slot !== "number" ||
    !Number.isInteger(slot) ||
    slot < 0 ||
    slot >= slotCount ||
    typeof prefix6 !== "string" ||
    !/^fd[0-9a-f]{2}:[0-9a-f]{4}:[0-9a-f]{4}$/.test(prefix6) ||
    typeof generation !== "number" ||
    policy === undefined
  ) {
    return undefined;
  }
  // Leases of versions without private networks have none.
  const links = Array.isArray(from["links"]) ? from["links"].map(readLink) : [];
  if (links.includes(undefined)) return undefined;
  const { shapedMbit: shaped, dir, netns } = from;
  return {
    schema: 1,
    vmId,
    ...(typeof dir === "string" ? { dir } : {}),
    ...(typeof netns === "string" && /^vmsan-[a-z0-9-]{1,80}$/.test(netns) ? { netns } : {}),
    slot,
    prefix6,
    generation,
    policy,
    ipv6: from["ipv6"] === true,
    changing: from["changing"] === true,
    shapedMbit: typeof shaped === "number" ? shaped : 0,
    links: links.filter((link) => link !== undefined),
  };
}

/** Whether a lease that was written in a directory is another's than those of `here`. */
function isForeign(writtenIn: string, here: string): boolean {
  // One whose directory is gone was moved here along with it.
  return !isSameDirectory(writtenIn, here) && existsSync(writtenIn);
}

/** The leases of one installation. Used by one process at a time (the daemon). */
export class Leases {
  private readonly dir: string;
  private readonly byVm = new Map<string, Lease>();
  /** Where the search for a free slot begins: a slot just freed is not taken at once. */
  private cursor = 0;

  /** @param onDamaged told of files that cannot be read; they are left alone */
  constructor(dir: string, onDamaged: (message: string) => void) {
    this.dir = dir;
    for (const name of this.names()) {
      if (name.startsWith(ASIDE)) {
        // A write that its process did not live to finish; nobody else writes here.
        rmSync(join(dir, name), { force: true });
        continue;
      }
      const path = join(dir, name);
      const lease = readLease(readFileSync(path, "utf8"));
      if (lease === undefined || `${lease.vmId}.json` !== name) {
        onDamaged(`The network lease ${path} is damaged and was ignored.`);
      } else if (lease.dir !== undefined && isForeign(lease.dir, dir)) {
        rmSync(path, { force: true });
      } else {
        this.byVm.set(lease.vmId, lease);
        this.cursor = Math.max(this.cursor, lease.slot + 1);
      }
    }
  }

  /** Names of the lease files. */
  private names(): string[] {
    try {
      return readdirSync(this.dir).filter((name) =>
        /^([a-z0-9][a-z0-9-]*\.json|\.tmp-[0-9a-f]+)$/.test(name),
      );
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return [];
      throw new VmsanError(
        {
          code: "ERR_NETWORK_STATE",
          message: `Cannot read the network leases in ${this.dir}`,
          why: messageOf(error),
          fix: "Check the owner and permissions of that directory.",
        },
        error,
      );
    }
  }

  /** The lease of a VM, if it has one. */
  get(vmId: string): Lease | undefined {
    return this.byVm.get(vmId);
  }

  /** All leases. */
  all(): Lease[] {
    return [...this.byVm.values()];
  }

  /**
   * A slot that no lease of ours has and that `taken` does not know either.
   * Throws ERR_VM_NETWORK_SLOTS_EXHAUSTED.
   */
  freeSlot(taken: (slot: number) => boolean): number {
    const used = new Set(this.all().map((lease) => lease.slot));
    for (let step = 0; step < slotCount; step += 1) {
      const slot = (this.cursor + step) % slotCount;
      if (used.has(slot) || taken(slot)) continue;
      this.cursor = slot + 1;
      return slot;
    }
    throw new VmsanError({
      code: "ERR_VM_NETWORK_SLOTS_EXHAUSTED",
      message: "Cannot give the VM a network",
      why: `All ${slotCount} guest networks are in use.`,
      fix: "Remove VMs that are no longer needed (vmsan list, vmsan rm).",
    });
  }

  /** Write a lease; it counts from the moment of the call. */
  async put(given: Lease): Promise<void> {
    const lease = { ...given, dir: this.dir };
    checkId(lease.vmId);
    const before = this.byVm.get(lease.vmId);
    this.byVm.set(lease.vmId, lease);
    try {
      await mkdir(this.dir, { recursive: true, mode: 0o700 });
      await writeFileAtomic(join(this.dir, `${lease.vmId}.json`), `${JSON.stringify(lease)}\n`);
    } catch (error) {
      if (before === undefined) this.byVm.delete(lease.vmId);
      else this.byVm.set(lease.vmId, before);
      throw error;
    }
  }

  /** Forget a VM's lease. */
  async drop(vmId: string): Promise<void> {
    checkId(vmId);
    await rm(join(this.dir, `${vmId}.json`), { force: true });
    this.byVm.delete(vmId);
  }
}
