/**
 * Secrets in a real guest, in namespaces of its own: usual clients reach a server with the value, and
 * the guest never has it. The job names bin/vmsan, a VMSAN_DIR with kernel and runtimes, the runtime,
 * and commands by name. Prints JSON lines: what each gave, and what the server was asked.
 */
import { execFile, execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { issue, makeAuthority } from "../../src/network/secrets/authority.ts";
import { World, name } from "./world.ts";

const job = JSON.parse(process.argv[2] ?? "{}") as {
  nettool: string;
  helper: string;
  dir: string;
  vmsan: string;
  vmsanDir: string;
  /** Further flags of `create`. */
  create: string[];
  /** Scripts for the guest's shell, in order. */
  commands: [name: string, script: string][];
};
process.env["VMSAN_DIR"] = job.vmsanDir;
/** The value, in the environment as a user has it. */
const value = process.env["TOKEN"] ?? "";
const print = (line: unknown): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`);
};
/** Run the command line; gives all that it prints. */
const vmsan = async (...args: string[]): Promise<string> => {
  try {
    const { stdout, stderr } = await promisify(execFile)(job.vmsan, args);
    return stdout + stderr;
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    return `${stdout}${stderr}`;
  }
};

name("api.test", ["203.0.113.10"]);
name("other.test", ["203.0.113.20"]);
const world = new World({ ...job, upstreamPort: 53, bare: true });
await world.start();
const resolv = join(job.dir, "resolv.conf");
writeFileSync(resolv, "nameserver 127.0.0.1\n");
execFileSync("mount", ["--bind", resolv, "/etc/resolv.conf"]);

const servers = join(job.dir, "servers");
mkdirSync(servers);
const domains = ["api.test", "other.test"].map((host) => ({
  scheme: "https" as const,
  host,
  port: 443,
}));
const authority = await makeAuthority(job.helper, "the world", [
  { name: "X", places: [], domains },
]);
const caFile = join(servers, "ca.pem");
writeFileSync(caFile, authority.certificate);
for (const { host } of domains) {
  const { certificate, key } = await issue(job.helper, authority, host);
  writeFileSync(join(servers, `${host}.pem`), certificate);
  writeFileSync(join(servers, `${host}.key`), key);
}
const script = join(import.meta.dirname, "secret-server.ts");
const inside = ["netns", "exec", "internet", process.execPath, script, servers];
const server = spawn("ip", inside, { stdio: ["ignore", "pipe", "inherit"] });
const lines = createInterface({ input: server.stdout });
await once(lines, "line");
lines.on("line", (line) => print({ seen: JSON.parse(line) as unknown }));

const wanted = ["--ca-file", caFile, "--secret", "TOKEN=env@api.test", ...job.create];
const made = await promisify(execFile)(job.vmsan, ["create", "--json", ...wanted]);
const { vmId } = JSON.parse(made.stdout) as { vmId: string };
print({ stage: "inspect", got: await vmsan("inspect", "--json", vmId) });
for (const [title, text] of job.commands) {
  const since = performance.now();
  const got = await vmsan("exec", vmId, "--", "sh", "-c", text);
  print({ command: title, got, ms: Math.round(performance.now() - since) });
}
await vmsan("daemon", "stop");
print({
  command: "next daemon",
  got: await vmsan("exec", vmId, "--", "sh", "-c", job.commands[0]?.[1] ?? ""),
});
await vmsan("snapshot", "create", vmId, "--name", "kept");
print({ stage: "fork", got: await vmsan("fork", vmId, "--name", "copy") });
print({
  command: "fork",
  got: await vmsan("exec", "copy", "--", "sh", "-c", job.commands[0]?.[1] ?? ""),
});
print({ stage: "network log", got: await vmsan("network", vmId, "--log", "--json") });
/** Files of the installation that hold the value; those of images and kernels are left out. */
const holders = (): string[] => {
  const places = ["vms", "snapshots", "network", "run"].map((each) => join(job.vmsanDir, each));
  const grep = ["-size", "-1048576k", "-exec", "grep", "-lF", value, "{}", "+"];
  const { stdout } = spawnSync("find", [...places, "-type", "f", ...grep], { encoding: "utf8" });
  return stdout.split("\n").filter((path) => path !== "");
};
const files = holders().map((path) => ({ path, mode: (statSync(path).mode & 0o777).toString(8) }));
print({ stage: "files", files });
const words = ["-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"];
print({ stage: "processes", got: execFileSync("sh", words, { encoding: "utf8" }) });
await vmsan("rm", "-f", vmId, "copy");
await vmsan("snapshot", "rm", "kept");
print({ stage: "files, removed", files: holders() });
await world.stop();
await vmsan("daemon", "stop");
server.kill("SIGKILL");
print({ done: true });
process.exit(0);
