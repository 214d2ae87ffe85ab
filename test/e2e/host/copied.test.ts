/** A VMSAN_DIR that was copied while its VMs ran: nothing done in the copy reaches the original. */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { booted, installation } from "../../fixtures/ladder.ts";
import { removeDir, vmsan, vmsanJson, vmsanOk } from "../support.ts";

const asRoot = process.geteuid?.() === 0;
const here = installation("base");
const box = booted(here, { memory: 256 });
let copy = "";
let pid = 0;

/** What the host holds of the original's VM: names of network namespace, groups, and user id. */
function onHost(): string[] {
  const groups = execFileSync("find", ["/sys/fs/cgroup", "-type", "d", "-name", box.id]).toString();
  const claims = "/run/vmsan/uids";
  const uids = asRoot
    ? readdirSync(claims).filter(
        (name) =>
          name !== ".lock" &&
          readFileSync(join(claims, name), "utf8").includes(`\n${join(here.dir, "vms", box.id)}\n`),
      )
    : [];
  const netns = `/run/netns/vmsan-${box.id}`;
  return [...groups.trim().split("\n"), ...uids, existsSync(netns) ? netns : ""].filter(Boolean);
}

/** That the original's VM is as it was, and can be reached from its host by its own network. */
let before: string[] = [];
async function expectUntouched(): Promise<void> {
  expect(onHost()).toEqual(before);
  expect(await vmsanJson(["inspect", box.id], here)).toMatchObject({ status: "running", pid });
  expect(await vmsanOk(["exec", box.id, "cat", "/var/tmp/mark"], here)).toBe("original");
}

const daemonPid = async (of: string): Promise<number> =>
  (await vmsanJson<{ pid: number }>(["daemon", "status"], { dir: of })).pid;

beforeAll(async () => {
  ({ pid } = await vmsanJson<{ pid: number }>(["inspect", box.id], here));
  await vmsanOk(["exec", box.id, "sh", "-c", "printf original >/var/tmp/mark && sync"], here);
  before = onHost();
  // A killed daemon says nothing of its VM to anybody.
  process.kill(await daemonPid(here.dir), "SIGKILL");
  copy = `${here.dir}-copy`;
  execFileSync("cp", ["-a", here.dir, copy]);
});
afterAll(() => removeDir(copy));

test("the host holds something of a VM that could be taken away", () => {
  if (asRoot) expect(before.length).toBeGreaterThan(2);
});

test("its VMs are stopped there, and run on here", async () => {
  expect(await vmsanJson(["inspect", box.id], { dir: copy })).toMatchObject({ status: "stopped" });
  const outcome = await vmsan(["exec", "--json", box.id, "true"], { dir: copy });
  expect(outcome.stdout.toString()).toContain("ERR_VM_NOT_RUNNING");
  await expectUntouched();
});

test("started, a copy is a VM of its own beside its original", async () => {
  await vmsanOk(["start", box.id], { dir: copy });
  await vmsanOk(["exec", box.id, "sh", "-c", "printf copy >/var/tmp/mark"], { dir: copy });
  const view = await vmsanJson<{ pid: number }>(["inspect", box.id], { dir: copy });
  expect(view.pid).not.toBe(pid);
  await expectUntouched();
  // A daemon killed in the copy finds its own VM again, not the original's.
  process.kill(await daemonPid(copy), "SIGKILL");
  expect(await vmsanJson(["inspect", box.id], { dir: copy })).toMatchObject({ pid: view.pid });
  await vmsanOk(["stop", box.id], { dir: copy });
  await expectUntouched();
});

test("neither a lost record, nor the doctor, nor the removal of all takes anything", async () => {
  await vmsanOk(["daemon", "stop"], { dir: copy });
  execFileSync("cp", ["-a", join(here.dir, "vms"), join(here.dir, "network"), copy]);
  await rm(join(copy, "vms", box.id, "vm.json"));
  await vmsan(["doctor", "--fix"], { dir: copy });
  await expectUntouched();
  execFileSync("cp", ["-a", join(here.dir, "vms"), join(here.dir, "network"), copy]);
  await vmsanOk(["rm", "-f", box.id], { dir: copy });
  await vmsanOk(["daemon", "stop"], { dir: copy });
  await expectUntouched();
});
