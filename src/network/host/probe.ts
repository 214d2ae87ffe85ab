/** What this host offers VMs by way of network, found out without lasting effect. */
import { readFileSync } from "node:fs";
import { access, constants } from "node:fs/promises";
import { run } from "../../util/run.ts";
import { parsePolicy } from "../policy/parse.ts";
import { planFor } from "../kernel/address.ts";
import { adminPath, canOpen, hasTool, tools } from "./realm.ts";
import { keeperSpaces, rootlessTools } from "./rootless.ts";
import { ruleset } from "../kernel/rules.ts";
import type { NetworkProbe } from "../types.ts";

/** Number of CAP_NET_ADMIN in capability masks (capability.h). */
const capNetAdmin = 12n;

/** Whether this process may configure the network of the host. */
export function mayAdministrate(): boolean {
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
  return mask !== undefined && ((BigInt(`0x${mask}`) >> capNetAdmin) & 1n) === 1n;
}

/** Environment of programs that are tried. */
const env = { ...process.env, PATH: adminPath, LC_ALL: "C" };

/** An answer of {@link probeHost}. */
const none = (reason: string, fix: string): NetworkProbe => ({ mode: "none", reason, fix });

/**
 * Try the strictest ruleset in a namespace of its own; the kernel's complaint, or undefined.
 * @param spaces arguments of unshare(1)
 */
async function tryRules(spaces: readonly string[]): Promise<string | undefined> {
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
    links: [],
  })
    // There is no tap to hang the first table on; loopback is in every namespace.
    .replace('device "tap0"', 'device "lo"');
  const result = await run("unshare", [...spaces, "--", "nft", "-f", "-"], {
    input: text,
    timeoutMs: 10_000,
    env,
  });
  return result.code === 0 ? undefined : result.stderr.trim().slice(0, 600);
}

/** What a rejected ruleset means. */
const rulesRefused = (complaint: string): NetworkProbe =>
  none(
    `The kernel or nft refuses the rules: ${complaint}`,
    "Use a kernel with nf_tables, nft_tproxy, nft_socket, nft_ct, nft_reject and nft_log (every Debian kernel has them) and nftables 1.0 or newer.",
  );

/** Networks in a user namespace: what an ordinary user has. */
async function probeRootless(): Promise<NetworkProbe> {
  const asRoot = "or start vmsan's daemon as root";
  if (!canOpen("/dev/net/tun")) {
    return none(
      "/dev/net/tun is not open to this user, which networks without root need.",
      `Let it be (chmod 666 /dev/net/tun, as Debian has it), ${asRoot}.`,
    );
  }
  // All that the kernel must permit, in the order in which it is refused.
  const script =
    "mount -t tmpfs vmsan /run && ip netns add probe && ip -n probe tuntap add dev tap0 mode tap";
  const spaces = await run("unshare", [...keeperSpaces, "--", "sh", "-c", script], {
    timeoutMs: 10_000,
    env,
  });
  if (spaces.code !== 0) {
    return none(
      `The kernel does not let this user make networks in namespaces: ${spaces.stderr.trim().slice(0, 300)}`,
      `Permit user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0), ${asRoot}.`,
    );
  }
  const complaint = await tryRules(["--user", "--map-root-user", "--net"]);
  if (complaint !== undefined) return rulesRefused(complaint);
  return {
    mode: "rootless",
    reason: "Without root: namespaces of this user, nftables in them, and pasta as the way out.",
  };
}

/**
 * Forward chains of the host that drop what no rule accepts, unless some rule speaks of vmsan.
 * @param json what `nft -j list ruleset` prints
 */
export function closedForwardChains(json: string): string[] {
  const { nftables } = JSON.parse(json) as { nftables: Record<string, unknown>[] };
  const own = (entry: unknown): boolean => (entry as { table?: string }).table === "vmsan";
  const isOpened = nftables.some(
    ({ rule }) =>
      rule !== undefined && !own(rule) && /vmsan|"198\.1[89]\./.test(JSON.stringify(rule)),
  );
  if (isOpened) return [];
  return nftables.flatMap(({ chain }) => {
    const { family, table, name, hook, policy } = (chain ?? {}) as Record<string, string>;
    if (hook !== "forward" || policy !== "drop" || table === "vmsan") return [];
    return [`${family} ${table} ${name}`];
  });
}

/** What in the host's own firewall stands between VMs and the internet. */
async function firewall(): Promise<Pick<NetworkProbe, "reason" | "fix"> | undefined> {
  const listed = await run("nft", ["-j", "list", "ruleset"], {
    timeoutMs: 10_000,
    maxOutput: 32 << 20,
    env,
  });
  let closed: string[] = [];
  try {
    if (listed.code === 0) closed = closedForwardChains(listed.stdout);
  } catch (error) {
    // SyntaxError: an nft without JSON, or more rules than are read. Nothing is known then.
    if (!(error instanceof SyntaxError)) throw error;
  }
  if (closed.length === 0) return undefined;
  const rules = closed.flatMap((chain) => [
    `nft insert rule ${chain} iifname '"vmsan*"' accept`,
    `nft insert rule ${chain} oifname '"vmsan*"' ct state established,related accept`,
  ]);
  return {
    reason: `The host's firewall drops forwarded packets (${closed.join("; ")}), so VMs reach only names' web traffic and opened ports.`,
    fix: `Let vmsan's links pass, and make it permanent in your firewall's own configuration: ${rules.join("; ")}`,
  };
}

/** The probe behind NetworkManager.probe. @param helper path of vmsan-nethelper */
export async function probeHost(helper: string): Promise<NetworkProbe> {
  const isRoot = mayAdministrate();
  const needed = Object.entries({ ...tools, ...(isRoot ? {} : rootlessTools) });
  const missing = needed.filter(([name]) => !hasTool(name));
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
  if (!isRoot) return await probeRootless();
  if (!canOpen("/dev/net/tun")) {
    return none(
      "/dev/net/tun cannot be opened.",
      "Load the module (modprobe tun) and check the device's permissions.",
    );
  }
  const complaint = await tryRules(["--net"]);
  if (complaint !== undefined) return rulesRefused(complaint);
  const good = "Root, nftables with TPROXY and /dev/net/tun are available.";
  const closed = await firewall();
  if (closed === undefined) return { mode: "root", reason: good };
  return { mode: "root", ...closed, reason: `${good} ${closed.reason}` };
}
