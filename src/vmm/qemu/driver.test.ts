import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { QemuDriver } from "./driver.ts";

const dir = mkdtempSync(join(tmpdir(), "vmsan-qemu-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

test("memory is never noted as of a QEMU that did not say its version", async () => {
  const binary = join(dir, "qemu");
  const says = (script: string): void => {
    writeFileSync(binary, `#!/bin/sh\n${script}\n`);
    chmodSync(binary, 0o755);
  };
  const driver = new QemuDriver({ stateDir: dir, binary, accelerator: "tcg" });
  // Killed before it has said anything.
  says("kill -9 $$");
  await expect(driver.machine()).rejects.toMatchObject({ code: "ERR_DRIVER_UNUSABLE" });
  says("echo QEMU emulator version 7.2.22");
  expect(await driver.machine()).toMatchObject({ vmm: "QEMU 7.2.22", accelerator: "tcg" });
});
