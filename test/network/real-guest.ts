/**
 * The table of attempts from inside a real guest, and the rest that the command line does with
 * networks; in namespaces of its own. The job names bin/vmsan, a VMSAN_DIR with kernel and base
 * image, and how to make the VM. Prints JSON lines: results of the table, and stages with what
 * came of them.
 */
import { execFile, execFileSync, spawn } from "node:child_process";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { planFor } from "../../src/network/kernel/address.ts";
import { parsePolicy } from "../../src/network/policy/parse.ts";
import { fillZone, runColumn } from "./column.ts";
import { startContainer } from "./container.ts";
import { attempts, order, policies } from "./table.ts";
import { Prober, World } from "./world.ts";

const job = JSON.parse(process.argv[2] ?? "{}") as {
  nettool: string;
  helper: string;
  dir: string;
  vmsan: string;
  vmsanDir: string;
  columns?: string;
  /** Flags of `create` beyond the published port. */
  create?: string[];
  /** The guest's root directory is its VMM's (the stand-in): there is no other way in for files. */
  jailed?: boolean;
  /** Also from a container of Docker's API. */
  container?: boolean;
};
process.env["VMSAN_DIR"] = job.vmsanDir;
const print = (line: unknown): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`);
};
/** Run the command line; gives its standard output. */
const vmsan = async (...args: string[]): Promise<string> =>
  (await promisify(execFile)(job.vmsan, args)).stdout;

fillZone();
const world = new World({ ...job, upstreamPort: 53 });
await world.start();
const resolv = join(job.dir, "resolv.conf");
writeFileSync(resolv, "nameserver 127.0.0.1\n");
execFileSync("mount", ["--bind", resolv, "/etc/resolv.conf"]);
const port = {
  protocol: "tcp",
  hostAddress: "198.51.100.2",
  hostPort: 8090,
  guestPort: 8080,
} as const;
const other = await world.guest(
  "vm-other",
  parsePolicy({}),
  [port],
  ["--tcp", "8080", "--udp", "5000"],
);

const made = JSON.parse(
  await vmsan(
    "create",
    "--json",
    "--runtime",
    "base",
    "--publish-port",
    "198.51.100.2:8091:8080",
    ...(job.create ?? []),
  ),
) as { vmId: string };
/** Where a VM is in the network. */
const planOf = (id: string): ReturnType<typeof planFor> => {
  const lease = JSON.parse(readFileSync(join(job.vmsanDir, "network", `${id}.json`), "utf8")) as {
    slot: number;
    prefix6: string;
  };
  return planFor(id, lease.slot, lease.prefix6);
};
/** A process that makes attempts in a VM. */
const proberIn = (id: string, program: string): Prober =>
  new Prober([job.vmsan, "exec", "-i", "--user", "root", id, "--", program, "probe"]);
/** A VM as `inspect` shows it. */
const inspect = async (): Promise<Record<string, unknown>> =>
  JSON.parse(await vmsan("inspect", "--json", made.vmId)) as Record<string, unknown>;
if (job.jailed === true) {
  copyFileSync(job.nettool, `/proc/${String((await inspect())["pid"])}/root/tmp/nettool`);
} else await vmsan("upload", made.vmId, job.nettool, "-d", "/tmp");
const vm = proberIn(made.vmId, "/tmp/nettool");
const plain = (text: string | undefined): string => (text ?? "").split("/")[0] ?? "";
/** All attempts of one policy's column in a VM. */
const column = async (id: string, prober: Prober, letter: string): Promise<void> => {
  const site = {
    ...planOf(id),
    otherGuest4: plain(other.network.guest.ipv4),
    otherGateway4: plain(other.network.guest.gateway4),
  };
  const table = attempts(site);
  const { seen } = world;
  const context = { vm: prober, seen, netns: site.netns, site, table, print, patience: 4000 };
  await runColumn(context, letter, true);
};
for (const letter of job.columns ?? order) {
  const policy = policies[letter] ?? parsePolicy({});
  const list = (flag: string, values: readonly (string | number)[]): string[] =>
    values.length === 0 ? [] : [flag, values.join(",")];
  await vmsan(
    "network",
    made.vmId,
    "--network-policy",
    policy.mode,
    ...list("--allowed-domain", policy.allowedDomains),
    ...list("--allowed-cidr", policy.allowedCidrs),
    ...list("--denied-cidr", policy.deniedCidrs),
    ...list("--allowed-port", policy.allowedPorts),
    ...list("--allow-host-port", policy.allowHostPorts),
    ...(policy.allowIcmp ? ["--allow-icmp"] : []),
    ...(policy.allowUdp ? ["--allow-udp"] : []),
  );
  await column(made.vmId, vm, letter);
}
// A container of Docker's API with nothing said of networks is as a VM that may reach the internet.
if (job.container === true) {
  const serve = ["serve", "--tcp", "8080", "--udp", "5000"];
  const container = await startContainer(job.vmsanDir, job.nettool, ...serve);
  await column(container.vmId, proberIn(container.vmId, "/nettool"), "A");
  await container.remove();
}
/** Whether the guest's port answers the internet at the host's address. */
const outside = world.prober("internet");
const published = async (): Promise<string> => {
  for (let attempt = 1; ; attempt += 1) {
    const got = await outside.probe({ kind: "tcp", addr: "198.51.100.2:8091", timeoutMs: 10_000 });
    // The guest's server may not be up yet.
    if (got.startsWith("open") || attempt === 20) return got;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
};

// The decision log, as it grows.
await vmsan("network", made.vmId, "--network-policy", "custom", "--allowed-domain", "a.test");
const follower = spawn(job.vmsan, ["network", "--json", "--log", "-f", made.vmId], {
  stdio: ["ignore", "pipe", "inherit"],
});
const refused = new Promise<string>((resolve) => {
  createInterface({ input: follower.stdout }).on("line", (line) => {
    if (line.includes("late.test")) resolve(line);
  });
  follower.once("exit", () => resolve("the follower ended"));
});
await vm.probe({ kind: "dns", addr: "9.9.9.9:53", name: "late.test", type: 1, timeoutMs: 4000 });
print({ stage: "log", got: await refused });
follower.kill("SIGTERM");

// A published port, before and after the daemon is another one.
const serve = ["/tmp/nettool", "serve", "--tcp", "8080"];
const server = spawn(job.vmsan, ["exec", "-i", made.vmId, "--", ...serve], {
  stdio: ["pipe", "ignore", "inherit"],
});
print({ stage: "published", got: await published() });
await vmsan("daemon", "stop");
await vmsan("list");
print({ stage: "published, next daemon", got: await published() });

// A port that somebody else has taken in between is no reason to give up the VM.
await vmsan("daemon", "stop");
const thief = createServer();
await new Promise<void>((resolve) => thief.listen(8091, "198.51.100.2", resolve));
const { status, networkReason } = await inspect();
print({ stage: "port taken", status, networkReason });
const alive = await vmsan("exec", made.vmId, "--", "/tmp/nettool", "say", "alive");
print({ stage: "alive", got: alive.trim() });
thief.close();
server.kill("SIGKILL");

// Nothing of the host is changed once the last VM has gone and the daemon ended.
await vmsan("rm", "-f", made.vmId);
await world.stop();
const before = execFileSync("nft", ["list", "tables"], { encoding: "utf8" }).trim();
await vmsan("daemon", "stop");
const after = execFileSync("nft", ["list", "tables"], { encoding: "utf8" }).trim();
const forwarding = readFileSync("/proc/sys/net/ipv4/ip_forward", "utf8").trim();
print({ stage: "left", before, after, forwarding });
print({ done: true });
process.exit(0);
