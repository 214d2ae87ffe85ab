/** What this host offers VMs by way of network, found out without lasting effect. */
import { readFileSync } from "node:fs";
import { access, constants } from "node:fs/promises";
import { run } from "../util/run.ts";
import { parsePolicy } from "./parse.ts";
import { planFor } from "./address.ts";
import { canOpen, hasTool, tools } from "./realm.ts";
import { ruleset } from "./rules.ts";
import type { NetworkProbe } from "./types.ts";

/** Number of CAP_NET_ADMIN in capability masks (capability.h). */
const capNetAdmin = 12n;

/** Whether this process may configure the network of the host. */
function mayAdministrate(): boolean {
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
  return mask !== undefined && ((BigInt(`0x${mask}`) >> capNetAdmin) & 1n) === 1n;
}

/** An answer of {@link probeHost}. */
const none = (reason: string, fix: string): NetworkProbe => ({ mode: "none", reason, fix });

/** What stands in the way of networks in a user namespace, in words. */
async function withoutRoot(): Promise<string> {
  const lacks: string[] = [];
  if (!canOpen("/dev/net/tun")) lacks.push("/dev/net/tun is not open to this user");
  if (!hasTool("pasta")) lacks.push("pasta (package passt) is not installed");
  const spaces = await run("unshare", ["--user", "--map-root-user", "--net", "true"], {
    timeoutMs: 5000,
  });
  if (spaces.code !== 0) lacks.push("the kernel does not let this user make namespaces");
  const state = lacks.length === 0 ? "everything needed is here" : lacks.join("; ");
  return `Networks without root are not supported yet (${state}).`;
}

/** Try the strictest ruleset in a namespace of its own; the kernel's complaint, or undefined. */
async function tryRules(): Promise<string | undefined> {
  const text = ruleset({
    policy: parsePolicy({
      mode: "custom",
      allowedDomains: "example.com",
      allowUdp: true,
      allowIcmp: true,
    }),
    plan: planFor("probe", 0, "fd00:0000:0000"),
    generation: 1,
    ipv6: true,
    hostAddresses: [],
    names: [],
    heldNames: [],
  })
    // There is no tap to hang the first table on; loopback is in every namespace.
    .replace('device "tap0"', 'device "lo"');
  const result = await run("unshare", ["--net", "--", "nft", "-f", "-"], {
    input: text,
    timeoutMs: 10_000,
    env: { ...process.env, PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin`, LC_ALL: "C" },
  });
  return result.code === 0 ? undefined : result.stderr.trim().slice(0, 600);
}

/** The probe behind NetworkManager.probe. @param helper path of vmsan-nethelper */
export async function probeHost(helper: string): Promise<NetworkProbe> {
  const missing = Object.entries(tools).filter(([name]) => !hasTool(name));
  if (missing.length > 0) {
    return none(
      `Not installed: ${missing.map(([name]) => name).join(", ")}.`,
      `apt-get install ${[...new Set(missing.map(([, debian]) => debian))].join(" ")}`,
    );
  }
  try {
    await access(helper, constants.X_OK);
  } catch {
    // ENOENT, EACCES: no helper, which is the answer.
    return none(`The network helper ${helper} is missing.`, "Install vmsan again.");
  }
  if (!mayAdministrate()) {
    return none(
      `Networks need root (CAP_NET_ADMIN) here. ${await withoutRoot()}`,
      "Start vmsan's daemon as root, or use --network-policy none.",
    );
  }
  if (!canOpen("/dev/net/tun")) {
    return none(
      "/dev/net/tun cannot be opened.",
      "Load the module (modprobe tun) and check the device's permissions.",
    );
  }
  const complaint = await tryRules();
  if (complaint !== undefined) {
    return none(
      `The kernel or nft refuses the rules: ${complaint}`,
      "Use a kernel with nf_tables, nft_tproxy, nft_socket, nft_ct, nft_reject and nft_log (every Debian kernel has them) and nftables 1.0 or newer.",
    );
  }
  return { mode: "root", reason: "Root, nftables with TPROXY and /dev/net/tun are available." };
}
