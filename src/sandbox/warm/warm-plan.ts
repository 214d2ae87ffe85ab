/** What a start by a template is given: what is on the VM's disk, and perhaps a clone that waits already. */
import type { Accelerator, VmRecord } from "../../model/vm.ts";
import type { LiveGuest } from "../starting/await-guest.ts";

/**
 * Whether a VM may start from a template: as was asked for, else where that was measured to be
 * faster, which is software emulation.
 */
export function isWarm({ warm }: Pick<VmRecord, "warm">, accelerator: Accelerator): boolean {
  return warm ?? accelerator === "tcg";
}

/** What a start needs to know of its VM besides the record. */
export interface WarmPlan {
  /** Absolute path of the disk image. */
  base: string;
  /** The writable disk is a copy of it. */
  flat: boolean;
}

/** What became of a start by a template. */
export interface WarmStart {
  /** It runs; absent: it is to boot. */
  guest?: LiveGuest;
  /**
   * Forget the template that it could not be started from. Only once it has booted without: what keeps a VM from coming up either way
   * (a port that is taken, a setting that its kernel does not know) says nothing against a template, which is everybody's.
   */
  drop?: () => Promise<void>;
}

/** A clone that waits. */
export interface ReadyClone {
  /** What was made for it; its ID becomes the VM's. */
  record: VmRecord;
  /** Paused. */
  guest: LiveGuest;
  /** Of its template. */
  key: string;
  /** Leave nothing of it, and of what it may have become; may be called more than once. */
  end(): Promise<void>;
}

/** A new VM's record with what there is already of the clone that it becomes. */
export function takeOver(record: VmRecord, ready: ReadyClone | undefined): VmRecord {
  if (ready === undefined) return record;
  const { process, isolation, spec, guestNetwork, networkReason } = ready.record;
  const { network, disks, kernel, initramfs } = spec;
  return {
    ...record,
    spec: { ...record.spec, kernel, initramfs, disks, ...(network && { network }) },
    ...(process && { process }),
    ...(isolation && { isolation }),
    ...(guestNetwork && { guestNetwork }),
    ...(networkReason !== undefined && { networkReason }),
  };
}
