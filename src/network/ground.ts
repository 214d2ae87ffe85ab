/** What VMs' networks stand on: the host's own network, or a realm in its place, made ready and put back. */
import { existsSync, readFileSync } from "node:fs";
import { messageOf } from "../model/errors.ts";
import type { Helper } from "./helper.ts";
import { hostAddresses } from "./host/addresses.ts";
import { forwardingEffects, forwardingSettings } from "./host/forwarding.ts";
import { HostState } from "./host/host-state.ts";
import type { Realm } from "./host/realm.ts";
import { machinePrefix6 } from "./kernel/address.ts";
import { hostRuleset } from "./kernel/rules.ts";

/** Milliseconds for which the host's way out is taken to be what it was. */
const routeFreshMs = 1000;

/** The host's part of all networks of one installation. */
export class Ground {
  readonly prefix6 = machinePrefix6(machineId());
  private readonly realm: Realm;
  private readonly helper: Helper;
  /** Whether guests get IPv6; undefined: when the host has a way out. */
  private readonly ipv6: boolean | undefined;
  private readonly hostState = new HostState();
  private hostReady: Promise<void> | undefined;
  private known: string[] = hostAddresses();
  private ipv6Route = { at: Number.NEGATIVE_INFINITY, there: false };

  constructor(realm: Realm, helper: Helper, ipv6: boolean | undefined) {
    this.realm = realm;
    this.helper = helper;
    this.ipv6 = ipv6;
  }

  /** The host's own addresses, which rules name. */
  get addresses(): readonly string[] {
    return this.known;
  }

  /** Take note of the host's own addresses; whether they have changed. */
  lookAtAddresses(): boolean {
    const now = hostAddresses();
    if (now.join() === this.known.join()) return false;
    this.known = now;
    return true;
  }

  /** Make the realm ready; what an earlier one held is gone, and the helper was in that one. */
  async enter(): Promise<void> {
    if (!(await this.realm.ready())) return;
    this.hostReady = undefined;
    this.helper.stop();
  }

  /** The host's own table and forwarding, once for each manager; in a realm, once for each. */
  async prepare(): Promise<void> {
    await this.enter();
    this.hostReady ??= this.prepareOnce();
    try {
      await this.hostReady;
    } catch (error) {
      this.hostReady = undefined;
      throw error;
    }
  }

  private async prepareOnce(): Promise<void> {
    const rules = (): Promise<void> => this.realm.nft(hostRuleset(this.prefix6));
    const settings = forwardingSettings(this.wantsIpv6(), this.realm.isHost);
    if (this.realm.isHost) {
      await this.hostState.use(settings, forwardingEffects(), rules);
      return;
    }
    await rules();
    const root = "/proc/sys/net/";
    const relative = Object.entries(settings).map(([path, to]) => [path.slice(root.length), to]);
    await this.helper.sysctl(
      "/proc/self/ns/net",
      Object.fromEntries(relative) as Record<string, string>,
    );
  }

  /** Take back what was done for all networks, when none is left. @returns what could not be */
  async leave(): Promise<{ what: string; why: string }[]> {
    try {
      if (!this.realm.isHost) {
        this.helper.stop();
        await this.realm.release();
        this.hostReady = undefined;
        return [];
      }
      if (!this.hostState.exists) return [];
      this.hostReady = undefined;
      return await this.hostState.leave(
        () => [...this.realm.links()].some((name) => /^vmsan\d+$/.test(name)),
        () => this.realm.nft("table inet vmsan\ndelete table inet vmsan\n"),
      );
    } catch (error) {
      return [{ what: "the host's network settings", why: messageOf(error) }];
    }
  }

  /** Whether guests get IPv6. The kernel's list of routes has some of each VM: it is not read for each that is made. */
  wantsIpv6(): boolean {
    const { ipv6 } = this;
    if (ipv6 !== undefined) return ipv6;
    const now = performance.now();
    if (now - this.ipv6Route.at > routeFreshMs) {
      this.ipv6Route = { at: now, there: this.realm.hasIpv6Route() };
    }
    return this.ipv6Route.there;
  }
}

/** What tells this machine from others; only a hash of it is used. */
function machineId(): string {
  for (const path of ["/etc/machine-id", "/var/lib/dbus/machine-id"]) {
    if (existsSync(path)) return readFileSync(path, "utf8");
  }
  return "no machine-id";
}
