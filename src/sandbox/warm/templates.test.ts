/** Which templates are made, and which are not. */
import { expect, onTestFinished, test } from "vitest";
import type { MachineIdentity, VmRecord } from "../../model/vm.ts";
import type { Sandboxes } from "../sandboxes.ts";
import { Templates } from "./templates.ts";

test("however many kinds of VMs there are, few templates wait to be made: those of the last", async () => {
  const machine: MachineIdentity = { vmm: "QEMU 7.2", accelerator: "tcg", cpu: "max" };
  const sandboxes = {
    // Never quiet.
    starting: true,
    log: { info: () => undefined, error: () => undefined },
    stages: { driver: () => ({ machine: async () => await Promise.resolve(machine) }) },
  } as unknown as Sandboxes;
  const templates = new Templates(sandboxes, "/nowhere");
  onTestFinished(async () => await templates.close());
  for (let memMib = 1; memMib <= 100; memMib += 1) {
    const spec = { kernelArgs: [], vcpus: 1, memMib, kernel: "/k", initramfs: "/i", disks: [] };
    const record = { id: "vm-00000001", driver: "qemu", policy: { mode: "none" }, spec };
    await templates.wanted(record as unknown as VmRecord, undefined);
  }
  expect(templates["queue"].size).toBe(8);
  expect(new Set(templates["queue"].keys()).size).toBe(8);
});
