/**
 * Machines that have booted for nobody: kernel and agent are up, no disk is. What they are depends on the machine alone, so the
 * first VM of any image starts from one.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { DiskAttachment, MachineIdentity, VmRecord, VmSpec } from "../../model/vm.ts";
import { nameOf, type Wish } from "./template-shelf.ts";

/** The agent finds it where an ext4 file system has its label: protocol/README.md section 12. */
const BLANK_LABEL = "vmsan-blank";
const LABEL_AT = 1024 + 0x78;
const BLANK_BYTES = 1 << 20;

/** Whether a VM has an init of its own. */
export function hasOwnInit({ kernelArgs }: VmSpec): boolean {
  return kernelArgs.some((arg) => arg.startsWith("vmsan.init="));
}

/** The booted machine that a VM would start from, its disks in place; undefined when it must boot. */
export function machineWish(record: VmRecord, machine: MachineIdentity): Wish | undefined {
  const { spec, policy, kernelFile = "" } = record;
  // A machine that waits holds the port to the host, which the agent beside an init has to open itself.
  if (hasOwnInit(spec)) return undefined;
  const disks = spec.disks.map(({ readonly }) => readonly);
  const card = policy.mode !== "none";
  const shape = [spec.kernelArgs, spec.vcpus, spec.memMib, card, spec.shares === true, disks];
  const slot = nameOf(["booted", kernelFile, ...shape]);
  const needs = [spec.kernel, spec.initramfs];
  return { key: `booted-${nameOf([slot, machine, needs])}`, about: { needs, machine, slot } };
}

/** Disks with nothing on them, in the places of a VM's. @param dir absolute path of the directory that they come to lie in */
export async function blankDisks({ spec }: VmRecord, dir: string): Promise<DiskAttachment[]> {
  const bytes = Buffer.alloc(BLANK_BYTES);
  bytes.write(BLANK_LABEL, LABEL_AT, "latin1");
  return await Promise.all(
    spec.disks.map(async ({ role, readonly }, index): Promise<DiskAttachment> => {
      const path = join(dir, `blank${index}`);
      await writeFile(path, bytes, { mode: 0o600 });
      return { role, path, readonly };
    }),
  );
}
