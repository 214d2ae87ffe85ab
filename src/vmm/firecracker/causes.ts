/**
 * What lies behind a refusal of Firecracker's API: its words name the call that failed, not why a
 * host makes it fail. Pure.
 */
import { VmsanError } from "../../model/errors.ts";

/** A likely cause, and what to do about it. */
export interface Cause {
  why: string;
  fix: string;
}

/** What is tried in this order: the call's path, and the fault's words. */
const causes: readonly (Cause & { path: RegExp; fault: RegExp })[] = [
  {
    path: /^\/(network-interfaces|snapshot\/load)/,
    fault: /tap.*\(os error 1\)/is,
    why: "The tap is missing in the VMM's network namespace, or it belongs to another user than the VMM's.",
    fix: "Stop and start the VM, which makes its network anew; `ip -n NAMESPACE -details link` shows a tap's owner.",
  },
  {
    path: /^\/(network-interfaces|snapshot\/load)/,
    fault: /tap.*\(os error 16\)/is,
    why: "Another process is attached to the tap.",
    fix: "End the VMM that an earlier start of the VM has left behind, then start the VM.",
  },
  {
    path: /^\/(network-interfaces|snapshot\/load)/,
    fault: /\/dev\/net\/tun/,
    why: "The VMM cannot use /dev/net/tun.",
    fix: "Load the module tun; keep VMSAN_DIR on a file system without nodev. Or use --network-policy none.",
  },
  {
    path: /^\/actions/,
    fault: /KVM object|\/dev\/kvm/i,
    why: "The VMM cannot use /dev/kvm: there is none, another hypervisor has it, or its file system is mounted with nodev.",
    fix: "Run `vmsan doctor`, or use --driver qemu.",
  },
  {
    path: /^\/actions/,
    fault: /kernel image|elf|kernel loader/i,
    why: "The kernel is not an uncompressed one for this machine (ELF; aarch64: Image).",
    fix: "Add the kernel with `vmsan kernel add FILE`, which unpacks it, and use that one.",
  },
  {
    path: /^\/(actions|snapshot)/,
    fault: /\(os error 12\)|cannot allocate memory/i,
    why: "The host has not enough memory for the guest.",
    fix: "Give the VM less (--memory), or stop others.",
  },
  {
    path: /^\/(actions|snapshot|drives|metrics|boot-source|vsock)/,
    fault: /\(os error 28\)/,
    why: "The host's disk is full.",
    fix: "Make room on the file system of VMSAN_DIR (vmsan image prune).",
  },
  {
    path: /^\/boot-source/,
    fault: /command line/i,
    why: "The kernel's arguments are longer than the 2047 bytes that Firecracker takes.",
    fix: "Use fewer or shorter kernel arguments.",
  },
  {
    path: /^\/(drives|boot-source|snapshot\/load)/,
    fault: /\(os error (1|2|13)\)/,
    why: "The VMM's user may not open the file, or it is gone.",
    fix: "Check that kernel, initramfs and disks exist and can be read; a VM's own files belong to its user.",
  },
  {
    path: /^\/(vsock|metrics)/,
    fault: /\(os error (17|98)\)|already/i,
    why: "An earlier start of the VM has left its sockets or files behind.",
    fix: "Stop the VM, which removes them, and start it again.",
  },
  {
    path: /^\/snapshot\/load/,
    fault: /version|magic|deserializ/i,
    why: "The snapshot was made by another version of Firecracker, or it is damaged.",
    fix: "Make it anew with this version.",
  },
];

/** The likely cause of a refusal; undefined when none is known. */
export function causeOf(path: string, fault: string): Cause | undefined {
  const found = causes.find((one) => one.path.test(path) && one.fault.test(fault));
  return found === undefined ? undefined : { why: found.why, fix: found.fix };
}

/**
 * An error of the API with the end of the VMM's log, which is removed with the VM.
 * @param log its last lines; empty: nothing to add
 */
export function withLog(error: unknown, log: string): unknown {
  if (!(error instanceof VmsanError) || log === "") return error;
  const why = `${error.why ?? ""} The VMM's log ends with: ${log}`.trim();
  return new VmsanError({ ...error.toJSON(), why }, error.cause);
}
