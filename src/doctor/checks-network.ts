/** Checks of the network: route, names, nftables, firewalls in the way, what VMs will have. */
import { isIP } from "node:net";
import { probeHost } from "../network/host/probe.ts";
import { networkHelperBinary } from "../util/package.ts";
import { run } from "../util/run.ts";
import { which } from "../util/which.ts";
import type { Check, Finding } from "./check.ts";
import { readText } from "./checks-machine.ts";

/** Name servers in the text of a resolv.conf(5). */
export function nameServers(text: string): string[] {
  return [...text.matchAll(/^\s*nameserver\s+(\S+)/gm)]
    .map((match) => match[1] ?? "")
    .filter((address) => isIP(address.split("%")[0] ?? "") !== 0);
}

/** Chains of the forward hook that drop what no rule accepts, in `nft -j list chains`. */
export function droppingForwardChains(json: string): string[] {
  const { nftables } = JSON.parse(json) as {
    nftables: {
      chain?: { family: string; table: string; name: string; hook?: string; policy?: string };
    }[];
  };
  return nftables.flatMap(({ chain }) =>
    chain?.hook === "forward" && chain.policy === "drop" && !chain.table.startsWith("vmsan")
      ? [`${chain.family} ${chain.table} ${chain.name}`]
      : [],
  );
}

/** Interface of the default route in the text of /proc/net/route; undefined when there is none. */
export function defaultInterface(text: string): string | undefined {
  return text
    .split("\n")
    .slice(1)
    .map((line) => line.split("\t"))
    .find((fields) => fields[1] === "00000000" && fields[7] === "00000000")?.[0];
}

/** What nft says, or why it cannot. */
async function tryNft(signal: AbortSignal): Promise<Finding> {
  const nft = await which("nft");
  const root = process.getuid?.() === 0;
  if (nft === undefined) {
    return {
      status: "warn",
      detail: "nft is not installed: VMs have no network.",
      fix: "apt-get install nftables",
    };
  }
  if (!root) return { status: "skip", detail: "Used in a namespace of this user: see network." };
  const tried = await run(nft, ["list", "tables"], { signal });
  if (tried.code === 0) return { status: "ok", detail: "nft can list the tables." };
  return {
    status: "warn",
    detail: `nft does not work: ${tried.stderr.trim().split("\n")[0] ?? ""}.`,
    fix: "Give the container CAP_NET_ADMIN, or load the module nf_tables.",
  };
}

export const networkChecks: readonly Check[] = [
  {
    name: "default-route",
    run: async () => {
      const device = defaultInterface(await readText("/proc/net/route"));
      if (device !== undefined) return { status: "ok", detail: `By ${device}.` };
      const v6 = /^0{32} 00 /m.test(await readText("/proc/net/ipv6_route"));
      return v6
        ? { status: "ok", detail: "IPv6 only." }
        : {
            status: "warn",
            detail: "There is no default route: VMs have no way out, and images cannot be pulled.",
            fix: "Connect the host, or use `vmsan setup --from DIR` and local images.",
          };
    },
  },
  {
    name: "dns",
    run: async () => {
      const servers = nameServers(await readText("/etc/resolv.conf"));
      const outside = servers.filter((address) => !/^(127\.|::1$)/.test(address));
      if (outside.length > 0)
        return { status: "ok", detail: `Name servers ${outside.join(", ")}.` };
      if (servers.length === 0) {
        return {
          status: "warn",
          detail: "/etc/resolv.conf names no server.",
          fix: "Add one, e.g. by DHCP.",
        };
      }
      // systemd-resolved(8): its stub answers on loopback only; here are the servers behind it.
      const behind = nameServers(await readText("/run/systemd/resolve/resolv.conf"));
      return behind.length > 0
        ? { status: "ok", detail: `systemd-resolved, which asks ${behind.join(", ")}.` }
        : {
            status: "warn",
            detail: `The only name server is ${servers.join(", ")}, which guests cannot reach.`,
            fix: "VMs are answered through the host; if names fail in them, name a server in /etc/resolv.conf.",
          };
    },
  },
  { name: "nftables", run: ({ signal }) => tryNft(signal) },
  {
    name: "host-firewall",
    run: async ({ signal }) => {
      const nft = await which("nft");
      if (nft === undefined || process.getuid?.() !== 0) {
        return { status: "skip", detail: "Only root can see the host's rules." };
      }
      const listed = await run(nft, ["-j", "list", "chains"], { signal, maxOutput: 8 << 20 });
      if (listed.code !== 0)
        return { status: "skip", detail: "nft cannot list the host's chains." };
      const dropping = droppingForwardChains(listed.stdout);
      if (dropping.length === 0)
        return { status: "ok", detail: "No chain drops forwarded packets by policy." };
      return {
        status: "warn",
        detail: `Forwarded packets are dropped by policy in ${dropping.join("; ")} (Docker, ufw or firewalld do that).`,
        fix: "If VMs have no network, accept what comes from 198.19.0.0/16 there.",
      };
    },
  },
  {
    name: "network",
    run: async () => {
      const { mode, reason, fix } = await probeHost(networkHelperBinary());
      if (mode === "none") {
        return {
          status: "warn",
          detail: `VMs have no network: ${reason}`,
          ...(fix === undefined ? {} : { fix }),
        };
      }
      return { status: "ok", detail: reason };
    },
  },
];
