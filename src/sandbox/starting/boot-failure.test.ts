import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { attemptsFor, bootFailure } from "./boot-failure.ts";

const dir = await mkdtemp(join(tmpdir(), "vmsan-boot-failure-"));
afterAll(async () => await rm(dir, { recursive: true, force: true }));

test("a guest that does not answer, or whose kernel has no timer, is tried again; what else is wrong stays wrong", async () => {
  const missing = { from: 0, late: "did not answer", early: "before it answered", waitedMs: 1000 };
  const failure = async (text: string): Promise<unknown> => {
    const console = join(dir, "console");
    await writeFile(console, text);
    return await bootFailure("vm-00000001", console, { ...missing, exit: undefined });
  };
  const said = "[    1.0] Kernel\nvmsan-agent: fatal: ";
  expect(attemptsFor(await failure("[    1.0] Kernel\n"))).toBe(2);
  const timer = await failure(`${said}ERR_AGENT_BOOT_TIMER: the kernel has no timer\n`);
  expect(attemptsFor(timer)).toBe(4);
  expect(timer).toMatchObject({ code: "ERR_VM_BOOT" });
  expect(attemptsFor(await failure(`${said}ERR_AGENT_BOOT_DISK: no root\n`))).toBe(1);
  expect(attemptsFor(new Error("something else"))).toBe(1);
});
