/** Volumes as the API shows them: joined with the VMs that use them. */
import type { Readable } from "node:stream";
import { PROJECT_LABEL } from "../model/volume.ts";
import type { VolumePrune, VolumeRecord, VolumeRequest, VolumeView } from "../model/volume.ts";
import type { VolumeStore } from "../volumes/store.ts";
import { Mutex } from "../util/flow/mutex.ts";
import { volumeHolders, volumeInUse, volumeUsers } from "./records/volume-users.ts";
import type { Sandboxes } from "./sandboxes.ts";
import { growRunning } from "./update.ts";

/** The volumes' public face; the daemon serves exactly this. */
export class Volumes {
  private readonly sandboxes: Sandboxes;
  private readonly store: VolumeStore;
  /** One change at a time. */
  private readonly turn = new Mutex();

  constructor(sandboxes: Sandboxes) {
    this.sandboxes = sandboxes;
    this.store = sandboxes.stages.volumes;
  }

  private async view(record: VolumeRecord & { damaged?: string }): Promise<VolumeView> {
    const { name, createdAt, labels, damaged, shared } = record;
    const entries = [...this.sandboxes.entries.values()];
    const { records, written } = volumeHolders(entries, name);
    const held = written ? "written" : "read";
    return {
      name,
      createdAt,
      labels,
      ...(shared && { shared }),
      ...(await this.store.sizes(record)),
      usedBy: volumeUsers(entries, name).map((vm) => vm.name ?? vm.id),
      state: records.length === 0 ? "free" : held,
      ...(damaged === undefined ? {} : { damaged }),
    };
  }

  /** All volumes by name. */
  async list(): Promise<VolumeView[]> {
    const records = await this.store.list();
    return await Promise.all(records.map(async (record) => await this.view(record)));
  }

  /** One volume. @throws ERR_VOLUME_NOT_FOUND */
  async get(name: string): Promise<VolumeView> {
    return await this.view(await this.store.get(name));
  }

  /** Make a volume. @throws ERR_VOLUME_NAME_TAKEN */
  async create(request: VolumeRequest): Promise<VolumeView> {
    const made = await this.store.create(request);
    this.sandboxes.events.host("volume.created", { volume: made.name });
    return await this.view(made);
  }

  /** Remove a volume that no VM mounts, not even a stopped one. @throws ERR_VOLUME_IN_USE */
  async remove(name: string): Promise<void> {
    await this.turn.run(async () => {
      this.requireNoUsers(name);
      await this.store.remove(name);
      this.sandboxes.events.host("volume.removed", { volume: name });
    });
  }

  private requireNoUsers(name: string): void {
    const users = volumeUsers(this.sandboxes.entries.values(), name);
    if (users.length === 0) return;
    const fix = `Remove what uses it first: vmsan rm ${users.map((vm) => vm.name ?? vm.id).join(" ")}`;
    throw volumeInUse(`Cannot remove the volume ${name}`, users, "mounts it", fix);
  }

  /** Remove all volumes that no VM mounts, but for those of keys' projects, which are theirs to remove. */
  async prune(): Promise<VolumePrune> {
    return await this.turn.run(async () => {
      const report: VolumePrune = { volumes: [], freedBytes: 0 };
      for (const { name, labels } of await this.store.list()) {
        if (Object.hasOwn(labels, PROJECT_LABEL)) continue;
        if (volumeUsers(this.sandboxes.entries.values(), name).length > 0) continue;
        report.freedBytes += await this.store.remove(name);
        this.sandboxes.events.host("volume.removed", { volume: name });
        report.volumes.push(name);
      }
      return report;
    });
  }

  /**
   * Make a volume larger: one that nobody holds, or that a running VM writes to whose driver can; a shared one for VMs that start
   * from then on.
   * @throws ERR_VOLUME_IN_USE, ERR_VOLUME_SIZE, ERR_DRIVER_UNSUPPORTED
   */
  async grow(name: string, sizeBytes: number, signal: AbortSignal): Promise<VolumeView> {
    return await this.turn.run(async () => {
      const { records, written } = volumeHolders(this.sandboxes.entries.values(), name);
      const [writer] = records;
      if (await this.store.isShared(name)) {
        await this.store.grow(name, sizeBytes);
      } else if (written && writer !== undefined) {
        await this.store.checkGrowth(name, sizeBytes);
        await this.growWritten(name, writer.id, sizeBytes, signal);
      } else {
        this.requireNotHeld(name, `Cannot grow the volume ${name}`, true);
        await this.store.grow(name, sizeBytes);
      }
      return await this.get(name);
    });
  }

  /** Make a volume larger in the VM that writes to it. */
  private async growWritten(
    name: string,
    id: string,
    sizeBytes: number,
    signal: AbortSignal,
  ): Promise<void> {
    await this.sandboxes.exclusively(id, async (entry) => {
      const { spec, mounts } = entry.record;
      const index = spec.disks.findIndex(({ volume }) => volume?.name === name);
      const mount = mounts?.find((each) => each.kind === "volume" && each.name === name);
      const target = mount?.target ?? "";
      const disk = { index, what: `the volume ${name}`, target };
      await growRunning(this.sandboxes, entry, disk, sizeBytes, signal);
    });
  }

  /**
   * Make a volume that no VM holds a shared one, with what is in it; one that is shared already stays.
   * @throws ERR_VOLUME_IN_USE, ERR_VOLUME_SHARED, ERR_VOLUME_DAMAGED
   */
  async share(name: string, signal: AbortSignal): Promise<VolumeView> {
    return await this.turn.run(async () => {
      if (await this.store.isShared(name)) return await this.get(name);
      // From here to the store's own note of it nothing waits: who comes then is refused by that.
      this.requireNotHeld(name, `Cannot share the volume ${name}`, true);
      const record = await this.store.share(name, signal);
      this.sandboxes.events.host("volume.shared", { volume: name });
      return await this.view(record);
    });
  }

  /** Refuse a volume that VMs hold. @param readers also those that only read it */
  private requireNotHeld(name: string, message: string, readers: boolean): void {
    const { records, written } = volumeHolders(this.sandboxes.entries.values(), name);
    if (records.length === 0 || (!written && !readers)) return;
    const how = written ? "may write to it" : "reads it";
    throw volumeInUse(message, records, how, "Stop that VM first.");
  }

  /** A volume as one file. @throws ERR_VOLUME_IN_USE while a VM may write to it */
  async export(name: string): Promise<Readable> {
    this.requireNotHeld(name, `Cannot export the volume ${name}`, false);
    return await this.store.export(name);
  }

  /** Take in a volume that {@link export} has written. @throws ERR_VOLUME_ARCHIVE */
  async import(name: string, from: Readable, signal: AbortSignal): Promise<VolumeView> {
    const made = await this.store.import(name, from, signal);
    this.sandboxes.events.host("volume.created", { volume: name });
    return await this.view(made);
  }
}
