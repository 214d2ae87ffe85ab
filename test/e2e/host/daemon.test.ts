/** The daemon may be killed at any moment: no VM is lost by it, and no command. */
import { readFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { booted, installation } from "../../fixtures/ladder.ts";
import { vmsan, vmsanJson, vmsanOk } from "../support.ts";

const here = installation("base");
const box = booted(here, { memory: 256 });
const daemonPid = async (): Promise<number> =>
  (await vmsanJson<{ pid: number }>(["daemon", "status"], here)).pid;

test("the socket is its owner's alone", async () => {
  const { mode } = await stat(join(here.dir, "run/daemon.sock"));
  expect(mode & 0o777).toBe(0o600);
});

test("SIGKILL in the middle of exec: the VM runs on, and so does the command", async () => {
  const before = await vmsanJson<{ pid: number; bootId?: string }>(["inspect", box.id], here);
  const pid = await daemonPid();
  const script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i; sleep 0.5; done; exit 3";
  const outcome = await vmsan(["exec", box.id, "sh", "-c", script], {
    dir: here.dir,
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
  const after = await vmsanJson<{ pid: number; status: string }>(["inspect", box.id], here);
  expect(after).toMatchObject({ pid: before.pid, status: "running" });
  expect(await vmsanOk(["exec", box.id, "echo", "still here"], here)).toBe("still here\n");
});

test("a clean stop leaves VMs running, and the next daemon finds them", async () => {
  await vmsanOk(["daemon", "stop"], here);
  expect(await vmsanOk(["exec", box.id, "cat", "/proc/sys/kernel/hostname"], here)).toBe(
    `${box.id}\n`,
  );
});

test("two first commands at once start one daemon", async () => {
  await vmsanOk(["daemon", "stop"], here);
  const outcomes = await Promise.all([1, 2, 3].map(() => vmsan(["list", "--json"], here)));
  expect(outcomes.map(({ code }) => code)).toEqual([0, 0, 0]);
  const log = readFileSync(join(here.dir, "run/daemon.log"), "utf8");
  const starts = log.split("\n").filter((line) => line.includes("serving"));
  const stops = log.split("\n").filter((line) => line.includes("stopping"));
  // Each start but the last was ended on purpose, one of them by SIGKILL.
  expect(starts.length).toBe(stops.length + 2);
});

test("a time limit stops the VM, also when the daemon was killed in between", async () => {
  const limited = await vmsanJson<{ vmId: string }>(
    ["create", "--memory", "256", "--timeout", "12s"],
    here,
  );
  const view = await vmsanJson<{ timeoutAt: string }>(["inspect", limited.vmId], here);
  expect(Date.parse(view.timeoutAt)).toBeGreaterThan(Date.now() - 12_000);
  process.kill(await daemonPid(), "SIGKILL");
  const status = async (): Promise<string> =>
    (await vmsanJson<{ status: string }>(["inspect", limited.vmId], here)).status;
  const deadline = Date.now() + 90_000;
  while ((await status()) !== "stopped" && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  expect(await status()).toBe("stopped");
  await vmsanOk(["rm", limited.vmId], here);
});

test("an ephemeral VM whose owner and daemon are both killed is removed by the next daemon", async () => {
  const pid = await daemonPid();
  await vmsan(["run", "--memory", "256", "base", "--", "sh", "-c", "echo up; sleep 1000"], {
    dir: here.dir,
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
    count = (await vmsanJson<{ count: number }>(["list"], here)).count;
    if (count === 1) break;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  expect(count).toBe(1);
});
