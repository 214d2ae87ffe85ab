/**
 * Whether KVM works here. That /dev/kvm opens says little: nested and paravirtual KVMs open
 * and then cannot run a kernel. So a small program runs in a VM (kvm-payload.S) that does what
 * every kernel does when it boots, and says how far it has come.
 */
import { accessSync, constants, mkdtempSync, readFileSync, readdirSync, statSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { release, tmpdir } from "node:os";
import { join } from "node:path";
import { errnoOf, messageOf } from "../model/errors.ts";
import { writeFileAtomic } from "../util/atomic.ts";
import { bootId } from "../util/process-identity.ts";
import { run } from "../util/run.ts";
import { kvmFirmware } from "./kvm-payload.ts";

/** What the probe found. */
export interface KvmProbe {
  usable: boolean;
  /** One sentence for people. */
  reason: string;
  fix?: string;
  /** Processor model for QEMU that worked. */
  cpu?: string;
  /** How far the probe's program came: letters of {@link stages}. */
  reached?: string;
}

/** What {@link probeKvm} takes. */
export interface KvmProbeOptions {
  /** QEMU program to run the probe with; without one KVM is judged by its modules alone. */
  qemu?: string;
  /** Directory of the cached result. */
  cacheDir: string;
  /** Default /dev/kvm; another one for tests. */
  device?: string;
  /** Milliseconds for the program; default 5000. A sound KVM takes 0.1 s. */
  timeoutMs?: number;
}

/** What each letter stands for, in order. */
const stages: readonly [letter: string, what: string][] = [
  ["R", "real mode"],
  ["P", "protected mode"],
  ["L", "long mode with paging"],
  ["X", "exceptions in the kernel (breakpoint, invalid instruction, page fault)"],
  ["M", "model-specific registers and CPUID"],
  ["U", "user mode and system calls"],
  ["T", "timer interrupts"],
  ["C", "computing and switching page tables at a usable speed"],
];

/** Exit status of QEMU when the program has come to its end: isa-debug-exit of 0x20. */
const passed = (0x20 << 1) | 1;
/** Hours for which a result is believed within one boot. */
const believedHours = { usable: 24, unusable: 1 };

const enableFix =
  "Enable virtualization in the firmware, or nested virtualization on the host of this machine.";

/** Loaded modules that implement KVM, with their versions. */
function kvmModules(): string[] {
  let names: string[];
  try {
    names = readdirSync("/sys/module");
  } catch (error) {
    // No sysfs (a sandbox): the modules are unknown.
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "EACCES") return [];
    throw error;
  }
  return names
    .filter((name) => name === "kvm" || name.startsWith("kvm_"))
    .map((name) => {
      try {
        return `${name} ${readFileSync(`/sys/module/${name}/srcversion`, "utf8").trim()}`;
      } catch {
        // ENOENT: built into the kernel, whose release is part of the key as well.
        return name;
      }
    });
}

/** Name of the module that does the work: kvm_intel, kvm_amd … */
function kvmFlavour(): string | undefined {
  return kvmModules()
    .map((module) => module.split(" ")[0] ?? "")
    .find((name) => name !== "kvm");
}

/** A description of this KVM, for the reason: paravirtual, nested, or nothing. */
function describe(): string {
  const flavour = kvmFlavour();
  if (flavour === "kvm_pvm") {
    return " This KVM is kvm_pvm, a paravirtual one without hardware virtualization: it runs only kernels made for it.";
  }
  if (
    process.arch === "x64" &&
    /^flags\s*:.*\bhypervisor\b/m.test(readFileSync("/proc/cpuinfo", "utf8"))
  ) {
    return ` This host is itself a virtual machine${flavour === undefined ? "" : ` (${flavour})`}.`;
  }
  return "";
}

/** Why the device cannot be opened; undefined when it can. */
function cannotOpen(device: string): KvmProbe | undefined {
  try {
    accessSync(device, constants.R_OK | constants.W_OK);
    if (statSync(device).isCharacterDevice()) return undefined;
    return { usable: false, reason: `${device} is not a device.`, fix: enableFix };
  } catch (error) {
    if (errnoOf(error) === "EACCES" || errnoOf(error) === "EPERM") {
      return {
        usable: false,
        reason: `This user may not open ${device}.`,
        fix: "Add the user to the group kvm (`sudo usermod -aG kvm $USER`) and log in again.",
      };
    }
    return { usable: false, reason: `There is no ${device}.`, fix: enableFix };
  }
}

/** What makes an earlier result still true. */
function cacheKey(options: KvmProbeOptions, device: string): string {
  const info = statSync(device);
  const qemu = options.qemu === undefined ? "" : String(statSync(options.qemu).mtimeMs);
  return JSON.stringify([
    2, // version of the probe
    bootId(),
    release(),
    kvmModules(),
    [device, info.rdev, info.mode],
    process.geteuid?.(),
    options.qemu ?? "",
    qemu,
  ]);
}

/** An earlier result, when it is still to be believed. */
function readCache(path: string, key: string): KvmProbe | undefined {
  try {
    const value = JSON.parse(readFileSync(path, "utf8")) as {
      key?: unknown;
      at?: unknown;
      probe?: Partial<KvmProbe>;
    };
    const { probe } = value;
    if (value.key !== key || typeof value.at !== "number" || typeof probe?.usable !== "boolean") {
      return undefined;
    }
    if (typeof probe.reason !== "string") return undefined;
    const hours = probe.usable ? believedHours.usable : believedHours.unusable;
    const age = Date.now() - value.at;
    return age >= 0 && age < hours * 3_600_000 ? (probe as KvmProbe) : undefined;
  } catch {
    // Absent, or damaged: then it is found out again.
    return undefined;
  }
}

/** QEMU's arguments for the probe's program. */
function probeArguments(cpu: string, firmware: string, serial: string): string[] {
  return [
    ["-machine", "microvm", "-accel", "kvm", "-cpu", cpu, "-m", "16"],
    ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ["-bios", firmware, "-serial", `file:${serial}`],
    ["-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"],
  ].flat();
}

/** One run of the probe's program, in a scratch directory with its firmware. */
async function attempt(
  qemu: string,
  cpu: string,
  dir: string,
  timeoutMs: number,
): Promise<{ reached: string; passed: boolean; complaint: string }> {
  const stop = new AbortController();
  const serial = join(dir, "serial");
  await writeFile(serial, "");
  let text = "";
  let code: number | null = null;
  try {
    const result = await run(qemu, probeArguments(cpu, join(dir, "probe.rom"), serial), {
      timeoutMs,
      signal: stop.signal,
      onOutput: (part) => {
        text = (text + part).slice(-65_536);
        // QEMU then stops the VM and waits for a debugger.
        if (text.includes("KVM internal error")) stop.abort(new Error("KVM internal error"));
      },
    });
    code = result.code;
  } catch (error) {
    if (!stop.signal.aborted) throw error;
  }
  const complaint = text
    .split("\n")
    .filter((line) => /error|fail|not |cannot|denied/i.test(line) && !line.includes("warning"))
    .slice(0, 2)
    .join(" ")
    .slice(0, 300);
  return {
    reached: readFileSync(serial, "latin1").slice(0, stages.length),
    passed: code === passed,
    complaint: complaint.replaceAll(/^.*?qemu-system-\w+: /g, "").trim(),
  };
}

/** Run the program with the host's processor model, and with one that leaves out a known trap. */
async function runPayload(qemu: string, timeoutMs: number): Promise<KvmProbe> {
  const dir = mkdtempSync(join(tmpdir(), "vmsan-kvm-"));
  try {
    await writeFile(join(dir, "probe.rom"), kvmFirmware());
    let last = { reached: "", complaint: "" };
    for (const cpu of ["host", "host,-arch-capabilities"]) {
      const result = await attempt(qemu, cpu, dir, timeoutMs);
      if (result.passed) {
        const reason = "KVM works: a test program has run in a VM.";
        return { usable: true, reason, cpu, reached: result.reached };
      }
      last = result;
      // Some nested KVMs refuse one register of the host's model before anything runs.
      if (result.reached !== "") break;
    }
    const next = stages[last.reached.length];
    const where = next === undefined ? "its end" : next[1];
    const said = last.complaint === "" ? `within ${timeoutMs} ms` : `(${last.complaint})`;
    return {
      usable: false,
      reason: `A test program in a VM did not get through: ${where} ${said}.${describe()}`,
      fix: enableFix,
      reached: last.reached,
    };
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** Judge by the modules, where the program cannot be run. */
function assume(why: string): KvmProbe {
  const flavour = kvmFlavour();
  const known = process.arch === "arm64" || flavour === "kvm_intel" || flavour === "kvm_amd";
  return known
    ? { usable: true, reason: `KVM is assumed to work: ${why}.`, cpu: "host" }
    : {
        usable: false,
        reason: `KVM is of an unknown kind (${flavour ?? "no module"}), and ${why}.${describe()}`,
        fix: "Install QEMU, so that it can be tried.",
      };
}

/**
 * Find out whether KVM can run a kernel here; at most two runs of `timeoutMs`, else cached for
 * this boot, kernel and KVM modules. Never throws for a KVM that does not work.
 */
export async function probeKvm(options: KvmProbeOptions): Promise<KvmProbe> {
  const device = options.device ?? "/dev/kvm";
  const closed = cannotOpen(device);
  if (closed !== undefined) return closed;
  if (process.arch !== "x64") return assume("there is no test program for this processor");
  if (options.qemu === undefined) return assume("there is no QEMU to try it with");
  const path = join(options.cacheDir, "kvm.json");
  const key = cacheKey(options, device);
  const known = readCache(path, key);
  if (known !== undefined) return known;
  let probe: KvmProbe;
  try {
    probe = await runPayload(options.qemu, options.timeoutMs ?? 5000);
  } catch (error) {
    return { usable: false, reason: `KVM cannot be tried: ${messageOf(error)}`, fix: enableFix };
  }
  await writeFileAtomic(path, `${JSON.stringify({ key, at: Date.now(), probe })}\n`);
  return probe;
}
