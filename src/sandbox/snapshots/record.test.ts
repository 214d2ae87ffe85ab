import { expect, test } from "vitest";
import type { CloneRequest } from "../../model/api.ts";
import type { SnapshotRecord } from "../../model/snapshot.ts";
import type { MachineIdentity } from "../../model/vm.ts";
import { checkFixed, checkMachine } from "./record.ts";

const machine: MachineIdentity = { vmm: "QEMU 7.2", accelerator: "tcg", cpu: "max", tscKhz: 2e6 };

test("memory is loaded where VMM, accelerator, processor and counter are the same, else refused", () => {
  const check = (change: Partial<MachineIdentity>) => (): void =>
    checkMachine("s", machine, { ...machine, ...change }, "boot it");
  expect(check({})).not.toThrow();
  // What measuring the rate leaves open is no difference.
  expect(check({ tscKhz: 2e6 + 500 })).not.toThrow();
  for (const [change, why] of [
    [{ vmm: "QEMU 8.0" }, /QEMU 7.2 and is QEMU 8.0/],
    [{ accelerator: "kvm" }, /accelerator/],
    [{ cpu: "other" }, /processor/],
    [{ tscKhz: 2.1e6 }, /rate/],
  ] as [Partial<MachineIdentity>, RegExp][]) {
    try {
      check(change)();
      throw new Error("not refused");
    } catch (error) {
      expect(error).toMatchObject({
        code: "ERR_SNAPSHOT_INCOMPATIBLE",
        why: expect.stringMatching(why) as string,
        fix: "boot it",
      });
    }
  }
});

test("what a snapshot has fixed may be asked for as it is, and not otherwise", () => {
  const from = {
    id: "snap-00000001",
    memory: true,
    vcpus: 2,
    memMib: 512,
    diskSizeBytes: 2 ** 30,
    driver: "qemu",
    kernel: { path: "/k" },
    card: true,
    policy: { mode: "allow-all" },
  } as unknown as SnapshotRecord;
  const request = (change: Partial<CloneRequest>): CloneRequest =>
    ({ count: 1, labels: {}, ports: [], cold: false, ...change }) as unknown as CloneRequest;
  const none = { mode: "none" } as CloneRequest["policy"];
  for (const same of [{}, { vcpus: 2, memMib: 512, diskSizeBytes: 2 ** 30, driver: "qemu" }]) {
    expect(() => checkFixed(from, request(same as Partial<CloneRequest>))).not.toThrow();
  }
  for (const other of [
    { vcpus: 1 },
    { memMib: 256 },
    { diskSizeBytes: 2 ** 31 },
    { driver: "firecracker" },
    { kernel: "/other" },
    { policy: none },
  ]) {
    expect(() => checkFixed(from, request(other as Partial<CloneRequest>))).toThrow(/another/);
  }
  // A VM that boots gets whatever card it asks for.
  expect(() => checkFixed(from, request({ policy: none as never, cold: true }))).not.toThrow();
});
