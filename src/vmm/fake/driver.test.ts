import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type { VmSpec } from "../../model/vm.ts";
import { newVmId } from "../../util/names.ts";
import { agentBinary } from "../../util/package.ts";
import { driverContract } from "../contract.ts";
import { FakeDriver } from "./driver.ts";

const root = mkdtempSync(join(tmpdir(), "vmsan-fake-"));
afterAll(() => rmSync(root, { recursive: true }));

const makeSpec = (): VmSpec => {
  const id = newVmId();
  return {
    id,
    // Longer than a unix socket's path may be.
    dir: join(root, "d".repeat(100), id),
    vcpus: 1,
    memMib: 128,
    kernel: "/none",
    initramfs: "/none",
    kernelArgs: [],
    disks: [],
    isolation: { seccomp: false, pidNamespace: false, cgroup: false, networkNamespace: false },
  };
};

driverContract("fake", () => new FakeDriver(agentBinary()), makeSpec, { bootMs: 10_000 });

test("an agent that cannot be run is reported", async () => {
  const driver = new FakeDriver(join(root, "none"));
  expect(await driver.probe()).toMatchObject({ usable: false });
  await expect(driver.start(makeSpec(), new AbortController().signal)).rejects.toMatchObject({
    code: "ERR_VMM_START",
  });
});

test("an agent that ends at once is reported with what it said", async () => {
  const driver = new FakeDriver("/usr/bin/false");
  await expect(driver.start(makeSpec(), new AbortController().signal)).rejects.toMatchObject({
    code: "ERR_VMM_START",
  });
});
