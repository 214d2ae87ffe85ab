import { chmodSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { QemuDriver } from "./driver.ts";

const dir = mkdtempSync(join(tmpdir(), "vmsan-qemu-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

test("memory is never noted as of a QEMU that did not say its version", async () => {
  const binary = join(dir, "qemu");
  const says = (script: string, file = binary): void => {
    writeFileSync(file, `#!/bin/sh\n${script}\n`);
    chmodSync(file, 0o755);
  };
  const driver = new QemuDriver({ stateDir: dir, binary, accelerator: "tcg" });
  // Killed before it has said anything.
  says("kill -9 $$");
  await expect(driver.machine()).rejects.toMatchObject({ code: "ERR_DRIVER_UNUSABLE" });
  says("echo QEMU emulator version 7.2.22");
  expect(await driver.machine()).toMatchObject({ vmm: "QEMU 7.2.22", accelerator: "tcg" });
  // Upgraded under a daemon, as packages are: another file in its place.
  says("echo QEMU emulator version 7.2.23", join(dir, "newer"));
  renameSync(join(dir, "newer"), binary);
  expect(await driver.machine()).toMatchObject({ vmm: "QEMU 7.2.23", accelerator: "tcg" });
  // It is asked for each VM, and answers of itself as long as it is the same.
  const asked = join(dir, "asked");
  says(`echo >>${asked}; echo QEMU emulator version 7.2.24`);
  for (let i = 0; i < 3; i += 1) expect((await driver.probe()).version).toBe("7.2.24");
  expect(readFileSync(asked, "utf8")).toBe("\n");
});
