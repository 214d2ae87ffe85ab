/**
 * A real guest of an ordinary user: bin/vmsan under another user id, in namespaces of its own.
 * The job names the checkout and a VMSAN_DIR with kernels and runtimes. Prints JSON lines.
 */
import { execFile, execFileSync, spawn } from "node:child_process";
import {
  chmodSync,
  chownSync,
  cpSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { fillZone } from "./column.ts";
import { World } from "./world.ts";

const job = JSON.parse(process.argv[2] ?? "{}") as {
  nettool: string;
  helper: string;
  dir: string;
  checkout: string;
  vmsanDir: string;
};
const print = (line: unknown): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`);
};
const uid = 54_321;

fillZone();
const world = new World({ ...job, upstreamPort: 53 });
await world.start();
// What an ordinary Debian host has: a tun device for everybody, ping without privilege.
execFileSync("mount", ["-t", "tmpfs", "tmpfs", "/mnt"]);
execFileSync("mknod", ["-m", "666", "/mnt/tun", "c", "10", "200"]);
execFileSync("mount", ["--bind", "/mnt/tun", "/dev/net/tun"]);
writeFileSync("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
writeFileSync("/mnt/resolv.conf", "nameserver 127.0.0.1\n");
execFileSync("mount", ["--bind", "/mnt/resolv.conf", "/etc/resolv.conf"]);
// The checkout and a directory of the user's, wherever they lie and whoever may go there.
for (const [name, path] of [
  ["checkout", job.checkout],
  ["home", job.dir],
] as const) {
  mkdirSync(join("/mnt", name));
  execFileSync("mount", ["--bind", path, join("/mnt", name)]);
}
const dir = "/mnt/home/vmsan";
mkdirSync(dir);
for (const name of ["kernels", "runtimes"]) {
  cpSync(join(job.vmsanDir, name), join(dir, name), { recursive: true });
}
execFileSync("chown", ["-R", `${uid}:${uid}`, dir]);
cpSync(job.nettool, "/mnt/nettool");
chmodSync("/mnt/home", 0o755);
chownSync("/mnt/home", uid, uid);

/** The command line as that user runs it. */
const user = ["--reuid", String(uid), "--regid", String(uid), "--clear-groups", "--no-new-privs"];
const command = [...user, "--", "/mnt/checkout/bin/vmsan"];
const surroundings = {
  cwd: "/mnt/home",
  env: { PATH: process.env["PATH"] ?? "", HOME: "/mnt/home", VMSAN_DIR: dir },
};
/** Run it; gives its standard output. */
const vmsan = async (...args: string[]): Promise<string> =>
  (await promisify(execFile)("setpriv", [...command, ...args], surroundings)).stdout;

const made = JSON.parse(
  await vmsan("create", "--json", "--memory", "256", "--publish-port", "198.51.100.2:8091:8080"),
) as { vmId: string };
const { vmId } = made;
print({ stage: "made", view: JSON.parse(await vmsan("inspect", "--json", vmId)) as unknown });
await vmsan("upload", vmId, "/mnt/nettool", "-d", "/tmp");
/** One attempt in the guest. */
const attempt = async (fields: Record<string, unknown>): Promise<string> => {
  const line = JSON.stringify({ id: 1, timeoutMs: 8000, ...fields });
  const script = `echo '${line}' | /tmp/nettool probe`;
  return await vmsan("exec", vmId, "--", "sh", "-c", script);
};
const tries = async (stage: string): Promise<void> => {
  print({ stage, got: await attempt({ kind: "tcp", addr: "203.0.113.10:9000" }) });
};
await tries("allow-all");
print({
  stage: "name",
  got: await attempt({ kind: "dns", addr: "9.9.9.9:53", name: "a.test", type: 1 }),
});
print({
  stage: "host",
  got: await attempt({ kind: "tcp", addr: "198.51.100.2:9000", timeoutMs: 3000 }),
});
const server = spawn(
  "setpriv",
  [...command, "exec", "-i", vmId, "--", "/tmp/nettool", "serve", "--tcp", "8080"],
  { stdio: ["pipe", "pipe", "inherit"], ...surroundings },
);
await new Promise((resolve) => server.stdout.once("data", resolve));
const outside = world.prober("internet");
const published = await outside.probe({
  kind: "tcp",
  addr: "198.51.100.2:8091",
  timeoutMs: 10_000,
});
print({ stage: "published", got: published });
server.kill("SIGTERM");
await vmsan("network", vmId, "--network-policy", "deny-all");
await tries("deny-all");
const log = await vmsan("network", vmId, "--log", "--json");
print({ stage: "log", denied: log.includes("deny-all"), allowed: log.includes("allow-all") });
// The next daemon finds keeper and VM again.
await vmsan("daemon", "stop");
await vmsan("network", vmId, "--network-policy", "custom", "--allowed-cidr", "203.0.113.0/24");
await tries("custom, next daemon");
await vmsan("rm", "-f", vmId);
await vmsan("daemon", "stop");
const processes = readdirSync("/proc")
  .filter((name) => /^\d+$/.test(name))
  .flatMap((pid) => {
    try {
      const owner = /^Uid:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
      const line = readFileSync(`/proc/${pid}/cmdline`, "utf8");
      // One that has ended and that nobody has asked about has no command line.
      return owner === String(uid) && line !== "" ? [line] : [];
    } catch {
      // ENOENT, ESRCH: it has ended.
      return [];
    }
  });
print({ stage: "left", processes, network: readdirSync(join(dir, "network")) });
await world.stop();
print({ done: true });
process.exit(0);
