import { expect, test } from "vitest";
import { parseKernelArgs, parseSysctls } from "./guest-settings.ts";

test("arguments of the kernel are taken as they are, in order", () => {
  const words = ["mitigations=off", "systemd.unified_cgroup_hierarchy=1", "loglevel=7", "nosmt"];
  expect(parseKernelArgs(words)).toEqual(words);
});

test.each([
  "console=ttyS1",
  "reboot=k",
  "vmsan.root=flat",
  "vmsan.init=/bin/sh",
  "tsc-early-khz=1",
  "tsc_early_khz=1",
  "apic.timer_khz=1",
  "init=/bin/sh",
  "rdinit=/x",
  "root=/dev/vda",
  "rw",
  "mem=64M",
  "acpi=off",
  "virtio-mmio.device=1K@2:3",
  "nomodule",
  "--",
  "",
  "=1",
  "a b",
  "a\n",
  'a="b',
  "ä=1",
])("the argument %j is refused", (word) => {
  expect(() => parseKernelArgs([word])).toThrow(
    expect.objectContaining({ code: "ERR_VALIDATION_KERNEL_ARG" }) as Error,
  );
});

test("arguments have room of 1024 bytes together", () => {
  expect(parseKernelArgs(["a".repeat(1024)])).toHaveLength(1);
  expect(() => parseKernelArgs(["a".repeat(1000), "b".repeat(24)])).toThrow(
    expect.objectContaining({ code: "ERR_VALIDATION_KERNEL_ARG" }) as Error,
  );
});

test("settings are paths below /proc/sys, and the last value counts", () => {
  expect(
    parseSysctls([
      "net.ipv4.ip_forward=0",
      "net/ipv4/ip_forward = 1",
      "net.ipv4.conf.eth0/1.forwarding=1",
      "net.ipv4.ping_group_range=0 100",
      "kernel.core_pattern=|/bin/x %p=1",
    ]),
  ).toEqual({
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/eth0.1/forwarding": "1",
    "net/ipv4/ping_group_range": "0 100",
    "kernel/core_pattern": "|/bin/x %p=1",
  });
});

test.each(["a.b", "a=1", "=1", "a..b=1", "../x=1", "/a/b=1", "a/../b=1", "a.b=", "a.b=x\ny"])(
  "the setting %j is refused",
  (word) => {
    expect(() => parseSysctls([word])).toThrow(
      expect.objectContaining({ code: "ERR_VALIDATION_SYSCTL" }) as Error,
    );
  },
);
