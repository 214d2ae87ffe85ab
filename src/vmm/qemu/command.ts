/** QEMU's command line for a VM: pure, no effects. Machine `microvm` on x86_64, `virt` on aarch64. */
import { basename } from "node:path";
import type { KernelArch } from "../../boot/kernel.ts";
import { VmsanError } from "../../model/errors.ts";
import type { DiskAttachment, VmSpec } from "../../model/vm.ts";

/** Files of a running QEMU, relative to the VM's directory, which is QEMU's working directory. */
export const qemuFiles = {
  channel: "ctl.sock",
  monitor: "qmp.sock",
  shares: "shares.sock",
  console: "console.log",
  log: "vmm.log",
  /** Link to the network's stream socket: its own path may be too long for an address. */
  network: "net.sock",
  /** Where QEMU changes its root directory to, and where it may connect for snapshots. */
  root: "root",
  migration: "migration.sock",
  /** Memory of a restored machine that shares it with no other. */
  memory: "memory.own",
} as const;

/** Choices that are not the VM's but the host's. */
export interface QemuHost {
  arch: KernelArch;
  accelerator: "kvm" | "tcg";
  /** Processor model with KVM; default `host`. */
  cpu?: string;
  /** Guest time stamp counter for software emulation, in kHz (x86_64). */
  tscKhz?: number;
  /** QEMU's, e.g. `7.2.22`. */
  version?: string;
  /** Start as root, give up privileges for this uid and gid, and change the root directory. */
  runAs?: { uid: number; gid: number };
}

/** Where guest memory comes from when a snapshot is restored. */
export interface QemuRestore {
  /** Memory file to map privately; undefined when memory is part of the state. */
  memory?: string;
  /** The machine has a balloon, as those of vmsan 0.4 and earlier. */
  balloon?: boolean;
}

/** The argument by which a VM's QEMU is recognised. */
export function guestName(id: string): string {
  return option("guest", `vmsan-${id}`);
}

/** Most disks of one VM: of the 24 virtio-mmio places on `microvm` the card, channel, randomness and an earlier version's balloon take four. */
const maxDisks = 20;

/**
 * Bytes of translated code that software emulation keeps, MiB: smaller is denser, 8 thrashes. A boot of the trimmed kernel
 * fills 39: with 32 all is thrown away before it ends, and a quarter of it translated anew.
 */
export function translationBufferMib(memMib: number): number {
  if (memMib <= 256) return 40;
  return memMib <= 1024 ? 64 : 128;
}

/** Kernel arguments that this machine needs, before the VM's own. */
export function kernelArguments(spec: VmSpec, host: QemuHost): string[] {
  const args = ["console=" + (host.arch === "x86_64" ? "ttyS0" : "ttyAMA0")];
  // A reboot ends QEMU (-no-reboot); a panic reboots at once. Triple fault: no firmware needed.
  if (host.arch === "x86_64") args.push("reboot=t");
  args.push("panic=-1", "quiet", "cryptomgr.notests", "vmsan.channel=virtio");
  if (host.arch === "x86_64" && host.accelerator === "tcg") {
    // With one processor the kernel else writes over each of its 8 thousand lock prefixes by itself, which an
    // emulator takes for so many changes of its address space: a twentieth of a boot, for nothing. The local timer
    // of QEMU's processors counts nanoseconds: the trimmed kernel believes it, others measure for a tenth of a second.
    args.push("noreplace-smp", "apic.timer_khz=1000000");
  }
  if (host.arch === "x86_64" && host.accelerator === "tcg" && host.tscKhz !== undefined) {
    // Without these a third of the boots hang: the emulated timers are too coarse to calibrate by.
    args.push(`tsc_early_khz=${host.tscKhz}`, "tsc=reliable");
  }
  return [...args, ...spec.kernelArgs];
}

/** One of QEMU's own comma-separated options; refuses values that would add another. */
function option(key: string, value: string | number): string {
  const text = String(value);
  if (/[\n\0]/.test(text)) {
    throw new VmsanError({
      code: "ERR_VMM_ARGUMENT",
      message: `Cannot pass ${JSON.stringify(text)} to QEMU`,
      why: "It holds a line break or a NUL byte.",
      fix: "Use another path.",
    });
  }
  // A doubled comma is QEMU's way of writing one inside a value.
  return `${key}=${text.replaceAll(",", ",,")}`;
}

/**
 * The processor of an emulated machine. By x86's ERMS flag kernel, C library and Go choose `rep movsb` to copy and `rep
 * stosb` to clear, which emulation carries out byte by byte: without the flag they move 8 bytes and more at a time, and
 * bulk data takes a half to a quarter of the time. What is shared with a snapshot of another flag is unharmed, as
 * the instructions are there all the same. FSRM, which later ones than 7.2 have, goes with it: a kernel takes it for a faster ERMS, and copies nothing
 * right with the one and not the other (Linux 6.1 hangs early in its boot, at QEMU 10.0.2).
 */
const EMULATED_CPU = { x86_64: "max,-erms,-fsrm", aarch64: "max" } as const;

/** Whether it is this version of QEMU or a later one. */
function isSince({ version = "" }: QemuHost, major: number, minor: number): boolean {
  const [ofMajor = 0, ofMinor = 0] = version.split(".").map(Number);
  return ofMajor > major || (ofMajor === major && ofMinor >= minor);
}

/** Machine, memory and processors. */
function machine(spec: VmSpec, host: QemuHost, restore?: QemuRestore): string[] {
  const type = host.arch === "x86_64" ? "microvm" : "virt,gic-version=max";
  const accelerator =
    host.accelerator === "kvm" ? "kvm" : `tcg,tb-size=${translationBufferMib(spec.memMib)}`;
  // Shared anonymous memory: a snapshot then copies it from outside instead of streaming it.
  const memory =
    restore?.memory === undefined
      ? "memory-backend-memfd,share=on"
      : ["memory-backend-file,share=off", option("mem-path", restore.memory)].join(",");
  return [
    ["-machine", `${type},memory-backend=mem`],
    ["-object", `${memory},id=mem,size=${spec.memMib}M`],
    ["-accel", accelerator],
    ["-cpu", host.accelerator === "kvm" ? (host.cpu ?? "host") : EMULATED_CPU[host.arch]],
    ["-smp", String(spec.vcpus)],
    ["-m", `${spec.memMib}M`],
    // QEMU 10's default firmware path hangs here; qboot is right for all versions.
    ...(host.arch === "x86_64" ? ["-bios", "qboot.rom"] : []),
  ].flat();
}

/** Disks in the order vda, vdb …, each with its role as serial number. */
function disks(spec: VmSpec): string[] {
  if (spec.disks.length > maxDisks) {
    throw new VmsanError({
      code: "ERR_VMM_DISKS",
      message: `Cannot attach ${spec.disks.length} disks`,
      why: `QEMU's machine has places for ${maxDisks}.`,
      fix: "Use fewer volumes.",
    });
  }
  return spec.disks.flatMap((disk, index) => {
    const node = layerNode(index, disk.path);
    const backend = { ...layers(disk), "node-name": node };
    return [
      ["-blockdev", JSON.stringify(backend)],
      ["-device", `virtio-blk-device,id=${blockDevice(index)},drive=${node},serial=${disk.role}`],
    ].flat();
  });
}

/** Name of the node of a disk's layer, by which a layer is known to be there already. */
export function layerNode(index: number, path: string): string {
  return `disk${index}-${basename(path)
    .replaceAll(/[^a-z0-9]/g, "")
    .slice(-16)}`;
}

/** Name of a disk's device, by which its topmost layer is found while it runs. */
export function blockDevice(index: number): string {
  return `block${index}`;
}

/** A disk's image with all that lies below it. */
function layers(disk: DiskAttachment): Record<string, unknown> {
  const paths = [...(disk.backing ?? []), disk.path];
  let below: Record<string, unknown> | undefined;
  for (const [layer, path] of paths.entries()) {
    const readonly = disk.readonly || layer < paths.length - 1;
    // Never `false` in words: QEMU then holds a file writable that another layer has come over, and
    // refuses to migrate.
    const fixed = readonly ? { "read-only": true } : {};
    below = {
      driver: layer === 0 ? "raw" : "qcow2",
      ...fixed,
      // The guest's discards give space back to the host.
      discard: "unmap",
      file: {
        driver: "file",
        filename: path,
        // What is only read is shared by many VMs; its lock would keep all but one out.
        locking: readonly ? "off" : "auto",
        ...fixed,
      },
      ...(below === undefined ? {} : { backing: below }),
    };
  }
  return below ?? {};
}

/** The port of the file server, if directories are shared. */
function sharesPort(spec: VmSpec): string[] {
  if (spec.shares !== true) return [];
  return [
    ["-chardev", `socket,id=shares,path=${qemuFiles.shares},server=on,wait=off`],
    ["-device", "virtserialport,chardev=shares,name=vmsan.1"],
  ].flat();
}

/** The network card, if there is one. */
function network(spec: VmSpec): string[] {
  const net = spec.network;
  if (net === undefined) return [];
  const backend =
    net.socket === undefined
      ? [`tap,id=net0`, option("ifname", net.tap ?? ""), "script=no", "downscript=no"].join(",")
      : `stream,id=net0,server=off,addr.type=unix,addr.path=${qemuFiles.network}`;
  return ["-netdev", backend, "-device", `virtio-net-device,netdev=net0,${option("mac", net.mac)}`];
}

/**
 * A balloon, for snapshots that have one; no new machine gets one. QEMU gives back what a guest says is free by punching holes
 * into the file below its memory, also where it is mapped privately: of a snapshot that others start from.
 */
function balloon(restore?: QemuRestore): string[] {
  return restore?.balloon === true
    ? ["-device", "virtio-balloon-device,id=balloon0,free-page-reporting=on"]
    : [];
}

/** Isolation that QEMU does itself. */
function confinement(spec: VmSpec, host: QemuHost): string[] {
  const args: string[] = [];
  if (spec.isolation.seccomp) {
    // QEMU 7.2 kills itself when it changes its uid with privileges denied. Afterwards it has no
    // capability and no_new_privs, so that allowing the calls allows nothing.
    const elevate = host.runAs === undefined ? "deny" : "allow";
    args.push(
      "-sandbox",
      `on,obsolete=deny,elevateprivileges=${elevate},spawn=deny,resourcecontrol=deny`,
    );
  }
  if (host.runAs !== undefined) {
    const user = `${host.runAs.uid}:${host.runAs.gid}`;
    // QEMU 10 has no longer the one way, those before 9.1 not yet the other.
    if (isSince(host, 9, 1)) args.push("-run-with", `chroot=${qemuFiles.root},user=${user}`);
    else args.push("-runas", user, "-chroot", qemuFiles.root);
  }
  return args;
}

/**
 * QEMU's arguments, to be run in the VM's directory.
 * @param restore when a snapshot is loaded: no kernel, QEMU waits for the state
 */
export function qemuArguments(spec: VmSpec, host: QemuHost, restore?: QemuRestore): string[] {
  const boot =
    restore === undefined
      ? [
          ["-kernel", spec.kernel],
          ["-initrd", spec.initramfs],
          ["-append", kernelArguments(spec, host).join(" ")],
        ].flat()
      : ["-S", "-incoming", "defer"];
  return [
    ["-name", guestName(spec.id)],
    ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...machine(spec, host, restore),
    ["-chardev", `file,id=console,path=${qemuFiles.console},append=on`],
    ["-serial", "chardev:console"],
    ...disks(spec),
    ["-device", "virtio-serial-device"],
    ["-chardev", `socket,id=channel,path=${qemuFiles.channel},server=on,wait=off`],
    ["-device", "virtserialport,chardev=channel,name=vmsan.0"],
    ...sharesPort(spec),
    ...network(spec),
    ["-object", "rng-builtin,id=rng0", "-device", "virtio-rng-device,rng=rng0"],
    ...balloon(restore),
    ["-qmp", `unix:${qemuFiles.monitor},server=on,wait=off`],
    ...confinement(spec, host),
    ...boot,
  ].flat();
}
