/** What users may tell a guest's kernel: arguments of its command line, and settings of /proc/sys. */
import { invalid } from "./units.ts";

/** Bytes of a kernel's command line that are the user's: x86 has room for 2048. */
const MAX_ARGUMENT_BYTES = 1024;
/** Most settings of one VM. */
export const MAX_SYSCTLS = 256;

/**
 * Arguments by which vmsan itself boots a guest, and why each cannot be another; `-` and `_` are the
 * same to the kernel.
 */
const OWN: readonly { names: readonly string[]; why: string }[] = [
  { names: ["console"], why: "vmsan reads the guest's console there." },
  { names: ["reboot", "panic"], why: "They are how a VM ends." },
  {
    names: ["root", "rootflags", "rootfstype", "ro", "rw", "init", "rdinit", "initrd", "noinitrd"],
    why: "vmsan's agent mounts the VM's disks; `--init` boots the image's own init.",
  },
  { names: ["mem", "memmap"], why: "`--memory` says how much there is." },
  {
    names: ["tsc", "tsc_early_khz", "apic.timer_khz", "clocksource"],
    why: "The emulated clock depends on it.",
  },
  { names: ["acpi", "pci", "virtio_mmio.device"], why: "The guest finds its devices by it." },
  { names: ["nomodule", "module.sig_enforce"], why: "The guest's drivers are modules." },
  { names: ["--"], why: "What stands behind it is for an init, and vmsan's agent is that." },
];

/**
 * Arguments for the kernel's command line, behind vmsan's own.
 * @throws ERR_VALIDATION_KERNEL_ARG
 */
export function parseKernelArgs(words: readonly string[]): string[] {
  for (const word of words) {
    const wrong = (why: string, fix: string): Error =>
      invalid("KERNEL_ARG", "kernel argument", word, why, fix);
    if (!/^[!-~]+$/.test(word) || word.includes('"')) {
      throw wrong(
        "It takes one word of printable ASCII characters, without quotes.",
        "Give --kernel-arg once for each argument.",
      );
    }
    const name = (word.split("=")[0] ?? "").replaceAll("-", "_");
    if (name === "" || name.startsWith("vmsan.")) {
      throw wrong(
        name === "" ? "It has no name." : "Names that begin with vmsan. are the agent's.",
        "For example: --kernel-arg mitigations=off.",
      );
    }
    const own = OWN.find(({ names }) => names.includes(word === "--" ? word : name));
    if (own !== undefined) throw wrong(`vmsan sets it itself: ${own.why}`, "Leave it out.");
  }
  const bytes = words.join(" ").length;
  if (bytes <= MAX_ARGUMENT_BYTES) return [...words];
  throw invalid(
    "KERNEL_ARG",
    "kernel arguments",
    `${words.length} of ${bytes} bytes`,
    `Together they may have ${MAX_ARGUMENT_BYTES} bytes.`,
    "Use fewer; settings of /proc/sys go by --sysctl.",
  );
}

/**
 * A setting's name as the path below /proc/sys. As for sysctl(8), the first separator counts: with
 * dots between the parts a slash stands for a dot (`net.ipv4.conf.eth0/1.forwarding`).
 */
function sysctlPath(key: string): string | undefined {
  const first = /[./]/.exec(key)?.[0];
  const path =
    first === "." ? key.replaceAll(/[./]/g, (separator) => (separator === "." ? "/" : ".")) : key;
  const parts = path.split("/");
  const usable =
    parts.length > 1 &&
    parts.every((part) => /^[A-Za-z0-9_.:@-]+$/.test(part) && !/^\.+$/.test(part));
  return usable && key.length <= 256 ? path : undefined;
}

/**
 * Settings by path below /proc/sys, from `net.ipv4.ip_forward=1` and the like; a later one wins.
 * @throws ERR_VALIDATION_SYSCTL
 */
export function parseSysctls(words: readonly string[]): Record<string, string> {
  const settings = new Map<string, string>();
  for (const word of words) {
    const wrong = (why: string): Error =>
      invalid("SYSCTL", "sysctl", word, why, "For example: --sysctl net.ipv4.ip_forward=1.");
    const at = word.indexOf("=");
    if (at < 0) throw wrong("It takes KEY=VALUE.");
    const path = sysctlPath(word.slice(0, at).trim());
    if (path === undefined) throw wrong("The key is no name below /proc/sys.");
    const value = word.slice(at + 1).trim();
    if (!/^[\t -~]{1,1024}$/.test(value)) {
      throw wrong("The value must have 1 to 1024 printable ASCII characters.");
    }
    settings.set(path, value);
  }
  if (settings.size <= MAX_SYSCTLS) return Object.fromEntries(settings);
  throw invalid(
    "SYSCTL",
    "sysctls",
    settings.size,
    `A VM has at most ${MAX_SYSCTLS}.`,
    "Set the rest in the guest.",
  );
}
