/** The daemon may be killed at any moment: no VM is lost by it, and no command. */
import { readFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { freshDir, removeDir, vmsan, vmsanJson, vmsanOk } from "./support.ts";

let dir = "";
let id = "";
const daemonPid = async (): Promise<number> =>
  (await vmsanJson<{ pid: number }>(["daemon", "status"], { dir })).pid;

beforeAll(async () => {
  dir = await freshDir(["kernels", "runtimes", "initramfs", "probes", "rootfs", "images"]);
  id = (await vmsanJson<{ vmId: string }>(["create", "--memory", "256"], { dir })).vmId;
});
afterAll(() => removeDir(dir));

test("the socket is its owner's alone", async () => {
  const { mode } = await stat(join(dir, "run/daemon.sock"));
  expect(mode & 0o777).toBe(0o600);
});

test("SIGKILL in the middle of exec: the VM runs on, and so does the command", async () => {
  const before = await vmsanJson<{ pid: number; bootId?: string }>(["inspect", id], { dir });
  const pid = await daemonPid();
  const script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i; sleep 0.5; done; exit 3";
  const outcome = await vmsan(["exec", id, "sh", "-c", script], {
    dir,
    onProcess: (child) => {
      let killed = false;
      child.stdout?.on("data", (chunk: Buffer) => {
        if (killed || !chunk.toString().includes("line 3")) return;
        killed = true;
        process.kill(pid, "SIGKILL");
      });
    },
  });
  expect(outcome.stdout.toString()).toBe(
    Array.from({ length: 12 }, (_, i) => `line ${i + 1}\n`).join(""),
  );
  expect(outcome.code).toBe(3);
  expect(await daemonPid()).not.toBe(pid);
  const after = await vmsanJson<{ pid: number; status: string }>(["inspect", id], { dir });
  expect(after).toMatchObject({ pid: before.pid, status: "running" });
  expect(await vmsanOk(["exec", id, "echo", "still here"], { dir })).toBe("still here\n");
});

test("a clean stop leaves VMs running, and the next daemon finds them", async () => {
  await vmsanOk(["daemon", "stop"], { dir });
  expect(await vmsanOk(["exec", id, "cat", "/proc/sys/kernel/hostname"], { dir })).toBe(`${id}\n`);
});

test("two first commands at once start one daemon", async () => {
  await vmsanOk(["daemon", "stop"], { dir });
  const outcomes = await Promise.all([1, 2, 3].map(() => vmsan(["list", "--json"], { dir })));
  expect(outcomes.map(({ code }) => code)).toEqual([0, 0, 0]);
  const log = readFileSync(join(dir, "run/daemon.log"), "utf8");
  const starts = log.split("\n").filter((line) => line.includes("serving"));
  const stops = log.split("\n").filter((line) => line.includes("stopping"));
  // Each start but the last was ended on purpose, one of them by SIGKILL.
  expect(starts.length).toBe(stops.length + 2);
});

test("a time limit stops the VM, also when the daemon was killed in between", async () => {
  const limited = await vmsanJson<{ vmId: string }>(
    ["create", "--memory", "256", "--timeout", "12s"],
    { dir },
  );
  const view = await vmsanJson<{ timeoutAt: string }>(["inspect", limited.vmId], { dir });
  expect(Date.parse(view.timeoutAt)).toBeGreaterThan(Date.now() - 12_000);
  process.kill(await daemonPid(), "SIGKILL");
  const status = async (): Promise<string> =>
    (await vmsanJson<{ status: string }>(["inspect", limited.vmId], { dir })).status;
  const deadline = Date.now() + 90_000;
  while ((await status()) !== "stopped" && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  expect(await status()).toBe("stopped");
  await vmsanOk(["rm", limited.vmId], { dir });
});

test("an ephemeral VM whose owner and daemon are both killed is removed by the next daemon", async () => {
  const pid = await daemonPid();
  await vmsan(["run", "--memory", "256", "base", "--", "sh", "-c", "echo up; sleep 1000"], {
    dir,
    onProcess: (child) => {
      child.stdout?.once("data", () => {
        process.kill(pid, "SIGKILL");
        child.kill("SIGKILL");
      });
    },
  });
  const deadline = Date.now() + 60_000;
  let count = Number.NaN;
  while (Date.now() < deadline) {
    count = (await vmsanJson<{ count: number }>(["list"], { dir })).count;
    if (count === 1) break;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  expect(count).toBe(1);
});
