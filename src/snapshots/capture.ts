/** A VM's memory and disks of one instant, taken while it runs. */
import type { DiskAttachment, VmSpec } from "../model/vm.ts";
import {
  asCopy,
  chooseMethod,
  isOwn,
  isVolume,
  keepDisk,
  withLayer,
  withStamp,
  type Method,
} from "./disks.ts";
import { asPhase } from "../util/flow/phases.ts";
import { freeze, thaw, type LiveVm } from "./freeze.ts";
import { keepShares, memoryPaths, writeToken } from "./store.ts";

/** What to take, and where to. */
export interface CaptureRequest {
  spec: VmSpec;
  /** Empty directory that receives the files. */
  into: string;
  /** With memory; else the disks alone, in a state that needs no repair. */
  memory: boolean;
  /** Token that the guest answers to. */
  token: string;
  /** File in which the file server of its shared directories has kept what it knows, once it is frozen. */
  shares: string | undefined;
  /** Whether the VMM takes disks in layers. */
  layers: boolean;
  /** Leave the VM halted, its work frozen. */
  halt: boolean;
  /** Its work is frozen and its processors are halted already. */
  halted: boolean;
  /**
   * Note, durably, what the VM's disks are from now on and that its work is held. Called while
   * both are still true: a layer that has just been added is empty.
   */
  onHold(disks: DiskAttachment[]): Promise<void>;
  signal: AbortSignal;
}

/** What was taken. */
export interface Captured {
  /**
   * The disks, with names of files in the directory; with memory a volume that the VM writes to is a
   * copy there, one that it reads is where it lies.
   */
  disks: DiskAttachment[];
  /** Milliseconds that the processors were halted. */
  pauseMs: number;
}

/** A disk and how its newest layer gets into the snapshot. */
interface Plan {
  disk: DiskAttachment;
  index: number;
  method: Method;
}

/** Take memory and disks of a running VM. However it ends, the VM goes on unless told otherwise. */
export async function capture(vm: LiveVm, request: CaptureRequest): Promise<Captured> {
  const { spec, into, signal } = request;
  const plans: Plan[] = [];
  for (const [index, disk] of spec.disks.entries()) {
    const copied = request.memory && isVolume(disk) && !disk.readonly;
    if (!isOwn(disk) && !copied) continue;
    plans.push({ disk, index, method: await chooseMethod(disk, into, request.layers) });
  }
  const disks = [...spec.disks];
  const kept = [...spec.disks];
  let pauseMs = 0;
  let whole = false;
  try {
    if (!request.halted) {
      await asPhase("freeze", async () => await freeze(vm, !request.memory, signal));
    }
    for (const { disk, index, method } of plans) {
      if (method === "overlay") disks[index] = await withLayer(disk, spec.dir);
    }
    await request.onHold(disks);
    signal.throwIfAborted();
    const from = performance.now();
    if (!request.halted) await vm.running.pause();
    try {
      for (const { disk, index, method } of plans) {
        if (method === "overlay") await vm.running.addLayer(index, disks[index]?.path ?? "");
        else kept[index] = asCopy(await keepDisk(disk, index, into, method));
      }
      for (const [index, disk] of kept.entries()) {
        if (request.memory && isVolume(disk)) kept[index] = await withStamp(disk);
      }
      if (request.memory) {
        await asPhase("memory", async () => await vm.running.snapshot(memoryPaths(into), "full"));
      }
      whole = true;
    } finally {
      if (!(request.halt && whole) && !request.halted) await vm.running.resume();
      pauseMs = Math.round(performance.now() - from);
    }
    await asPhase("disk", async () => {
      for (const { disk, index, method } of plans) {
        if (method === "overlay") kept[index] = await keepDisk(disk, index, into, method);
      }
    });
    if (request.memory) {
      if (request.shares !== undefined) await keepShares(request.shares, into);
      await writeToken(into, request.token);
    }
  } finally {
    if (!(request.halt && whole) && !request.halted) {
      await asPhase("thaw", async () => await thaw(vm));
    }
  }
  return { disks: kept, pauseMs };
}
