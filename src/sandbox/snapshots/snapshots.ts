/** Snapshots of the VMs of one VMSAN_DIR: taken, listed, made into VMs. */
import { stat } from "node:fs/promises";
import { isAbsolute, join } from "node:path";
import type { Readable } from "node:stream";
import type {
  CloneRequest,
  ResourceUser,
  SnapshotPrune,
  SnapshotRequest,
  SnapshotView,
  VmView,
} from "../../model/api.ts";
import { VmsanError, messageOf } from "../../model/errors.ts";
import type { SnapshotRecord } from "../../model/snapshot.ts";
import type { DiskAttachment, VmRecord } from "../../model/vm.ts";
import { parseSnapshotRecord } from "../../schema/state.ts";
import { capture, type Captured } from "../../snapshots/capture.ts";
import { isOwn, isVolume, keepDisk, withLayer } from "../../snapshots/disks.ts";
import { SnapshotStore, memoryPaths, readMemoryImage } from "../../snapshots/store.ts";
import { asPhase } from "../../util/flow/phases.ts";
import { SharedMutex } from "../../util/flow/shared-mutex.ts";
import type { Entry } from "../records/entry.ts";
import { notRunning } from "../refusals.ts";
import type { Sandboxes } from "../sandboxes.ts";
import type { Work } from "../stages.ts";
import { exportSnapshot, importSnapshot } from "./archive.ts";
import { makeClones } from "./clones.ts";
import { checkOutside, requireNoShares } from "./outside.ts";
import { rollBack } from "./rollback.ts";
import { Sleep } from "./sleep.ts";
import { describeVm, viewOfSnapshot } from "./record.ts";

/** Disks of a VM that nobody writes to, in a directory that goes when the work with them is done. */
export interface FrozenDisks {
  record: VmRecord;
  /** With absolute paths. */
  disks: DiskAttachment[];
  /** For files of whoever works with them. */
  dir: string;
}

/** The snapshots' public face; the daemon serves exactly this. */
export class Snapshots {
  private readonly sandboxes: Sandboxes;
  /** VMs that sleep. */
  readonly sleep: Sleep;
  private readonly store: SnapshotStore;

  /** @param dir where they are stored */
  constructor(sandboxes: Sandboxes, dir: string) {
    this.sandboxes = sandboxes;
    this.store = new SnapshotStore(dir, parseSnapshotRecord);
    this.sleep = new Sleep(sandboxes);
    sandboxes.otherUsers = () => this.users();
  }

  /** Read what is stored. */
  async recover(): Promise<void> {
    const { stages } = this.sandboxes;
    for (const { id, why } of await this.store.load((id) => stages.releaseBase(id))) {
      this.sandboxes.log.error(`${id}: its record cannot be read: ${why}`);
    }
  }

  /** All snapshots, oldest first. */
  async list(): Promise<SnapshotView[]> {
    return await Promise.all(this.store.list().map(async (record) => await this.view(record)));
  }

  /** A snapshot by its ID or name. @throws ERR_VM_SNAPSHOT_NOT_FOUND */
  async get(ref: string): Promise<SnapshotView> {
    return await this.view(this.store.get(ref));
  }

  private async view(record: SnapshotRecord): Promise<SnapshotView> {
    const users = this.sandboxes.list().filter(({ snapshot }) => snapshot === record.id);
    return viewOfSnapshot(
      record,
      await this.store.sizes(record),
      users.map(({ id, name }) => name ?? id),
    );
  }

  /** What snapshots need of the store: as VMs do. */
  users(): ResourceUser[] {
    return this.store.list().map(({ id, name, kernel, disks, image, memory }) => ({
      id,
      name: name ?? id,
      // A disk alone boots with any kernel.
      kernel: memory ? kernel.path : "",
      rootfs: disks[0]?.path ?? "",
      ...(image === undefined ? {} : { image }),
    }));
  }

  /**
   * Take a snapshot of a VM: running, with its memory; stopped, of its disk.
   * @throws ERR_VM_SNAPSHOT_CREATE_FAILED, ERR_VM_NAME_TAKEN …; the VM goes on in every case
   */
  async create(ref: string, request: SnapshotRequest, work: Work): Promise<SnapshotView> {
    this.requireFreeName(request.name);
    return await this.sandboxes.exclusively(ref, async (entry) => {
      this.requireFreeName(request.name);
      const { id, draft } = await this.store.begin();
      try {
        const memory = request.memory && entry.guest !== undefined;
        if (request.memory && !memory) throw notRunning(ref, entry.record);
        const about = {
          id,
          ...(request.name === undefined ? {} : { name: request.name }),
          memory,
        };
        const machine = await this.sandboxes.stages.driver(entry.record.driver).machine();
        const taken = await this.take(entry, ref, draft, { ...request, memory }, work);
        await this.sandboxes.stages.shareBase(entry.record.id, id);
        const whole = {
          ...describeVm(entry.record, machine, about),
          // What boots from disks alone boots any kernel, with that one's modules, and knows of no volumes.
          disks: taken.disks.filter(
            (disk) => memory || (!isVolume(disk) && disk.role !== "modules"),
          ),
          pauseMs: taken.pauseMs,
        };
        const record = await asPhase("store", async () => await this.store.commit(draft, whole));
        const { name, pauseMs } = record;
        const told = { snapshot: id, name, memory, pauseMs };
        this.sandboxes.events.vm("snapshot.created", entry.record, told);
        return await this.view(record);
      } catch (error) {
        await this.sandboxes.stages.releaseBase(id);
        await this.store.discard(draft);
        throw snapshotFailed(ref, error);
      }
    });
  }

  /**
   * Work with a VM's disks as they are at one instant, for which its work stands still. It goes on,
   * whatever becomes of the work with them, and nothing of that is kept.
   */
  async withDisks<T>(
    ref: string,
    work: Work,
    body: (disks: FrozenDisks) => Promise<T>,
  ): Promise<T> {
    const { draft } = await this.store.begin();
    try {
      const frozen = await this.sandboxes.exclusively(ref, async (entry) => {
        const taken = await this.take(entry, ref, draft, { memory: false, resume: true }, work);
        return { record: structuredClone(entry.record), disks: taken.disks };
      });
      const inDraft = (path: string): string => (isAbsolute(path) ? path : join(draft, path));
      const disks = frozen.disks.map((disk) => ({
        ...disk,
        path: inDraft(disk.path),
        ...(disk.backing === undefined ? {} : { backing: disk.backing.map(inDraft) }),
      }));
      return await body({ record: frozen.record, disks, dir: draft });
    } finally {
      await this.store.discard(draft);
    }
  }

  /** Take what a snapshot consists of into a directory; with the entry's turn. */
  private async take(
    entry: Entry,
    ref: string,
    into: string,
    what: { memory: boolean; resume: boolean },
    work: Work,
  ): Promise<Captured> {
    const { record, guest } = entry;
    const { sandboxes } = this;
    work.progress({ phase: "snapshot", message: what.memory ? "memory and disk" : "disk" });
    if (guest === undefined) return await this.takeDisks(record, into);
    if (record.status === "paused" && record.held !== true) throw notRunning(ref, record);
    const { capabilities } = sandboxes.stages.driver(record.driver);
    const halted = record.status === "paused";
    let whole = false;
    try {
      const taken = await capture(guest, {
        spec: record.spec,
        into,
        memory: what.memory,
        token: await sandboxes.records.token(record.id),
        shares: sandboxes.stages.shares.known(record),
        layers: capabilities.diskLayers,
        halt: !what.resume,
        halted,
        onHold: async (disks) => {
          record.spec.disks = disks;
          record.held = true;
          await sandboxes.records.save(record);
        },
        signal: work.signal,
      });
      whole = true;
      return taken;
    } finally {
      if (halted || (whole && !what.resume)) record.status = "paused";
      else delete record.held;
      await sandboxes.records.save(record);
    }
  }

  /** The disks of a VM that does not run. */
  private async takeDisks(record: VmRecord, into: string): Promise<Captured> {
    const kept: DiskAttachment[] = [];
    const { diskLayers } = this.sandboxes.stages.driver(record.driver).capabilities;
    const { spec } = record;
    for (const [index, disk] of spec.disks.entries()) {
      if (!isOwn(disk)) {
        kept.push(disk);
        continue;
      }
      if (diskLayers) {
        const before = spec.disks[index] ?? disk;
        spec.disks[index] = await withLayer(before, spec.dir);
        await this.sandboxes.records.save(record);
        kept.push(await keepDisk(before, index, into, "overlay"));
      } else kept.push(await keepDisk(disk, index, into, "copy"));
    }
    return { disks: kept, pauseMs: 0 };
  }

  /**
   * Make VMs of a snapshot.
   * @param onId called with each VM's ID before anything else is done
   * @throws ERR_SNAPSHOT_DAMAGED, ERR_SNAPSHOT_INCOMPATIBLE, ERR_SNAPSHOT_FIXED; no VM is left then
   */
  async clone(
    ref: string,
    request: CloneRequest,
    work: Work,
    onId: (id: string) => void,
  ): Promise<VmView[]> {
    const record = this.store.get(ref);
    const dir = this.store.dir(record.id);
    return await makeClones(
      this.sandboxes,
      {
        record,
        owner: record.id,
        dir,
        lock: this.store.lockOf(record.id),
        verify: async (memory) => {
          const now = this.store.get(record.id);
          await this.store.verify(memory ? now : withoutMemory(now));
        },
        image: () => this.store.memoryOf(this.store.get(record.id)),
        isShareable: () => this.store.isShareable(record.id),
        shared: async (draft) => void (await this.store.replaceMemory(record.id, draft)),
      },
      request,
      work,
      onId,
    );
  }

  /** Take a VM back to a snapshot of it; see rollback.ts. */
  async restore(ref: string, snapshotRef: string, work: Work): Promise<VmView> {
    const { sandboxes, sleep, store } = this;
    return await rollBack({ sandboxes, sleep, store }, ref, snapshotRef, work);
  }

  /** Make VMs of a running one; nothing else is left of it. */
  async fork(
    ref: string,
    request: CloneRequest,
    work: Work,
    onId: (id: string) => void,
  ): Promise<VmView[]> {
    const entry = this.sandboxes.find(ref);
    const { id, draft } = await this.store.begin();
    try {
      const record = await entry.mutex.run(async () => {
        if (entry.guest === undefined) throw notRunning(ref, entry.record);
        const machine = await this.sandboxes.stages.driver(entry.record.driver).machine();
        const taken = await this.take(entry, ref, draft, { memory: true, resume: true }, work);
        const about = describeVm(entry.record, machine, { id, memory: true });
        return { ...about, ...taken, files: [] };
      });
      const { parent, ...rest } = record;
      let image = await readMemoryImage(draft);
      let shareable = (await stat(image.files.memory)).size > 0;
      const views = await makeClones(
        this.sandboxes,
        {
          // What is forgotten at once is nobody's parent.
          record: { ...rest, id: parent ?? "" },
          owner: entry.record.id,
          dir: draft,
          lock: new SharedMutex(),
          verify: async () => await Promise.resolve(),
          image: async () => await Promise.resolve(image),
          isShareable: () => shareable,
          shared: async (made) => {
            shareable = true;
            image = { ...image, files: memoryPaths(made) };
            await Promise.resolve();
          },
        },
        request,
        work,
        onId,
      );
      this.sandboxes.events.vm("vm.forked", entry.record, { made: views.map((view) => view.id) });
      return views;
    } finally {
      await this.store.discard(draft);
    }
  }

  /**
   * Remove snapshots that no VM was made of and that have no name; with `all`, also named ones.
   * @returns what was removed, and the bytes that it took
   */
  async prune(all: boolean): Promise<SnapshotPrune> {
    const report: SnapshotPrune = { snapshots: [], freedBytes: 0 };
    for (const { id } of this.store.list()) {
      await this.store.lockOf(id).alone(async () => {
        // Somebody else may have removed it, or made a VM of it, while this waited.
        const record = this.store.list().find((one) => one.id === id);
        if (record === undefined) return;
        const { usedBy, name, sizes } = await this.view(record);
        if (usedBy.length > 0 || (name !== undefined && !all)) return;
        await this.forget(record);
        report.snapshots.push(id);
        report.freedBytes += sizes.stored - sizes.shared;
      });
    }
    return report;
  }

  /**
   * Write a snapshot as one file, with everything that another host needs.
   * @returns a stream of the archive
   * @throws ERR_SNAPSHOT_SHARES, ERR_SNAPSHOT_VOLUME
   */
  async export(ref: string): Promise<Readable> {
    const { id } = this.store.get(ref);
    return await this.store.lockOf(id).shared(async () => {
      const record = this.store.get(id);
      requireNoShares(record);
      await this.store.verify(record);
      await checkOutside(record, record.memory, this.sandboxes.stages);
      return await exportSnapshot(this.store, record);
    });
  }

  /**
   * Take in a snapshot that {@link export} has written.
   * @param name instead of the one it had
   * @throws ERR_SNAPSHOT_ARCHIVE
   */
  async import(from: Readable, name: string | undefined, work: Work): Promise<SnapshotView> {
    const record = await importSnapshot(this.store, from, work.signal, (read) => {
      const wanted = name ?? read.name;
      this.requireFreeName(wanted);
      const { name: _old, ...rest } = read;
      return { ...rest, ...(wanted === undefined ? {} : { name: wanted }) };
    });
    this.sandboxes.events.host("snapshot.created", { snapshot: record.id, name: record.name });
    return await this.view(record);
  }

  /** Remove a snapshot, once no VM is being made of it any more. VMs made from it stay as they are. */
  async remove(ref: string): Promise<void> {
    const { id } = this.store.get(ref);
    await this.store.lockOf(id).alone(async () => await this.forget(this.store.get(id)));
  }

  /** Remove a snapshot; with its lock held alone. */
  private async forget({ id, name }: SnapshotRecord): Promise<void> {
    await this.store.remove(id, (gone) => this.sandboxes.stages.releaseBase(gone));
    this.sandboxes.events.host("snapshot.removed", { snapshot: id, name });
  }

  private requireFreeName(name: string | undefined): void {
    if (name === undefined) return;
    const other = this.store.list().find((record) => record.name === name);
    if (other === undefined) return;
    throw new VmsanError({
      code: "ERR_SNAPSHOT_NAME_TAKEN",
      message: `Cannot name a snapshot ${name}`,
      why: `${other.id} has that name.`,
      fix: `Choose another name, or remove that one: vmsan snapshot rm ${name}`,
    });
  }
}

/** A snapshot's disks alone. */
function withoutMemory(record: SnapshotRecord): SnapshotRecord {
  return { ...record, files: record.files.filter(({ name }) => name.startsWith("disk")) };
}

/** The error of a snapshot that was not made. */
function snapshotFailed(ref: string, error: unknown): unknown {
  if (error instanceof VmsanError) return error;
  return new VmsanError(
    {
      code: "ERR_VM_SNAPSHOT_CREATE_FAILED",
      message: `Cannot take a snapshot of ${ref}`,
      why: messageOf(error),
      fix: "The VM goes on. Free some space with `vmsan snapshot prune` or `vmsan image prune`.",
    },
    error,
  );
}
