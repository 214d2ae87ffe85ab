/**
 * Secrets in a real guest, in namespaces of its own: usual clients reach a server with the value, and
 * the guest never has it. The job names bin/vmsan, a VMSAN_DIR with kernel and runtimes, the runtime,
 * and commands by name. Prints JSON lines: what each gave, and what the server was asked.
 */
import { execFile, execFileSync, spawnSync } from "node:child_process";
import { statSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { secretWorld } from "./secret-world.ts";

const job = JSON.parse(process.argv[2] ?? "{}") as {
  nettool: string;
  helper: string;
  dir: string;
  vmsan: string;
  vmsanDir: string;
  /** Further flags of `create`. */
  create: string[];
  /** Whether the server is to have packages. */
  packages?: boolean;
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

const { caFile, end } = await secretWorld(job, (seen) => print({ seen }));

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
await vmsan("daemon", "stop");
await end();
print({ done: true });
process.exit(0);
