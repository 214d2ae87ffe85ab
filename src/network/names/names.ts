/**
 * The addresses that allowed names have had for one VM: what is in the kernel's set, until
 * when, and what to put there after a change of policy. Pure but for the clock it is given.
 */
import type { NetworkPolicy } from "../../model/policy.ts";
import { addressRefused, nameAllowed } from "../policy/judge.ts";
import type { NameAddress } from "../kernel/rule-input.ts";
import { maxNameAddresses } from "../kernel/rules.ts";

/** Shortest time an address stays usable, in seconds: programs keep answers beyond their TTL. */
export const minSeconds = 120;

/** Longest time, in seconds. */
const maxSeconds = 24 * 3600;

/** How long an address is remembered for connections that outlive its TTL, in seconds. */
const heldSeconds = 24 * 3600;

interface Entry {
  /** Names that led here, newest last; bounded. */
  names: Set<string>;
  /** When the kernel forgets it, in milliseconds. */
  until: number;
  lastSeen: number;
}

/** One VM's addresses. */
export class NameBook {
  private readonly entries = new Map<string, Entry>();
  private readonly now: () => number;

  /** @param now clock in milliseconds */
  constructor(now: () => number = Date.now) {
    this.now = now;
  }

  /**
   * What must be put into the kernel's set before these answers may be given.
   * An address whose time there still suffices is not put again.
   * @param ttl seconds
   */
  learn(name: string, addresses: readonly string[], ttl: number): NameAddress[] {
    const seconds = Math.min(Math.max(ttl, minSeconds), maxSeconds);
    const now = this.now();
    const due: NameAddress[] = [];
    for (const address of addresses) {
      const entry = this.entries.get(address) ?? { names: new Set(), until: 0, lastSeen: now };
      entry.names.delete(name);
      entry.names.add(name);
      if (entry.names.size > 16) entry.names.delete([...entry.names][0] ?? "");
      entry.lastSeen = now;
      this.entries.delete(address);
      this.entries.set(address, entry);
      // Half of the shortest time is enough slack for an address that is asked for again and again.
      if (entry.until < now + Math.max(ttl * 1000, minSeconds * 500)) {
        entry.until = now + seconds * 1000;
        due.push({ address, seconds });
      }
    }
    this.prune();
    return due;
  }

  /** These did not reach the kernel after all. */
  unlearn(due: readonly NameAddress[]): void {
    for (const { address } of due) {
      const entry = this.entries.get(address);
      if (entry !== undefined) entry.until = 0;
    }
  }

  /** Forget what is too old or too much, least recently seen first. */
  private prune(): void {
    const oldest = this.now() - heldSeconds * 1000;
    for (const [address, entry] of this.entries) {
      if (entry.lastSeen > oldest && this.entries.size <= maxNameAddresses) break;
      this.entries.delete(address);
    }
  }

  /** Whether a name has led to an address. */
  leadsTo(name: string, address: string): boolean {
    return this.entries.get(address)?.names.has(name) === true;
  }

  /** All addresses that are usable now. */
  current(): NameAddress[] {
    const now = this.now();
    return [...this.entries]
      .map(([address, { until }]) => ({ address, seconds: Math.ceil((until - now) / 1000) }))
      .filter(({ seconds }) => seconds > 0);
  }

  /** What a policy lets stay: usable addresses, and such that only old connections may use. */
  under(
    policy: NetworkPolicy,
    hostAddresses: readonly string[],
  ): { names: NameAddress[]; held: string[] } {
    const now = this.now();
    const names: NameAddress[] = [];
    const held: string[] = [];
    if (policy.mode !== "custom") return { names, held };
    for (const [address, entry] of this.entries) {
      if (![...entry.names].some((name) => nameAllowed(policy, name))) continue;
      if (addressRefused(policy, hostAddresses, address) !== undefined) continue;
      const seconds = Math.ceil((entry.until - now) / 1000);
      if (seconds > 0) names.push({ address, seconds });
      held.push(address);
    }
    return { names, held };
  }
}
