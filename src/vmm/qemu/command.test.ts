import { expect, test } from "vitest";
import type { VmSpec } from "../../model/vm.ts";
import { kernelArguments, qemuArguments, type QemuHost } from "./command.ts";

const spec: VmSpec = {
  id: "vm-01234567",
  dir: "/v",
  vcpus: 2,
  memMib: 256,
  kernel: "/k/vmlinux",
  initramfs: "/k/initramfs",
  kernelArgs: ["vmsan.root=overlay"],
  disks: [
    { role: "base", path: "/i/base,1.ext4", readonly: true },
    { role: "upper", path: "/v/upper.ext4", readonly: false },
  ],
  isolation: { seccomp: true, pidNamespace: true, cgroup: true, networkNamespace: true },
};
const tcg: QemuHost = { arch: "x86_64", accelerator: "tcg", tscKhz: 2_400_000 };
const kvm: QemuHost = { arch: "x86_64", accelerator: "kvm" };
const arm: QemuHost = { arch: "aarch64", accelerator: "tcg" };

/** The value behind an option; every one of them for repeated options. */
function values(args: string[], name: string): string[] {
  return args.flatMap((arg, index) => (arg === name ? [args[index + 1] ?? ""] : []));
}

test("no option is ever missing its value, and nothing is shared by default", () => {
  for (const host of [tcg, kvm, arm]) {
    const args = qemuArguments(spec, host);
    expect(args).toContain("-nodefaults");
    expect(args).toContain("-no-user-config");
    expect(args).toContain("-no-reboot");
    expect(args.filter((arg) => arg === "")).toEqual([]);
  }
});

test("x86_64: microvm, emulated with a fixed time stamp counter, or KVM without one", () => {
  const emulated = qemuArguments(spec, tcg);
  expect(values(emulated, "-machine")).toEqual(["microvm,memory-backend=mem"]);
  expect(values(emulated, "-accel")).toEqual(["tcg,tb-size=40"]);
  expect(values(emulated, "-bios")).toEqual(["qboot.rom"]);
  expect(values(emulated, "-cpu")).toEqual(["max,-erms,-fsrm"]);
  expect(kernelArguments(spec, tcg)).toContain("tsc_early_khz=2400000");
  for (const word of ["noreplace-smp", "apic.timer_khz=1000000"]) {
    expect(kernelArguments(spec, tcg)).toContain(word);
    expect(kernelArguments(spec, kvm)).not.toContain(word);
    expect(kernelArguments(spec, arm)).not.toContain(word);
  }
  expect(kernelArguments(spec, tcg).at(-1)).toBe("vmsan.root=overlay");
  expect(kernelArguments(spec, kvm).join(" ")).not.toContain("tsc");
  expect(values(qemuArguments(spec, kvm), "-cpu")).toEqual(["host"]);
});

test("aarch64: virt, its own console, no firmware", () => {
  const args = qemuArguments(spec, arm);
  expect(values(args, "-machine")[0]).toMatch(/^virt,/);
  expect(args).not.toContain("-bios");
  expect(values(args, "-cpu")).toEqual(["max"]);
  expect(kernelArguments(spec, arm)).toContain("console=ttyAMA0");
  expect(kernelArguments(spec, arm)).not.toContain("reboot=t");
});

test("disks keep their order; a comma in a path adds no option; the base is not locked", () => {
  const disks = values(qemuArguments(spec, tcg), "-blockdev").map(
    (text) => JSON.parse(text) as { "read-only"?: boolean; file: Record<string, unknown> },
  );
  expect(disks.map((disk) => disk["read-only"])).toEqual([true, undefined]);
  expect(disks[0]?.file).toMatchObject({ filename: "/i/base,1.ext4", locking: "off" });
  expect(disks[1]?.file).toMatchObject({ filename: "/v/upper.ext4", locking: "auto" });
});

test("network: a tap or a socket, and values that would smuggle options in", () => {
  const mac = "02:00:00:00:00:01";
  const tap = qemuArguments({ ...spec, network: { tap: "tap0", mac } }, tcg);
  expect(values(tap, "-netdev")).toEqual(["tap,id=net0,ifname=tap0,script=no,downscript=no"]);
  const socket = qemuArguments({ ...spec, network: { socket: "/very/long", mac } }, tcg);
  expect(values(socket, "-netdev")[0]).toContain("addr.path=net.sock");
  const evil = qemuArguments({ ...spec, network: { tap: "x,script=/bin/sh", mac } }, tcg);
  expect(values(evil, "-netdev")[0]).toContain("ifname=x,,script=/bin/sh");
});

test("isolation: seccomp unless switched off; own user and root directory as root", () => {
  expect(values(qemuArguments(spec, tcg), "-sandbox")[0]).toContain("elevateprivileges=deny");
  const root = qemuArguments(spec, { ...tcg, runAs: { uid: 7, gid: 8 } });
  expect(values(root, "-runas")).toEqual(["7:8"]);
  expect(values(root, "-chroot")).toEqual(["root"]);
  for (const version of ["9.1.0", "10.0.2"]) {
    const newer = qemuArguments(spec, { ...tcg, version, runAs: { uid: 7, gid: 8 } });
    expect(values(newer, "-run-with")).toEqual(["chroot=root,user=7:8"]);
    expect(newer).not.toContain("-runas");
    expect(newer).not.toContain("-chroot");
  }
  const off = { ...spec, isolation: { ...spec.isolation, seccomp: false } };
  expect(qemuArguments(off, tcg)).not.toContain("-sandbox");
});

test("restoring: no kernel, memory mapped privately or from the stream", () => {
  const clone = qemuArguments(spec, tcg, { memory: "/s/mem,ory" });
  expect(clone).not.toContain("-kernel");
  expect(values(clone, "-incoming")).toEqual(["defer"]);
  expect(values(clone, "-object")[0]).toContain("mem-path=/s/mem,,ory");
  expect(values(qemuArguments(spec, tcg, {}), "-object")[0]).toContain("memory-backend-memfd");
});

test("no guest can tell QEMU what of its memory is free, unless its snapshot had a balloon already", () => {
  expect(qemuArguments(spec, tcg).join(" ")).not.toContain("balloon");
  const shared = { memory: "/s/memory" };
  expect(qemuArguments(spec, tcg, shared).join(" ")).not.toContain("balloon");
  const earlier = qemuArguments(spec, tcg, { ...shared, balloon: true });
  expect(earlier.join(" ")).toContain("virtio-balloon-device,id=balloon0,free-page-reporting=on");
});

test("too many disks are refused", () => {
  const disk = { role: "data", path: "/x", readonly: true } as const;
  const many = { ...spec, disks: Array.from({ length: 21 }, () => disk) };
  expect(() => qemuArguments(many, tcg)).toThrow(/21 disks/);
});
