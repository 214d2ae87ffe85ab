/** What a start by a template is given: what is on the VM's disk, and perhaps a clone that waits already. */
import type { CreateRequest } from "../../model/api.ts";
import type { Accelerator, VmRecord } from "../../model/vm.ts";
import type { LiveGuest } from "../starting/await-guest.ts";
import type { BootedMachine } from "../starting/bring-up.ts";
import type { DriverChoice, Work } from "../stages.ts";

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

/** Starts of VMs from templates; see warm/templates.ts. */
export interface WarmStarts {
  /** A clone that waits for such a request: the caller's from now on. */
  take(
    request: CreateRequest,
    choice: DriverChoice,
    signal: AbortSignal,
  ): Promise<ReadyClone | undefined>;
  start(
    record: VmRecord,
    plan: WarmPlan,
    work: Work,
    ready: ReadyClone | undefined,
  ): Promise<WarmStart>;
  /** Have a clone wait for the next such request, where that is switched on. */
  next(request: CreateRequest, choice: DriverChoice, plan: WarmPlan): void;
  /** A booted machine that a VM can start from, its disks in place. */
  findMachine(record: VmRecord): Promise<BootedMachine | undefined>;
  wanted(record: VmRecord, plan: WarmPlan | undefined): Promise<void>;
  /** Have kept what the first VM of such a request can start from. @returns why it boots all the same */
  ahead(request: CreateRequest): Promise<string | undefined>;
  /** The disk is nearly full: remove what starts can do without. */
  makeRoom(): Promise<void>;
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
