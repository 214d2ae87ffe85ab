import { expect, test } from "vitest";
import { closedPolicy } from "../../model/policy.ts";
import type { MachineIdentity, VmRecord } from "../../model/vm.ts";
import { machineWish } from "./booted.ts";

const machine: MachineIdentity = { vmm: "QEMU 7.2", accelerator: "tcg", cpu: "max" };
const record: VmRecord = {
  schema: 1,
  id: "vm-00000001",
  createdAt: "",
  status: "creating",
  labels: {},
  project: "",
  driver: "qemu",
  accelerator: "tcg",
  driverReason: "",
  spec: {
    id: "vm-00000001",
    dir: "/a",
    vcpus: 1,
    memMib: 256,
    kernel: "/kernel",
    initramfs: "/initramfs",
    kernelArgs: ["vmsan.root=overlay"],
    disks: [
      { role: "base", path: "/images/a", readonly: true },
      { role: "upper", path: "/a/upper", readonly: false },
    ],
    isolation: { seccomp: true, pidNamespace: true, cgroup: true, networkNamespace: true },
  },
  diskSizeBytes: 1,
  defaults: { env: [] },
  policy: closedPolicy("deny-all"),
  ports: [],
  ephemeral: false,
  timings: {},
};

/** The key of a VM that differs from the first in something. */
function keyOf(
  spec: Partial<VmRecord["spec"]>,
  rest: Partial<VmRecord> = {},
  host: Partial<MachineIdentity> = {},
): string | undefined {
  const like = { ...record, ...rest, spec: { ...record.spec, ...spec } };
  return machineWish(like, { ...machine, ...host })?.key;
}

test("VMs of any image and size of disk have one machine; what else it is made of makes another", () => {
  const key = keyOf({});
  const [base, upper] = record.spec.disks;
  if (base === undefined || upper === undefined) throw new Error("no disks");
  expect(keyOf({ dir: "/b", disks: [{ ...base, path: "/images/b" }, upper] })).toBe(key);
  expect(keyOf({}, { diskSizeBytes: 2, name: "other", project: "p" })).toBe(key);
  const volume = { role: "data", path: "/volume", readonly: false } as const;
  const others = [
    keyOf({ vcpus: 2 }),
    keyOf({ memMib: 512 }),
    keyOf({ kernel: "/kernel-2" }),
    keyOf({ initramfs: "/initramfs-2" }),
    keyOf({ kernelArgs: ["vmsan.root=overlay", "debug"] }),
    keyOf({ shares: true }),
    keyOf({ disks: [base, upper, volume] }),
    keyOf({ disks: [base, upper, { ...volume, readonly: true }] }),
    keyOf({}, { policy: closedPolicy("none") }),
    keyOf({}, { kernelFile: "/mine" }),
    keyOf({}, {}, { vmm: "QEMU 10.0" }),
  ];
  expect(new Set([key, ...others]).size).toBe(others.length + 1);
});

test("a VM with an init of its own boots", () => {
  expect(keyOf({ kernelArgs: ["vmsan.root=overlay", "vmsan.init=/sbin/init"] })).toBeUndefined();
});
