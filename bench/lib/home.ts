/** A VMSAN_DIR of the measurement's own: its VMs and its daemon go away with it. */
import { spawnSync } from "node:child_process";
import { join, resolve } from "node:path";
import type { Bench } from "./bench.ts";

/** bin/vmsan of this checkout. */
export const vmsan = resolve(import.meta.dirname, "../../bin/vmsan");

/** Run vmsan to its end and give what it printed. @throws when its status is not 0 */
export function callVmsan(env: NodeJS.ProcessEnv, ...args: string[]): string {
  const { status, signal, stdout, stderr } = spawnSync(vmsan, args, { env, encoding: "utf8" });
  if (status === 0) return stdout.trim();
  throw new Error(`vmsan ${args.join(" ")}: ${signal ?? `status ${status}`}: ${stderr}`);
}

/**
 * The environment of such a directory.
 * @returns with VMSAN_DIR, which does not exist yet
 */
export function ownHome(bench: Bench): NodeJS.ProcessEnv & { VMSAN_DIR: string } {
  const env = { ...process.env, VMSAN_DIR: join(bench.dir, "home") };
  bench.defer(() => {
    // The daemon removes those of an interrupted `run` at the same time: what counts is that none is left.
    for (let tries = 0; tries < 10; tries += 1) {
      const { vms } = JSON.parse(callVmsan(env, "list", "--json")) as { vms: { id: string }[] };
      if (vms.length === 0) break;
      spawnSync(vmsan, ["rm", "--force", ...vms.map(({ id }) => id)], { env, stdio: "ignore" });
    }
    callVmsan(env, "daemon", "stop");
  });
  return env;
}

/** Process ID of the daemon, which is started for it. */
export function daemonOf(env: NodeJS.ProcessEnv): number {
  callVmsan(env, "daemon", "start");
  return (JSON.parse(callVmsan(env, "daemon", "status", "--json")) as { pid: number }).pid;
}
