/** Network namespaces for a cluster on one machine: a hub with a bridge, and hosts that are linked to it. */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";

const PREFIX = "vmsan-cluster-";

function ip(...args: string[]): void {
  execFileSync("ip", args, { stdio: ["ignore", "pipe", "pipe"] });
}

/** Processes in a namespace, whoever has started them. */
function processesIn(netns: string): number[] {
  const { stdout } = spawnSync("ip", ["netns", "pids", netns], { encoding: "utf8" });
  return (stdout ?? "").split("\n").filter(Boolean).map(Number);
}

/** End all that runs in a namespace, and remove it. */
function removeNamespace(netns: string): void {
  for (let round = 0; round < 50; round += 1) {
    const pids = processesIn(netns);
    if (pids.length === 0) break;
    for (const pid of pids) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // ESRCH: it has ended by itself.
      }
    }
  }
  spawnSync("ip", ["netns", "del", netns]);
}

/** Take away what runs before this one have left that were killed themselves: names hold the maker's process. */
function sweep(): void {
  const names = existsSync("/run/netns") ? readdirSync("/run/netns") : [];
  for (const name of names.filter((one) => one.startsWith(PREFIX))) {
    const maker = name.slice(PREFIX.length).split("-", 1)[0] ?? "";
    if (!existsSync(`/proc/${maker}`)) removeNamespace(name);
  }
}

/** The network of one cluster. Addresses are its own: nothing outside of it can reach them. */
export class Network {
  /** Namespace of the control plane. */
  readonly hub = `${PREFIX}${process.pid}-hub`;
  /** Its address. */
  readonly hubAddress = "10.97.0.1";
  private readonly hosts: string[] = [];

  constructor() {
    sweep();
    ip("netns", "add", this.hub);
    ip("-n", this.hub, "link", "set", "lo", "up");
    ip("-n", this.hub, "link", "add", "br0", "type", "bridge");
    ip("-n", this.hub, "address", "add", `${this.hubAddress}/24`, "dev", "br0");
    ip("-n", this.hub, "link", "set", "br0", "up");
  }

  /** A host's namespace. @returns its name and its address */
  host(): { netns: string; address: string; cut: (off: boolean) => void } {
    const number = this.hosts.length + 1;
    const netns = `${PREFIX}${process.pid}-h${number}`;
    const address = `10.97.0.${10 + number}`;
    const port = `h${number}`;
    this.hosts.push(netns);
    ip("netns", "add", netns);
    ip("-n", netns, "link", "set", "lo", "up");
    ip("-n", this.hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", netns);
    ip("-n", this.hub, "link", "set", port, "master", "br0", "up");
    ip("-n", netns, "address", "add", `${address}/24`, "dev", "eth0");
    ip("-n", netns, "link", "set", "eth0", "up");
    ip("-n", netns, "route", "add", "default", "via", this.hubAddress);
    const cut = (off: boolean): void =>
      ip("-n", this.hub, "link", "set", port, off ? "down" : "up");
    return { netns, address, cut };
  }

  /** Words before a command that runs in a namespace; `ip netns exec` would hide the control groups. */
  static inside(netns: string): string[] {
    return ["nsenter", `--net=/run/netns/${netns}`];
  }

  /** End all that runs in the network, and remove it. */
  close(): void {
    for (const netns of [...this.hosts, this.hub]) removeNamespace(netns);
  }
}
