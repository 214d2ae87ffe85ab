/** What is mounted in a container: the words of `-v`, of `--mount` and of `--tmpfs`, made into mounts of a VM. */
import { existsSync } from "node:fs";
import { mkdir, realpath, stat } from "node:fs/promises";
import { errnoOf } from "../../../../model/errors.ts";
import type { Mount } from "../../../../model/mount.ts";
import type {
  ContainerBody,
  ContainerRecord,
  HostConfig,
  MountPoint,
} from "../../../../schema/docker.ts";
import {
  SHARED_MEMORY,
  parsePart,
  parseTarget,
  parseTmpfs,
  parseVolumeName,
} from "../../../../util/mounts.ts";
import { DockerError, refused } from "../../errors.ts";

/** A mount as clients see it, and what is to be done for it before a VM has it. */
export interface PlannedMount {
  point: MountPoint;
  /** A directory of the host that is made when it is missing. */
  make?: boolean;
  labels?: Record<string, string>;
}

function invalid(text: string): DockerError {
  return new DockerError(400, `invalid volume specification: '${text.slice(0, 300)}'`);
}

/** Where a mount is and whether it may be written. */
type Place = Pick<MountPoint, "Destination" | "Mode" | "RW">;

/** What a bind says of mounts that come later; shown as it was asked for, since a guest's mounts are its own. */
const PROPAGATIONS = ["shared", "rshared", "slave", "rslave", "private", "rprivate"];

/** A directory or file of the host. */
const bindPoint = (source: string, place: Place, propagation = "rprivate"): MountPoint => ({
  Type: "bind",
  Source: source,
  Propagation: propagation,
  ...place,
});

/** A volume by its name. @param empty it is not filled from the image */
function volumePoint(source: string, place: Place, empty: boolean): MountPoint {
  const name = parseVolumeName(source);
  return {
    Type: "volume",
    Name: name,
    Source: name,
    Driver: "local",
    Propagation: "",
    ...place,
    ...(empty ? { NoCopy: true } : {}),
  };
}

/** Memory. @param options as of mount(8) @throws ERR_VALIDATION_MOUNT */
function tmpfsPoint(target: string, options: string): MountPoint {
  const { target: Destination } = parseTmpfs(target, options);
  return { Type: "tmpfs", Source: "", Destination, Mode: options, RW: true, Propagation: "" };
}

/** Memory as a VM takes it: as with Docker no program of it is run, unless it says `exec`. */
function tmpfsMount(target: string, options: string): Mount {
  const mount = parseTmpfs(target, options);
  return options.split(",").includes("exec") ? mount : { ...mount, noexec: true };
}

/** Words behind the second colon of `-v`; what one kind alone has stands there for both, as Docker has it. */
const MODES = new Set([
  ..."ro rw nocopy z Z cached delegated consistent".split(" "),
  ...PROPAGATIONS,
]);

/** `SOURCE:TARGET[:OPTIONS]`. @throws 400 */
function bindOf(text: string): PlannedMount {
  const parts = text.split(":");
  const [source = "", target = "", options = ""] = parts;
  if (parts.length < 2 || parts.length > 3 || source === "") throw invalid(text);
  const words = options === "" ? [] : options.split(",");
  if (!words.every((word) => MODES.has(word)) || (words.includes("ro") && words.includes("rw"))) {
    throw new DockerError(400, `invalid mode: ${options.slice(0, 100)}`);
  }
  const common = { Destination: parseTarget(target), Mode: options, RW: !words.includes("ro") };
  if (source.startsWith("/")) {
    const propagation = words.find((word) => PROPAGATIONS.includes(word));
    return { make: true, point: bindPoint(source, common, propagation) };
  }
  return { point: volumePoint(source, common, words.includes("nocopy")) };
}

type MountBody = NonNullable<NonNullable<ContainerBody["HostConfig"]>["Mounts"]>[number];

/** A mount in full. @throws 400 */
function mountOf(mount: MountBody): PlannedMount {
  const { Type: type, VolumeOptions: volume } = mount;
  const source = mount.Source ?? "";
  const common = { Destination: parseTarget(mount.Target), Mode: "", RW: mount.ReadOnly !== true };
  if (type === "bind") {
    if (!source.startsWith("/")) {
      throw new DockerError(
        400,
        `invalid mount config for type "bind": invalid mount path: '${source.slice(0, 300)}' mount path must be absolute`,
      );
    }
    const make = mount.BindOptions?.CreateMountpoint === true;
    const propagation = mount.BindOptions?.Propagation || undefined;
    if (propagation !== undefined && !PROPAGATIONS.includes(propagation)) {
      throw new DockerError(400, `invalid propagation mode: ${propagation.slice(0, 60)}`);
    }
    return { make, point: bindPoint(source, common, propagation) };
  }
  if (type === "tmpfs") {
    const { SizeBytes: size, Mode: mode } = mount.TmpfsOptions ?? {};
    const words = [size && `size=${size}`, mode && `mode=${mode.toString(8)}`];
    return { point: tmpfsPoint(mount.Target, words.filter(Boolean).join(",")) };
  }
  if (Object.keys(volume?.DriverConfig?.Options ?? {}).length > 0) {
    throw refused("volume-opt", "make the volume first: docker volume create -o size=…");
  }
  if (type === "volume" && source === "" && !volume?.Subpath) {
    return { point: { Type: "volume", Source: "", Propagation: "", ...common } };
  }
  if (type === "volume") {
    const point = volumePoint(source, common, volume?.NoCopy === true);
    if (volume?.Subpath) point.Part = parsePart(volume.Subpath);
    return { point, ...(volume?.Labels ? { labels: volume.Labels } : {}) };
  }
  throw new DockerError(
    400,
    `invalid mount config: mount type ${JSON.stringify(type.slice(0, 60))} is not possible here`,
  );
}

/** All mounts of a request, by their places. @throws 400 */
export function plannedMounts(body: ContainerBody): PlannedMount[] {
  const host = body.HostConfig ?? {};
  const temporary = Object.entries(host.Tmpfs ?? {}).map(([target, options]): PlannedMount => ({
    point: tmpfsPoint(target, options),
  }));
  const planned = [
    ...(host.Binds ?? []).map(bindOf),
    ...(host.Mounts ?? []).map(mountOf),
    ...temporary,
  ];
  const places = new Set<string>();
  for (const { point } of planned) {
    if (places.has(point.Destination)) {
      throw new DockerError(400, `Duplicate mount point: ${point.Destination}`);
    }
    places.add(point.Destination);
  }
  for (const target of Object.keys(body.Volumes ?? {})) {
    const place = parseTarget(target);
    if (places.has(place)) continue;
    planned.push({
      point: {
        Type: "volume",
        Source: "",
        Destination: place,
        Mode: "",
        RW: true,
        Propagation: "",
      },
    });
  }
  return planned;
}

/** What no guest can be given of the host, in words. */
function noFile(source: string, socket: boolean): DockerError {
  if (!socket) {
    return refused(`mounting ${source}`, "it is neither a directory nor a regular file.");
  }
  return refused(
    `mounting ${source}`,
    "it is a socket, and what listens behind it is the host's: with this engine's own a container could do all that you may. Reach services by a port instead; the reaper of testcontainers gets a socket of its own (docs/docker.md).",
  );
}

/** Where clients look for an engine's socket that are told of none. */
const USUAL_SOCKETS = new Set(["/var/run/docker.sock", "/run/docker.sock"]);

/** Whether a path of the host is the engine's socket; where there is no engine at the usual place, this one is meant. */
async function isEngine(source: string, socket: string | undefined): Promise<boolean> {
  const [path, own] = await Promise.all([withoutLinks(source), socket && withoutLinks(socket)]);
  if (path === own) return true;
  return USUAL_SOCKETS.has(source) && !existsSync(source);
}

/**
 * Make the directories of the host that are to be made, and mark what is the engine's socket.
 * @param socket path of that, where it has one
 * @param reaper whether the container may have one of its own for it
 * @throws 400 for what cannot be shared, or is not there
 */
export async function makeDirectories(
  planned: readonly PlannedMount[],
  socket: string | undefined,
  reaper: boolean,
): Promise<void> {
  for (const { make, point } of planned) {
    if (point.Type !== "bind") continue;
    const { Source: source } = point;
    if (await isEngine(source, socket)) {
      if (!reaper) throw noFile(source, true);
      point.Engine = true;
      continue;
    }
    try {
      const found = await stat(source);
      if (found.isDirectory() || found.isFile()) continue;
      throw noFile(source, found.isSocket());
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
    }
    if (make !== true) {
      throw new DockerError(
        400,
        `invalid mount config for type "bind": bind source path does not exist: ${source}`,
      );
    }
    await mkdir(source, { recursive: true });
  }
}

/** Where a path of the host leads without links; one that is not there any more is left to the VM to complain of. */
async function withoutLinks(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return path;
    throw error;
  }
}

/** Mounts as a VM takes them. */
export async function vmMounts({ mounts: points, hostConfig }: ContainerRecord): Promise<Mount[]> {
  const mounts: Mount[] = [];
  const { ShmSize: shared } = hostConfig as HostConfig;
  if (shared && !points.some(({ Destination }) => Destination === SHARED_MEMORY)) {
    mounts.push(tmpfsMount(SHARED_MEMORY, `size=${shared}`));
  }
  for (const point of points) {
    const { Type: type, Source, Name, Destination: target, RW: writable, NoCopy, Part } = point;
    const readonly = !writable;
    if (point.Engine === true) continue;
    if (type === "bind") {
      // Docker follows links of the host; a VM takes none, since they may lead elsewhere later.
      mounts.push({ kind: "bind", source: await withoutLinks(Source), target, readonly });
    } else if (type === "volume" && Name !== undefined) {
      const part = Part === undefined ? {} : { part: Part };
      mounts.push({
        kind: "volume",
        name: Name,
        target,
        readonly,
        nocopy: NoCopy === true,
        ...part,
      });
    } else if (type === "tmpfs") mounts.push(tmpfsMount(target, point.Mode));
    else mounts.push({ kind: "anonymous", target });
  }
  return mounts;
}
