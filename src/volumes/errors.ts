/** What goes wrong with volumes, in words. */
import { VmsanError } from "../model/errors.ts";
import { PROJECT_LABEL } from "../model/volume.ts";
import type { VolumeRecord } from "../model/volume.ts";

/** No volume has that name. */
export function notFound(name: string): VmsanError {
  return new VmsanError({
    code: "ERR_VOLUME_NOT_FOUND",
    message: `No volume ${name}`,
    why: "No volume has that name.",
    fix: `\`vmsan volume ls\` lists all; \`vmsan volume create ${name}\` makes it.`,
  });
}

/** There is one of that name. */
export function exists(name: string): VmsanError {
  return new VmsanError({
    code: "ERR_VOLUME_NAME_TAKEN",
    message: `Cannot make a volume ${name}`,
    why: "There is one of that name.",
    fix: `Choose another name, or remove it: vmsan volume rm ${name}`,
  });
}

/** An archive that is none. */
export function archiveError(why: string, cause?: unknown): VmsanError {
  return new VmsanError(
    {
      code: "ERR_VOLUME_ARCHIVE",
      message: "Cannot read the archive of a volume",
      why,
      fix: "Give a file that `vmsan volume export` has written.",
    },
    cause,
  );
}

/** What only a volume with a disk of its own can be asked for. */
export function isShared(name: string, message: string, fix: string): VmsanError {
  const why = `${name} is a shared volume: a directory of the host.`;
  return new VmsanError({ code: "ERR_VOLUME_SHARED", message, why, fix });
}

/** A volume that cannot be used. */
export function damaged(name: string, why: string): VmsanError {
  return new VmsanError({
    code: "ERR_VOLUME_DAMAGED",
    message: `Cannot use the volume ${name}`,
    why,
    fix: "Repair its file system with e2fsck, or remove the volume.",
  });
}

/** Whether a disk cannot be read as a file system. */
export function isUnreadable(error: unknown): error is VmsanError {
  return error instanceof VmsanError && error.code === "ERR_CHANGES_DISK";
}

/** What keys' projects have are disks, which are bounded to the byte. @throws ERR_VOLUME_SHARED */
export function requireUnbounded({ name, labels }: VolumeRecord): void {
  if (!Object.hasOwn(labels, PROJECT_LABEL)) return;
  const fix = `Make another volume, without the label ${PROJECT_LABEL}.`;
  throw isShared(name, `Cannot share the volume ${name}, which belongs to keys' projects`, fix);
}

/**
 * As an ordinary user all files of a shared volume are that user's: whose they were would be lost with those who are not
 * root in the guest. @throws ERR_VOLUME_OWNERS
 */
export function requireOwner(
  name: string,
  path: string,
  { uid, gid }: { uid: number; gid: number },
): void {
  if (process.getuid?.() === 0 || (uid === 0 && gid === 0)) return;
  throw new VmsanError({
    code: "ERR_VOLUME_OWNERS",
    message: `Cannot share the volume ${name}`,
    why: `${path} belongs to ${uid}:${gid}, and an ordinary user can keep no owners on the host.`,
    fix: "Run vmsan as root; or copy what is in it into a new volume: vmsan volume create --shared NAME",
  });
}
