/**
 * The whole product on Firecracker, through the command line and the daemon: one story of a VM
 * with a network, and the table of attempts against its policies. It runs on the stand-in, whose
 * guest is the agent alone in a jail, and on the real thing where VMSAN_FIRECRACKER, VMSAN_JAILER
 * (and VMSAN_KERNEL for another kernel, VMSAN_KVM=assume, VMSAN_BOOT_TIMEOUT) are set. What is run
 * in the guest is one static program, which both have room for.
 */
import { copyFileSync, existsSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { planFor } from "../../../src/network/kernel/address.ts";
import { bootTimeoutMs } from "../../../src/util/boot-timeout.ts";
import { findCgroups } from "../../../src/vmm/cgroup.ts";
import { uidClaims, uidDirectory } from "../../../src/vmm/uids.ts";
import {
  installFirecracker,
  realFirecracker,
  whyNoStandin,
  whyNoStandinNetwork,
} from "../../firecracker/support.ts";
import { ownPort } from "../../fixtures/ports.ts";
import { buildBench, inWorld, whyNot as whyNoWorld, type Bench } from "../../network/launch.ts";
import { order } from "../../network/table.ts";
import { Prober } from "../../network/world.ts";
import {
  errorCode,
  freshDir,
  processesOf,
  removeDir,
  strayProcesses,
  vmsan,
  vmsanBin,
  vmsanJson,
  vmsanOk,
  type Outcome,
} from "../support.ts";

const real = realFirecracker();
const unusable = real === undefined ? (whyNoStandin() ?? whyNoStandinNetwork()) : undefined;
if (unusable !== undefined) console.log(`skipped: vmsan on Firecracker: ${unusable}`);
const worldless = unusable ?? whyNoWorld();

/** What `inspect` says that matters here. */
interface View {
  id: string;
  pid: number;
  status: string;
  driver: string;
  driverReason: string;
  guestNetwork: { gateway4: string; mac: string };
  isolation: { mode: string; uid: number; cgroup?: string; notEnforced: string[] };
}

let dir = "";
let bench: Bench;
// The stand-in needs no KVM, and this machine may have none.
const env: Record<string, string> = real === undefined ? { VMSAN_KVM: "assume" } : {};
const limitMs = 120_000 + 3 * bootTimeoutMs(60_000);
const here = () => ({ dir, env, timeoutMs: limitMs });
const inspect = async (id: string) => await vmsanJson<View>(["inspect", id], here());
/** Flags of every VM here. */
const flags = [
  "--driver",
  "firecracker",
  "--memory",
  "256",
  ...(real?.kernel === undefined ? [] : ["--kernel", real.kernel]),
];
/** Policies of the table: all of them on the real thing, else the default and the strictest. */
const columns =
  real !== undefined || Number(process.env["VMSAN_TEST_SCALE"] ?? "1") > 1 ? order : "AFP";

/** Put the program into the guest: into its root directory, which on the stand-in is the jail's. */
async function furnish(id: string): Promise<void> {
  if (real !== undefined) await vmsanOk(["upload", id, bench.nettool, "-d", "/tmp"], here());
  else copyFileSync(bench.nettool, `/proc/${(await inspect(id)).pid}/root/tmp/nettool`);
}

/** Run the program in the guest. */
async function inGuest(id: string, args: string[], input = ""): Promise<Outcome> {
  const command = ["exec", "-i", "--user", "root", "--workdir", "/", id, "--", "/tmp/nettool"];
  return await vmsan([...command, ...args], { ...here(), input });
}

/** That a command runs: its input and its status come through. */
async function expectRuns(id: string): Promise<void> {
  const { code, stdout, stderr } = await inGuest(id, ["repeat", "7"], "input");
  expect({ code, stdout: stdout.toString(), stderr }).toEqual({
    code: 7,
    stdout: "input",
    stderr: "",
  });
}

/** One attempt from within the guest; `open …` or `closed: …`. */
async function attempt(id: string, fields: Record<string, unknown>): Promise<string> {
  const probe = JSON.stringify({ id: 1, timeoutMs: 4000, ...fields });
  const { stdout } = await inGuest(id, ["probe"], `${probe}\n`);
  return (JSON.parse(stdout.toString()) as { result: string }).result;
}

/** Ask the network's own name server; any answer (`rcode=`) shows that frames pass both ways. */
async function resolves(id: string): Promise<string> {
  const { gateway4 } = (await inspect(id)).guestNetwork;
  return await attempt(id, { kind: "dns", addr: `${gateway4}:53`, name: "x.invalid", type: 1 });
}

/** What a server greets with at a port of the host; undefined when nobody does. */
async function greeting(port: number): Promise<string | undefined> {
  return await new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.setTimeout(5000, () => socket.destroy());
    socket.once("data", (data: Buffer) => {
      resolve(data.toString());
      socket.destroy();
    });
    // ECONNREFUSED, ECONNRESET: nobody is there, which its close tells.
    socket.on("error", () => undefined);
    socket.once("close", () => resolve(undefined));
  });
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
    ...(existsSync(`/run/netns/${planFor(id, 0, "fd00:0:0").netns}`) ? ["its namespace"] : []),
    ...processesOf(id),
    ...strayProcesses(dir),
  ];
}

/** A stopped VM has its directory and nothing else; its network goes a moment later. */
async function expectNothingOutside(id: string): Promise<void> {
  const outside = async () => (await leftovers(id)).filter((what) => what !== id);
  await expect.poll(outside, { timeout: 20_000 }).toEqual([]);
}

beforeAll(async () => {
  if (unusable !== undefined) return;
  dir = await freshDir(["kernels", "runtimes", "initramfs", "probes", "rootfs", "images"]);
  bench = buildBench();
  installFirecracker(join(dir, "bin"));
}, 180_000);
afterAll(async () => {
  if (unusable !== undefined) return;
  await removeDir(dir);
  bench.remove();
});

describe.skipIf(unusable !== undefined)("vmsan on Firecracker", { timeout: limitMs }, () => {
  let id = "";
  /** Process of the daemon, to be killed. */
  const daemon = async (): Promise<number> =>
    (await vmsanJson<{ pid: number }>(["daemon", "status"], here())).pid;

  test("create with a network of its own, under the jailer", async () => {
    const made = await vmsanJson<{ vmId: string; driver: string }>(
      ["create", ...flags, "--publish-port", `${ownPort}:8080`],
      here(),
    );
    id = made.vmId;
    expect(made.driver).toBe("firecracker");
    const view = await inspect(id);
    expect(view).toMatchObject({ status: "running", isolation: { mode: "jailer" } });
    expect(view.isolation.uid).toBeGreaterThan(1000);
    const status = readFileSync(`/proc/${view.pid}/status`, "utf8");
    expect(Number(/^Uid:\s*(\d+)/m.exec(status)?.[1])).toBe(view.isolation.uid);
    // No privileges are left to it: the tap is open to it as it is.
    expect(/^CapEff:\s*(\w+)/m.exec(status)?.[1]).toMatch(/^0+$/);
    expect(readFileSync(`/proc/${view.pid}/net/dev`, "utf8")).toMatch(/^\s*tap0:/m);
    await furnish(id);
  });

  test.skipIf(real !== undefined)("KVM is assumed for one command, with a warning", async () => {
    // The daemon runs with it since the first command: another one does not know of it.
    process.kill(await daemon(), "SIGKILL");
    const plain = { dir, timeoutMs: limitMs };
    const broken = ["create", ...flags, "--network", "none", "--from-image", "localhost:1/none"];
    await vmsanOk(["list"], plain);
    const unaided = await errorCode(broken, plain);
    const aided = await vmsan(broken, here());
    expect(aided.stderr).toContain("warning: VMSAN_KVM=assume");
    // What the image lacks is noticed only once the driver has been accepted.
    expect(aided.stderr).not.toContain("ERR_DRIVER_UNUSABLE");
    if (!existsSync("/dev/kvm")) expect(unaided).toBe("ERR_DRIVER_UNUSABLE");
  });

  test("exec, console, pause and resume", async () => {
    await expectRuns(id);
    expect(await vmsanOk(["logs", id], here())).not.toBe("");
    await vmsanOk(["pause", id], here());
    expect((await inspect(id)).status).toBe("paused");
    await vmsanOk(["resume", id], here());
    await expectRuns(id);
  });

  test("names resolve, a published port answers, a change of policy takes effect", async () => {
    expect(await resolves(id)).toContain("rcode=");
    const serve = [vmsanBin, "exec", "-i", "--user", "root", id, "--", "/tmp/nettool", "serve"];
    process.env["VMSAN_DIR"] = dir;
    const server = new Prober([...serve, "--tcp", "8080"]);
    await server.tool.ready;
    expect(await greeting(ownPort)).toMatch(/^server=.*:8080 /);
    await vmsanOk(["network", id, "--network-policy", "deny-all"], here());
    expect(await attempt(id, { kind: "tcp", addr: "192.0.2.1:80" })).toContain("closed");
    expect(await vmsanOk(["network", id, "--log"], here())).toContain("192.0.2.1");
    expect(await greeting(ownPort)).toMatch(/^server=/);
    server.tool.process.kill("SIGKILL");
    await vmsanOk(["network", id, "--network-policy", "allow-all"], here());
  });

  test("the daemon is killed: the next one finds the VM", async () => {
    const before = await inspect(id);
    process.kill(await daemon(), "SIGKILL");
    expect(await inspect(id)).toMatchObject({ pid: before.pid, status: "running" });
    await expectRuns(id);
    expect(await resolves(id)).toContain("rcode=");
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
    await furnish(id);
    await expectRuns(id);
    expect(await resolves(id)).toContain("rcode=");
  });

  test("the VMM is killed: the VM is stopped, nothing is left of it", async () => {
    process.kill((await inspect(id)).pid, "SIGKILL");
    await expect.poll(async () => (await inspect(id)).status, { timeout: 20_000 }).toBe("stopped");
    await expectNothingOutside(id);
    await vmsanOk(["start", id], here());
    await furnish(id);
    expect(await resolves(id)).toContain("rcode=");
  });

  test("VMM and daemon killed at once: the next daemon cleans up", async () => {
    const pid = await daemon();
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
      ["create", ...flags, "--network", "none"],
      here(),
    );
    const vmm = (await inspect(made.vmId)).pid;
    process.kill(await daemon(), "SIGKILL");
    rmSync(join(dir, "vms", made.vmId), { recursive: true });
    expect((await vmsanJson<{ count: number }>(["list"], here())).count).toBe(0);
    // Its entry in /proc may stay as a zombie's: nobody is its parent but the host's first process.
    const log = readFileSync(join(dir, "run", "daemon.log"), "utf8");
    expect(log).toContain(`removed process ${vmm}, left by an earlier daemon`);
    await expectNothingOutside(made.vmId);
  });

  test("what cannot work is refused before anything is made", async () => {
    // An image that nobody has: the refusal comes before any attempt to get it.
    const qemu = ["--driver", "qemu", "--no-pid-ns", "--from-image", "localhost:1/none"];
    expect(await errorCode(["create", ...qemu], here())).toBe("ERR_DRIVER_ISOLATION");
    for (const driver of ["qemu", "firecracker"]) {
      const netns = ["--driver", driver, "--no-netns", "--from-image", "localhost:1/none"];
      expect(await errorCode(["create", ...netns], here())).toBe("ERR_DRIVER_ISOLATION");
    }
    expect(readdirSync(join(dir, "vms"))).toEqual([]);
  });
});

describe.skipIf(worldless !== undefined)("egress of a VM on Firecracker", () => {
  test(
    "the table of attempts, names, ports and the log hold as the jailed user",
    { timeout: 400_000 + limitMs },
    async () => {
      // The daemon of this directory would not be in the world's namespaces.
      await vmsan(["daemon", "stop"], here());
      const job = { vmsan: vmsanBin, vmsanDir: dir, columns, create: flags };
      const standin = real === undefined;
      const lines = await inWorld(bench, "real-guest.ts", { ...job, jailed: standin }, env);
      const tried = lines.filter((line) => line["policy"] !== undefined);
      expect(tried.length).toBeGreaterThan(120 * columns.length);
      expect(tried.filter((line) => line["open"] !== line["expected"])).toEqual([]);
      const got = (stage: string): unknown =>
        lines.find((line) => line["stage"] === stage)?.["got"];
      expect(JSON.parse(String(got("log")))).toMatchObject({
        verdict: "denied",
        name: "late.test",
      });
      expect(got("published")).toMatch(/^open /);
      expect(got("published, next daemon")).toMatch(/^open /);
      expect(got("alive")).toBe("alive");
    },
  );
});
