/**
 * Where a volume's content can be reached: in the sandbox that has it mounted, else in a small VM that the gateway
 * keeps for it while somebody asks, with nothing but the volume and no network. It goes with the gateway, however that
 * ends, and makes room for any sandbox that wants the volume.
 */
import { changeFile, statFile, syncFiles } from "../../../agent/files.ts";
import type { Vm } from "../../../client/vm.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import type { VmView } from "../../../model/api.ts";
import { VmsanError } from "../../../model/errors.ts";
import type { VolumeMount } from "../../../model/mount.ts";
import { Mutex } from "../../../util/flow/mutex.ts";
import type { Log } from "../../../util/log.ts";
import type { GatewayDriver } from "../../native/bodies.ts";
import { E2bError } from "../errors.ts";

/** Label of the VMs that are there for a volume's content alone: its name. */
const HELPER_LABEL = "vmsan.e2b.volume";
/** Where it is mounted in them. */
const HELPER_TARGET = "/mnt/volume";
/** Most of them at once, and of those for one project's volumes, so that none keeps others from theirs. */
const MAX_HELPERS = 16;
const MAX_OF_PROJECT = 4;
/** How long one is kept that nobody uses, in milliseconds. */
const IDLE_MS = 60_000;

/** A guest in which a volume is mounted. */
export interface Place {
  vm: Vm;
  /** Where in the guest. */
  root: string;
}

/** A volume whose content is asked for. */
export interface Wanted {
  name: string;
  /** Whose it is; those of no project count together. */
  project?: string;
}

interface Helper extends Place {
  project: string | undefined;
  users: number;
  idle?: NodeJS.Timeout;
}

/** How a VM mounts a volume itself, and no copy of it; undefined when it does not. */
function mountOf({ mounts }: VmView, volume: string): VolumeMount | undefined {
  return mounts.find(
    (mount): mount is VolumeMount =>
      mount.kind === "volume" && mount.name === volume && mount.copy !== true,
  );
}

/** The places of all volumes. */
export class VolumePlaces {
  private readonly vmsan: Vmsan;
  private readonly driver: GatewayDriver;
  private readonly log: Log;
  /** Whoever starts or ends a VM with a volume is alone with it meanwhile. */
  private readonly turns = new Map<string, Mutex>();
  private readonly helpers = new Map<string, Helper>();
  /** Projects of helpers that are being made, one each. */
  private readonly starting: (string | undefined)[] = [];
  private closed = false;

  constructor(vmsan: Vmsan, driver: GatewayDriver, log: Log) {
    this.vmsan = vmsan;
    this.driver = driver;
    this.log = log;
  }

  private turn(volume: string): Mutex {
    const known = this.turns.get(volume);
    if (known !== undefined) return known;
    const made = new Mutex();
    this.turns.set(volume, made);
    return made;
  }

  /**
   * Work where a volume's content is.
   * @throws failed_precondition while somebody holds it who cannot be asked
   */
  async use<T>(volume: Wanted, work: (place: Place) => Promise<T>): Promise<T> {
    const place = await this.turn(volume.name).run(async () => await this.place(volume));
    try {
      return await work(place);
    } finally {
      if ("users" in place) this.leave(volume.name, place);
    }
  }

  /** As {@link use}, for work that changes something: all of it is on the volume's disk when this resolves. */
  async change<T>(volume: Wanted, work: (place: Place) => Promise<T>): Promise<T> {
    return await this.use(volume, async (place) => {
      const result = await work(place);
      await syncFiles(place.vm.transport, place.root);
      return result;
    });
  }

  /**
   * Work while no VM of the gateway's own holds these volumes.
   * @throws failed_precondition while their content is being read or written there
   */
  async without<T>(volumes: readonly string[], work: () => Promise<T>): Promise<T> {
    // In one order for everybody, so that no two wait for each other.
    const [first, ...rest] = [...new Set(volumes)].toSorted();
    if (first === undefined) return await work();
    return await this.turn(first).run(async () => {
      await this.vacate(first);
      return await this.without(rest, work);
    });
  }

  /** End all VMs that are there for volumes alone. */
  async close(): Promise<void> {
    this.closed = true;
    await Promise.all([...this.helpers.keys()].map(async (volume) => await this.end(volume)));
  }

  /** Where a volume's content is; of a helper one more user. */
  private async place(wanted: Wanted): Promise<Place | Helper> {
    const volume = wanted.name;
    const known = this.helpers.get(volume);
    if (known !== undefined) {
      clearTimeout(known.idle);
      // At once: one that nobody uses makes room for another.
      known.users += 1;
      try {
        if ((await known.vm.refresh()).status === "running") return known;
      } catch (error) {
        if (!(error instanceof VmsanError) || error.code !== "ERR_VM_NOT_FOUND") {
          this.leave(volume, known);
          throw error;
        }
      }
      await this.end(volume);
    }
    for (const view of await this.vmsan.list()) {
      const mount = mountOf(view, volume);
      if (mount === undefined || view.status === "stopped" || view.status === "error") continue;
      if (view.status !== "running" || mount.readonly) throw held(view);
      return { vm: await this.vmsan.get(view.id), root: mount.target };
    }
    return await this.start(wanted);
  }

  private async start(wanted: Wanted): Promise<Helper> {
    const helper = await this.make(wanted);
    if (this.closed) {
      await this.end(wanted.name);
      throw new E2bError("unavailable", "the gateway is ending");
    }
    try {
      await openRoot(helper);
      return helper;
    } catch (error) {
      // It may do better for the next one; when nobody comes it goes, too.
      this.leave(wanted.name, helper);
      throw error;
    }
  }

  /**
   * Have one that nobody uses make room, if there are as many as there may be of those that count.
   * @throws resource_exhausted when all of them are in use
   */
  private makeRoom(
    most: number,
    counts: (project: string | undefined) => boolean,
    whose = "",
  ): Promise<void> | undefined {
    const counted = [...this.helpers].filter(([, { project }]) => counts(project));
    if (counted.length + this.starting.filter(counts).length < most) return undefined;
    const unused = counted.find(([, { users }]) => users === 0);
    if (unused !== undefined) return this.end(unused[0]);
    const why = `the content of ${most} volumes${whose} is in use already`;
    throw new E2bError("resource_exhausted", why);
  }

  /** Make a helper, within their number. @throws resource_exhausted */
  private async make({ name: volume, project }: Wanted): Promise<Helper> {
    const left =
      this.makeRoom(MAX_OF_PROJECT, (other) => other === project, " of this project") ??
      this.makeRoom(MAX_HELPERS, () => true);
    // Before anything is waited for: others that come meanwhile find the place taken.
    this.starting.push(project);
    try {
      await left;
      const vm = await this.vmsan.create({
        runtime: "base",
        memory: 256,
        driver: this.driver,
        user: "root",
        labels: { [HELPER_LABEL]: volume },
        mounts: [
          { kind: "volume", name: volume, target: HELPER_TARGET, readonly: false, nocopy: true },
        ],
        networkPolicy: "none",
        ephemeral: true,
      });
      const helper = { vm, root: HELPER_TARGET, project, users: 1 };
      this.helpers.set(volume, helper);
      return helper;
    } finally {
      this.starting.splice(this.starting.indexOf(project), 1);
    }
  }

  private leave(volume: string, helper: Helper): void {
    helper.users -= 1;
    if (helper.users > 0 || this.helpers.get(volume) !== helper) return;
    helper.idle = setTimeout(() => {
      void this.turn(volume).run(async () => {
        if (helper.users === 0 && this.helpers.get(volume) === helper) await this.end(volume);
      });
    }, IDLE_MS);
    helper.idle.unref();
  }

  private async vacate(volume: string): Promise<void> {
    const helper = this.helpers.get(volume);
    if (helper !== undefined && helper.users > 0)
      throw new E2bError("failed_precondition", "the volume's content is in use", 409);
    await this.end(volume);
    // Of another gateway, whose next call waits for whoever has it now.
    for (const view of await this.vmsan.list())
      if (view.labels[HELPER_LABEL] === volume) await this.vmsan.remove(view.id, { force: true });
  }

  private async end(volume: string): Promise<void> {
    const helper = this.helpers.get(volume);
    if (helper === undefined) return;
    clearTimeout(helper.idle);
    this.helpers.delete(volume);
    try {
      // By itself, so that its file system is whole for those who only read.
      await helper.vm.stop();
      await helper.vm.remove();
    } catch (error) {
      if (error instanceof VmsanError && error.code === "ERR_VM_NOT_FOUND") return;
      this.log.error(`cannot remove the VM of the volume ${volume}`, error);
    }
  }
}

/** The refusal of a volume that somebody holds. */
function held({ id, status }: VmView): E2bError {
  return new E2bError(
    "failed_precondition",
    `the volume is held by ${id}, which is ${status}`,
    409,
  );
}

/** How long a guest that is to end has to write its volumes out, in milliseconds. */
const SYNC_MS = 10_000;

/** Have the volumes of a VM written out before it is ended by force; one that cannot is ended all the same. */
export async function settleVolumes({ view, transport }: Vm): Promise<void> {
  const signal = AbortSignal.timeout(SYNC_MS);
  for (const { target } of view.status === "running" ? view.mounts : []) {
    // A guest that hangs, or is none any more, keeps nobody from removing it.
    await syncFiles(transport, target, { signal }).catch(() => undefined);
  }
}

/**
 * Let everybody in the guest write into a volume that nobody has opened so far, as clients expect who are no root
 * there. One whose owner or mode somebody has chosen stays.
 */
export async function openRoot({ vm, root }: Place): Promise<void> {
  const { uid, mode } = await statFile(vm.transport, root);
  if (uid === 0 && mode === 0o755) await changeFile(vm.transport, root, { mode: 0o777 });
}
