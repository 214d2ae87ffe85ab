/**
 * The whole product on Firecracker's stand-in, through the command line and the daemon. Its guest
 * is the agent alone in a jail, without disks mounted: the one program in it is the agent itself.
 */
import { existsSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findCgroups } from "../../src/vmm/cgroup.ts";
import { uidClaims, uidDirectory } from "../../src/vmm/uids.ts";
import { buildStandin, whyNoStandin } from "../firecracker-support.ts";
import {
  errorCode,
  freshDir,
  processesOf,
  removeDir,
  strayProcesses,
  vmsan,
  vmsanJson,
  vmsanOk,
} from "./support.ts";

const unusable = whyNoStandin();
if (unusable !== undefined) console.log(`skipped: vmsan on the stand-in: ${unusable}`);

/** What `inspect` says that matters here. */
interface View {
  id: string;
  pid: number;
  status: string;
  driver: string;
  driverReason: string;
  isolation: { mode: string; uid: number; cgroup?: string; notEnforced: string[] };
}

let dir = "";
// The stand-in needs no KVM, and this machine may have none.
const env = { VMSAN_KVM: "assume" };
const here = () => ({ dir, env });
const inspect = async (id: string) => await vmsanJson<View>(["inspect", id], here());

/** Run the guest's only program. */
async function execAgent(id: string, ...args: string[]) {
  const { uid } = (await inspect(id)).isolation;
  const flags = ["--user", String(uid), "--workdir", "/"];
  return await vmsan(["exec", ...flags, id, "--", "/run/guest-init", ...args], here());
}

/** What is left of a VM that should be gone. */
async function leftovers(id: string): Promise<string[]> {
  const claims = await uidClaims(uidDirectory(join(dir, "probes")));
  const mounts = await findCgroups();
  const groups = [...Object.values(mounts.v1), ...(mounts.v2 ? [mounts.v2.path] : [])]
    .map((mount) => join(mount, "vmsan", id))
    .filter((path) => existsSync(path));
  return [
    ...readdirSync(join(dir, "vms")).filter((name) => name === id),
    ...claims.filter(({ vm }) => vm === id).map(({ uid }) => `uid ${uid}`),
    ...groups,
    ...processesOf(id),
    ...strayProcesses(dir),
  ];
}

/** A stopped VM has its directory and nothing else; its network goes a moment later. */
async function expectNothingOutside(id: string): Promise<void> {
  const outside = async () => (await leftovers(id)).filter((what) => what !== id);
  await expect.poll(outside, { timeout: 20_000 }).toEqual([]);
}

describe.skipIf(unusable !== undefined)("vmsan on Firecracker's stand-in", () => {
  let id = "";

  beforeAll(async () => {
    dir = await freshDir(["kernels", "runtimes", "initramfs", "probes", "rootfs", "images"]);
    buildStandin(join(dir, "bin"));
  }, 180_000);
  afterAll(() => removeDir(dir));

  test("create with a network of its own, under the jailer", async () => {
    const made = await vmsanJson<{ vmId: string; driver: string; guestIp?: string }>(
      ["create", "--driver", "firecracker", "--memory", "256"],
      here(),
    );
    id = made.vmId;
    expect(made.driver).toBe("firecracker");
    const view = await inspect(id);
    expect(view).toMatchObject({ status: "running", isolation: { mode: "jailer" } });
    expect(view.isolation.uid).toBeGreaterThan(1000);
    const status = readFileSync(`/proc/${view.pid}/status`, "utf8");
    expect(Number(/^Uid:\s*(\d+)/m.exec(status)?.[1])).toBe(view.isolation.uid);
    if (made.guestIp !== undefined) {
      // The stand-in has found the tap in the namespace that the network was made in.
      expect(readFileSync(`/proc/${view.pid}/net/dev`, "utf8")).toMatch(/^\s*tap0:/m);
    }
  });

  test("exec, console, pause and resume", async () => {
    const good = await execAgent(id, "version");
    expect(good.stderr).toBe("");
    expect(good.code).toBe(0);
    expect(good.stdout.toString()).not.toBe("");
    const bad = await execAgent(id, "nonsense");
    expect(bad.code).toBe(1);
    expect(bad.stderr).toContain("usage: agent serve");
    expect(await vmsanOk(["logs", id], here())).toContain("vmsan.channel=vsock");
    await vmsanOk(["pause", id], here());
    expect((await inspect(id)).status).toBe("paused");
    await vmsanOk(["resume", id], here());
    expect((await execAgent(id, "version")).code).toBe(0);
  });

  test("the daemon is killed: the next one finds the VM", async () => {
    const before = await inspect(id);
    const { pid } = await vmsanJson<{ pid: number }>(["daemon", "status"], here());
    process.kill(pid, "SIGKILL");
    expect(await inspect(id)).toMatchObject({ pid: before.pid, status: "running" });
    expect((await execAgent(id, "version")).code).toBe(0);
  });

  test("stop leaves nothing outside the VM's directory, start brings it back", async () => {
    await vmsanOk(["stop", id], here());
    await expectNothingOutside(id);
    expect(readdirSync(join(dir, "vms", id)).toSorted()).toEqual([
      "console.log",
      "token",
      "upper.ext4",
      "vm.json",
    ]);
    await vmsanOk(["start", id], here());
    expect((await execAgent(id, "version")).code).toBe(0);
  });

  test("the VMM is killed: the VM is stopped, nothing is left of it", async () => {
    process.kill((await inspect(id)).pid, "SIGKILL");
    await expect.poll(async () => (await inspect(id)).status, { timeout: 20_000 }).toBe("stopped");
    await expectNothingOutside(id);
    await vmsanOk(["start", id], here());
  });

  test("VMM and daemon killed at once: the next daemon cleans up", async () => {
    const { pid } = await vmsanJson<{ pid: number }>(["daemon", "status"], here());
    const vmm = (await inspect(id)).pid;
    process.kill(pid, "SIGKILL");
    process.kill(vmm, "SIGKILL");
    expect((await inspect(id)).status).toBe("stopped");
    await expectNothingOutside(id);
  });

  test("removal leaves nothing", async () => {
    await vmsanOk(["start", id], here());
    await vmsanOk(["rm", "-f", id], here());
    expect(await leftovers(id)).toEqual([]);
  });

  test("a VM that nobody knows any more is ended by the next daemon", async () => {
    const made = await vmsanJson<{ vmId: string }>(
      ["create", "--driver", "firecracker", "--network", "none", "--memory", "256"],
      here(),
    );
    const vmm = (await inspect(made.vmId)).pid;
    const { pid } = await vmsanJson<{ pid: number }>(["daemon", "status"], here());
    process.kill(pid, "SIGKILL");
    rmSync(join(dir, "vms", made.vmId), { recursive: true });
    expect((await vmsanJson<{ count: number }>(["list"], here())).count).toBe(0);
    // Its entry in /proc may stay as a zombie's: nobody is its parent but the host's first process.
    const log = readFileSync(join(dir, "run", "daemon.log"), "utf8");
    expect(log).toContain(`removed process ${vmm}, left by an earlier daemon`);
    await expectNothingOutside(made.vmId);
  });

  test("what cannot work is refused before anything is made", async () => {
    // An image that nobody has: the refusal comes before any attempt to get it.
    const flags = ["--driver", "qemu", "--no-pid-ns", "--from-image", "localhost:1/none"];
    expect(await errorCode(["create", ...flags], here())).toBe("ERR_DRIVER_ISOLATION");
    expect(readdirSync(join(dir, "vms"))).toEqual([]);
  });
});
