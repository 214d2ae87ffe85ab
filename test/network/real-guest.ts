/**
 * The table of attempts from inside a real guest, through the command line; in namespaces of its
 * own. The job names bin/vmsan and a VMSAN_DIR with kernel and base image. Prints JSON lines.
 */
import { execFile, execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { planFor } from "../../src/network/address.ts";
import { parsePolicy } from "../../src/network/parse.ts";
import { fillZone, runColumn } from "./column.ts";
import { attempts, order, policies } from "./table.ts";
import { Prober, World } from "./world.ts";

const job = JSON.parse(process.argv[2] ?? "{}") as {
  nettool: string;
  helper: string;
  dir: string;
  vmsan: string;
  vmsanDir: string;
  columns?: string;
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
  await vmsan("create", "--json", "--runtime", "base", "--publish-port", "198.51.100.2:8091:8080"),
) as { vmId: string };
const lease = JSON.parse(
  readFileSync(join(job.vmsanDir, "network", `${made.vmId}.json`), "utf8"),
) as {
  slot: number;
  prefix6: string;
};
const plan = planFor(made.vmId, lease.slot, lease.prefix6);
await vmsan("upload", made.vmId, job.nettool, "-d", "/tmp");
const vm = new Prober([
  job.vmsan,
  "exec",
  "-i",
  "--user",
  "root",
  made.vmId,
  "--",
  "/tmp/nettool",
  "probe",
]);
const plain = (text: string | undefined): string => (text ?? "").split("/")[0] ?? "";
const site = {
  ...plan,
  otherGuest4: plain(other.network.guest.ipv4),
  otherGateway4: plain(other.network.guest.gateway4),
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
    ...list("--allow-host-port", policy.allowHostPorts),
    ...(policy.allowIcmp ? ["--allow-icmp"] : []),
    ...(policy.allowUdp ? ["--allow-udp"] : []),
  );
  await runColumn(
    { vm, seen: world.seen, netns: plan.netns, site, table: attempts(site), print, patience: 4000 },
    letter,
    true,
  );
}
await vmsan("rm", "-f", made.vmId);
await world.stop();
print({ done: true });
process.exit(0);
