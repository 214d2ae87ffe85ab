/** What is mounted into a guest besides its root: checked before anything starts, attached, told to the agent. */
import { posix } from "node:path";
import type { GuestMount } from "../../agent/config.ts";
import { lookup } from "../../ext4/reading/lookup.ts";
import type { Found } from "../../ext4/reading/lookup.ts";
import { VmsanError } from "../../model/errors.ts";
import type { BindMount, Mount, VolumeMount } from "../../model/mount.ts";
import type { DiskAttachment, VmRecord } from "../../model/vm.ts";
import { isVolume } from "../../snapshots/disks.ts";
import { checkMounts, parseTarget } from "../../util/mounts.ts";
import type { VolumeStore } from "../../volumes/store.ts";

/** What has mounts: a VM, a snapshot, a request. */
export interface Mounting {
  mounts?: readonly Mount[];
}

/** The volumes that a VM mounts as disks, without its own copies of some. */
export function volumesOf({ mounts = [] }: Mounting): VolumeMount[] {
  return mounts.filter(
    (mount) => mount.kind === "volume" && mount.copy !== true && mount.shared !== true,
  ) as VolumeMount[];
}

/** The shared volumes that a VM mounts. */
export function sharedOf({ mounts = [] }: Mounting): VolumeMount[] {
  return mounts.filter(
    (mount) => mount.kind === "volume" && mount.shared === true,
  ) as VolumeMount[];
}

/** The directories of the host that a VM shares. */
export function bindsOf({ mounts = [] }: Mounting): BindMount[] {
  return mounts.filter((mount) => mount.kind === "bind");
}

/** What a file server serves to a VM, in the order in which both name it by number. */
export function servedOf({ mounts = [] }: Mounting): (BindMount | VolumeMount)[] {
  return mounts.filter(
    (mount) => mount.kind === "bind" || (mount.kind === "volume" && mount.shared === true),
  ) as (BindMount | VolumeMount)[];
}

/**
 * Mounts with what their volumes are now: disks, or shared directories of the host. One that is not there yet becomes a disk.
 * @throws ERR_VOLUME_PART
 */
export async function withKinds(mounts: readonly Mount[], store: VolumeStore): Promise<Mount[]> {
  const known: Mount[] = [];
  for (const mount of mounts) {
    if (mount.kind !== "volume" || mount.copy === true) {
      known.push(mount);
      continue;
    }
    const { shared: _shared, file: _file, ...rest } = mount;
    const { name, part } = mount;
    const shared = await store.isShared(name);
    const file = shared && part !== undefined && (await store.isFile(name, part));
    known.push({ ...rest, ...(shared && { shared }), ...(file && { file }) });
  }
  return known;
}

/** A place in the image at which nothing can be mounted. */
function badTarget(target: string, why: string, fix: string): VmsanError {
  return new VmsanError({
    code: "ERR_MOUNT_TARGET",
    message: `Cannot mount anything at ${target}`,
    why,
    fix,
  });
}

/** How many links may lead to a place. */
const MOST_LINKS = 40;

/** Where a place of the image is once its links are followed, and what is there. @throws ERR_MOUNT_TARGET, ERR_VALIDATION_MOUNT */
function behindLinks(rootfs: string, { target, kind }: Mount): { place: string; found?: Found } {
  let place = target;
  for (let links = 0; links < MOST_LINKS; links += 1) {
    const found = lookup(rootfs, place);
    if (found?.kind !== "symlink") {
      const known = found === undefined ? {} : { found };
      return { place: place === target ? target : parseTarget(place, kind), ...known };
    }
    const { path, target: leads } = found;
    // What is on the way to a link are directories: `..` in it is the one above.
    place = posix.join(posix.resolve(posix.dirname(path), leads), place.slice(path.length));
  }
  throw badTarget(target, "Links of the image lead from it in a circle.", "Name another place.");
}

/**
 * Mounts at the places where links of the image lead, as `/run` for `/var/run`: guests mount nothing through a link. Refuse
 * places that are no directories of the image; files are mounted over files, and go where links lead in the guest, as
 * `/etc/localtime` does.
 * @param rootfs the image's disk; one that is not of our making is left to the guest
 * @throws ERR_MOUNT_TARGET, ERR_VALIDATION_MOUNT
 */
export function placeMounts(rootfs: string, mounts: readonly Mount[]): Mount[] {
  const placed = mounts.map((mount) => {
    const { target } = mount;
    if (mount.kind === "bind" && mount.file === true) {
      const found = lookup(rootfs, target);
      if (found?.kind !== "directory" || found.path !== target) return mount;
      throw badTarget(
        target,
        "It is a directory of the image, and what is shared is a file.",
        "Name the file itself: the directory, a slash, the file's name.",
      );
    }
    const { place, found } = behindLinks(rootfs, mount);
    if (found !== undefined && found.kind !== "directory") {
      throw badTarget(
        target,
        `${found.path} of the image is a ${found.kind}; only a directory can be mounted over.`,
        "Name a directory, or a path that is not there yet.",
      );
    }
    return place === target ? mount : { ...mount, target: place };
  });
  return checkMounts(placed);
}

/**
 * The disks of a VM, those of its volumes anew; its kernel's come last. Shared volumes of a new VM are filled from its image.
 * @throws ERR_VOLUME_*
 */
export async function attachVolumes(
  record: VmRecord,
  store: VolumeStore,
  signal: AbortSignal,
): Promise<void> {
  if (record.mounts !== undefined) record.mounts = await withKinds(record.mounts, store);
  const served = servedOf(record).length > 0;
  if (served) record.spec.shares = true;
  else delete record.spec.shares;
  const image = record.spec.disks.find(({ role }) => role === "base" || role === "root");
  for (const { name, target, readonly, nocopy, part } of sharedOf(record)) {
    const first = record.startedAt === undefined && !readonly && !nocopy && part === undefined;
    if (first && image !== undefined) await store.fill(name, image.path, target, signal);
  }
  const disks: DiskAttachment[] = [];
  for (const { name, readonly } of volumesOf(record)) {
    const { path, label, needsRecovery } = await store.disk(name, readonly);
    if (readonly && needsRecovery) throw unrecovered(name);
    disks.push({ role: "data", path, readonly, volume: { name, label } });
  }
  const { spec } = record;
  const others = spec.disks.filter((disk) => !isVolume(disk));
  const last = others.filter(({ role }) => role === "modules");
  spec.disks = [...others.filter((disk) => !last.includes(disk)), ...disks, ...last];
}

/** A volume whose journal must be played back first. */
function unrecovered(name: string): VmsanError {
  return new VmsanError({
    code: "ERR_VOLUME_RECOVERY",
    message: `Cannot mount the volume ${name} read-only`,
    why: "Its last writer was killed, and its journal can be played back only by one that may write.",
    fix: `Mount it once for writing: vmsan run -v ${name}:/mnt base true`,
  });
}

/** Places that the image wants kept apart, without those that cannot be and those the user has filled. */
function imageVolumes(record: VmRecord): string[] {
  const taken = new Set((record.mounts ?? []).map(({ target }) => target));
  const targets = new Set<string>();
  for (const text of record.image?.config.volumes ?? []) {
    try {
      targets.add(parseTarget(text));
    } catch {
      // An image may say anything; what is no place in a guest is none.
    }
  }
  return [...targets].filter((target) => !taken.has(target));
}

/**
 * What the agent is to mount, outer places first.
 * @param first whether the VM has never run: only then are volumes filled
 */
export function guestMounts(record: VmRecord, first: boolean): GuestMount[] {
  const mounts: GuestMount[] = imageVolumes(record).map((target) => ({
    kind: "own",
    target,
    optional: true,
  }));
  for (const mount of record.mounts ?? []) {
    if (mount.kind === "anonymous" || mount.kind === "tmpfs") {
      const { readonly, ...rest } = mount;
      const kind = mount.kind === "tmpfs" ? "tmpfs" : "own";
      mounts.push({ ...rest, kind, ...(readonly === true ? { readOnly: true } : {}) });
    }
    if (mount.kind !== "volume" || mount.shared === true) continue;
    const disk = record.spec.disks.find(({ volume }) => volume?.name === mount.name);
    mounts.push({
      kind: "volume",
      target: mount.target,
      label: disk?.volume?.label ?? "",
      readOnly: mount.readonly,
      ...(mount.part === undefined ? {} : { part: mount.part }),
      // What the image has is no part of a volume's.
      fill: first && !mount.nocopy && mount.part === undefined,
    });
  }
  const depth = ({ target }: GuestMount): number => target.split("/").length;
  return mounts.toSorted((a, b) => depth(a) - depth(b));
}
