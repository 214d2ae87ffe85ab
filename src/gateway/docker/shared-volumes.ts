/**
 * Volumes that several containers use at the same time. A volume is one VM's to write to, as fast as a disk, for as long as one
 * container has it; clients say nothing of others, but for making them before they start the first one, as Compose does.
 */
import type { Vmsan } from "../../client/vmsan.ts";
import { VmsanError } from "../../model/errors.ts";
import type { ContainerRecord } from "../../schema/docker.ts";
import { DockerError } from "./errors.ts";

type Known = Pick<ContainerRecord, "name" | "mounts" | "state">;

/** Containers that use what they mount, or are about to. */
const IN_USE = new Set(["created", "running", "paused", "restarting"]);

/** The volumes of a container that is about to run which another one has, too, and that one of both may write to. */
export function toBeShared({ mounts }: Known, others: readonly Known[]): string[] {
  const theirs = others
    .filter(({ state }) => IN_USE.has(state.status))
    .flatMap((other) => other.mounts);
  return mounts.flatMap(({ Name: name, RW: writes }) => {
    const same = theirs.filter((mount) => name !== undefined && mount.Name === name);
    return name !== undefined && same.some(({ RW }) => RW || writes) ? [name] : [];
  });
}

/** The refusal of a volume that others have as a disk. */
function onDisk(name: string, users: readonly string[]): DockerError {
  const [first = ""] = users;
  return new DockerError(
    409,
    `volume ${name} is in use by ${users.join(", ")}, which has it as a disk of its own since nothing else was to use it when it was started: \`docker restart ${first}\` makes it a volume for both, then start this one; for the next time: docker volume create -o shared=true NAME`,
  );
}

/**
 * Have a volume be shared.
 * @param others all other containers
 * @throws 409 when one of them has it as a disk; who else holds it, the start of the VM says
 */
export async function shareVolume(
  vmsan: Vmsan,
  name: string,
  others: readonly Known[],
): Promise<void> {
  // Pods have volumes of their cluster's making.
  if (vmsan.cluster) return;
  try {
    await vmsan.volumes.share(name);
  } catch (error) {
    const code = error instanceof VmsanError ? error.code : "";
    if (code !== "ERR_VOLUME_IN_USE" && code !== "ERR_VOLUME_NOT_FOUND") throw error;
    const users = others.filter(
      ({ state, mounts }) =>
        (state.status === "running" || state.status === "paused") &&
        mounts.some((mount) => mount.Name === name),
    );
    if (users.length > 0)
      throw onDisk(
        name,
        users.map((user) => user.name),
      );
  }
}
