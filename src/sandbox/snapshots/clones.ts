/** VMs made of a snapshot, one or many at once. */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { CloneRequest, VmView } from "../../model/api.ts";
import type { SnapshotRecord } from "../../model/snapshot.ts";
import type { VmRecord } from "../../model/vm.ts";
import { giveDisks } from "../../snapshots/disks.ts";
import { memoryPaths, type MemoryImage } from "../../snapshots/store.ts";
import { parseName } from "../../util/names.ts";
import { checkIsolation } from "../../vmm/isolation.ts";
import type { RunningVm } from "../../vmm/driver.ts";
import type { LiveGuest } from "../starting/await-guest.ts";
import { bringUp } from "../starting/bring-up.ts";
import type { SharedMutex } from "../../util/flow/shared-mutex.ts";
import { attachVolumes } from "../starting/mounts.ts";
import { setBootFiles } from "../starting/new-vm.ts";
import type { Sandboxes } from "../sandboxes.ts";
import type { Work } from "../stages.ts";
import { asPhase } from "../../util/flow/phases.ts";
import { bringBack } from "./bring-back.ts";
import { checkOutside } from "./outside.ts";
import { checkFixed, checkMachine, cloneRecord, networksOf } from "./record.ts";

/** VMs that are brought back at the same time: more only wait for one another's processors. */
const AT_ONCE = 8;

/** What clones are made of: a stored snapshot, or one that only this fork knows. */
export interface Origin {
  record: SnapshotRecord;
  /** Whose image is kept: the snapshot's or the VM's. */
  owner: string;
  /** Directory with its files. */
  dir: string;
  /** Held while VMs are made of it, alone while its memory is made shareable. */
  lock: SharedMutex;
  /** Make sure that its files are there and whole. @param memory also those of its memory */
  verify: (memory: boolean) => Promise<void>;
  image: () => Promise<MemoryImage>;
  /** Whether the memory is in a file that VMs map, rather than in a stream that each of them reads. */
  isShareable: () => boolean;
  /** Take note of memory files in `draft` that VMs can share; with the lock held alone. */
  shared: (draft: string) => Promise<void>;
}

/** One call that makes clones. */
class Cloning {
  private readonly sandboxes: Sandboxes;
  private readonly origin: Origin;
  private readonly request: CloneRequest;
  private readonly cold: boolean;

  constructor(sandboxes: Sandboxes, origin: Origin, request: CloneRequest) {
    this.sandboxes = sandboxes;
    this.origin = origin;
    this.request = request;
    this.cold = request.cold || !origin.record.memory;
  }

  /** Refuse what cannot be, before anything is made. @returns why this driver */
  private async check(): Promise<string> {
    const { record } = this.origin;
    const { stages } = this.sandboxes;
    checkFixed(record, this.request);
    await checkOutside(record, !this.cold, stages);
    const driver = stages.driver(record.driver);
    checkIsolation(driver, this.request.isolation, record.card);
    const { reason } = await stages.chooseDriver(record.driver);
    if (!this.cold) {
      const fix = `Boot a VM from its disk instead: vmsan create --snapshot ${record.id} --cold.`;
      checkMachine(record.id, record.machine, await driver.machine(), fix);
    }
    await this.origin.verify(!this.cold);
    return reason;
  }

  /** Make all, or none. */
  async run(work: Work, onId: (id: string) => void): Promise<VmView[]> {
    const stop = new AbortController();
    const own: Work = { ...work, signal: AbortSignal.any([work.signal, stop.signal]) };
    const numbers = Array.from({ length: this.request.count }, (_, index) => index + 1);
    // By number, whichever is ready first.
    const views: (VmView | undefined)[] = [];
    const all = (): VmView[] => views.filter((view) => view !== undefined);
    let reason = "";
    let failure: unknown;
    const worker = async (): Promise<void> => {
      for (let next = numbers.shift(); next !== undefined; next = numbers.shift()) {
        if (failure !== undefined) return;
        try {
          views[next - 1] = await this.one(next, reason, own, onId);
        } catch (error) {
          failure ??= error;
          stop.abort(error);
          return;
        }
        const total = this.request.count;
        work.progress({ phase: "clone", done: all().length, total, unit: "entries" });
      }
    };
    const makeAll = async (): Promise<void> => {
      try {
        reason = await asPhase("check", async () => await this.check());
        // The first by itself: every other one would read for itself what it makes shareable.
        if (!this.cold && !this.origin.isShareable()) await this.onlyFirst(numbers, worker);
        await Promise.all(Array.from({ length: Math.min(AT_ONCE, numbers.length) }, worker));
      } catch (error) {
        failure ??= error;
      }
    };
    const { lock, isShareable } = this.origin;
    // Alone where files are replaced that others would be reading.
    if (this.cold || isShareable()) await lock.shared(makeAll);
    else await lock.alone(makeAll);
    if (failure === undefined) return all();
    for (const { id } of all()) await this.sandboxes.remove(id, true);
    throw failure;
  }

  private async onlyFirst(numbers: number[], worker: () => Promise<void>): Promise<void> {
    const rest = numbers.splice(1);
    await worker();
    numbers.push(...rest);
  }

  private async one(
    number: number,
    reason: string,
    work: Work,
    onId: (id: string) => void,
  ): Promise<VmView> {
    const { name, count } = this.request;
    const { record } = this.origin;
    const named = name === undefined || count === 1 ? name : parseName(`${name}-${number}`);
    return await this.sandboxes.make(
      {
        name: named,
        networks: networksOf(record, this.request),
        secrets: { requests: this.request.secrets ?? [] },
        record: (id, dir) => cloneRecord(id, dir, named, record, this.request, reason),
        bringUp: (vm, making) => (this.cold ? this.boot(vm, making) : this.restore(vm, making)),
      },
      work,
      onId,
    );
  }

  /** Give a VM the disks of the snapshot. */
  private async giveDisks(vm: VmRecord, signal: AbortSignal): Promise<void> {
    const { stages } = this.sandboxes;
    const { diskLayers } = stages.driver(vm.driver).capabilities;
    const { record, dir, owner } = this.origin;
    vm.spec.disks = await giveDisks(record.disks, dir, vm.spec.dir, diskLayers, signal);
    await stages.shareBase(owner, vm.id);
  }

  /** A VM that boots from the snapshot's disks. */
  private async boot(vm: VmRecord, work: Work): Promise<LiveGuest> {
    const { stages, records } = this.sandboxes;
    await this.giveDisks(vm, work.signal);
    await attachVolumes(vm, stages.volumes, work.signal);
    setBootFiles(vm.spec, await stages.bootFiles(vm.kernelFile, work));
    await records.save(vm);
    return await bringUp(vm, await records.token(vm.id), stages, work, () => records.save(vm));
  }

  /** A VM that goes on where the snapshot was taken. */
  private async restore(vm: VmRecord, work: Work): Promise<LiveGuest> {
    const { stages, records, log } = this.sandboxes;
    vm.mending = "clone";
    return await bringBack({
      record: vm,
      token: await records.token(vm.id),
      stages,
      work,
      log,
      image: async () => {
        // Once more, now that it holds its volumes: from here on nobody writes to them.
        await checkOutside(this.origin.record, true, stages);
        await this.giveDisks(vm, work.signal);
        return await this.origin.image();
      },
      loaded: async (running) => {
        if (this.request.count > 1 || this.origin.record.files.length > 0)
          await this.share(running);
      },
      save: () => records.save(vm),
    });
  }

  /** Write memory that was a stream once more, as a file that VMs can map. */
  private async share(running: RunningVm): Promise<void> {
    if (this.origin.isShareable()) return;
    const draft = join(this.origin.dir, "sharing");
    await rm(draft, { recursive: true, force: true });
    await mkdir(draft, { mode: 0o700 });
    await running.snapshot(memoryPaths(draft), "full");
    await this.origin.shared(draft);
  }
}

/**
 * Make VMs of a snapshot: all that are asked for, or none.
 * @param onId called with each VM's ID before anything else is done
 */
export async function makeClones(
  sandboxes: Sandboxes,
  origin: Origin,
  request: CloneRequest,
  work: Work,
  onId: (id: string) => void,
): Promise<VmView[]> {
  return await new Cloning(sandboxes, origin, request).run(work, onId);
}
