/** What is mounted into a guest besides its root: checked before anything starts, attached, told to the agent. */
import type { GuestMount } from "../../agent/config.ts";
import { lookup } from "../../ext4/reading/lookup.ts";
import { VmsanError } from "../../model/errors.ts";
import type { BindMount, Mount, VolumeMount } from "../../model/mount.ts";
import type { DiskAttachment, VmRecord } from "../../model/vm.ts";
import { isVolume } from "../../snapshots/disks.ts";
import { parseTarget } from "../../util/mounts.ts";
import type { VolumeStore } from "../../volumes/store.ts";

/** What has mounts: a VM, a snapshot, a request. */
export interface Mounting {
  mounts?: readonly Mount[];
}

/** The volumes that a VM mounts, without its own copies of some. */
export function volumesOf({ mounts = [] }: Mounting): VolumeMount[] {
  return mounts.filter((mount) => mount.kind === "volume" && mount.copy !== true) as VolumeMount[];
}

/** The directories of the host that a VM shares. */
export function bindsOf({ mounts = [] }: Mounting): BindMount[] {
  return mounts.filter((mount) => mount.kind === "bind");
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

/**
 * Refuse places that are no directories of the image, or that links lead elsewhere; files are mounted over
 * files, and go where links lead in the guest, as `/etc/localtime` does.
 * @param rootfs the image's disk; one that is not of our making is left to the guest
 * @throws ERR_MOUNT_TARGET
 */
export function checkTargets(rootfs: string, mounts: readonly Mount[]): void {
  for (const mount of mounts) {
    const { target } = mount;
    const found = lookup(rootfs, target);
    if (mount.kind === "bind" && mount.file === true) {
      if (found?.kind !== "directory" || found.path !== target) continue;
      throw badTarget(
        target,
        "It is a directory of the image, and what is shared is a file.",
        "Name the file itself: the directory, a slash, the file's name.",
      );
    }
    if (found?.kind === "symlink") {
      throw badTarget(
        target,
        `${found.path} of the image is a symbolic link to ${found.target}.`,
        "Name the place itself.",
      );
    }
    if (found !== undefined && found.kind !== "directory") {
      throw badTarget(
        target,
        `${found.path} of the image is a ${found.kind}; only a directory can be mounted over.`,
        "Name a directory, or a path that is not there yet.",
      );
    }
  }
}

/** The disks of a VM, those of its volumes anew; its kernel's come last. @throws ERR_VOLUME_* */
export async function attachVolumes(record: VmRecord, store: VolumeStore): Promise<void> {
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
    if (mount.kind !== "volume") continue;
    const disk = record.spec.disks.find(({ volume }) => volume?.name === mount.name);
    mounts.push({
      kind: "volume",
      target: mount.target,
      label: disk?.volume?.label ?? "",
      readOnly: mount.readonly,
      fill: first && !mount.nocopy,
    });
  }
  const depth = ({ target }: GuestMount): number => target.split("/").length;
  return mounts.toSorted((a, b) => depth(a) - depth(b));
}
