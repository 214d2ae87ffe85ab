/** A pod's volumes: which are mounted when its VM is made, and which are files that are written into it. */
import { posix } from "node:path";
import type { Mount } from "../../../model/mount.ts";
import type {
  ContentSource,
  DownwardItem,
  Pod,
  PodContainer,
  PodVolume,
} from "../../../schema/pod.ts";
import { parseTarget } from "../../../util/mounts.ts";
import { fieldOf, resourceText } from "./downward.ts";
import type { HostFacts } from "./downward.ts";
import { PodNotReadyError, PodRefusedError } from "./failure.ts";
import { parseQuantity } from "./quantity.ts";
import type { Content, References } from "./references.ts";

/** A file in a volume. */
export interface VolumeFile {
  /** Relative to the volume. */
  path: string;
  mode: number;
  bytes: Buffer;
}

/** Something that is written into a guest before its command starts. */
export interface GuestEntry {
  /** The directory that it is written into, absolute: made if it is missing; links on the way to it are followed. */
  root: string;
  /** Below that; empty: there is only the directory. */
  path: string;
  mode: number;
  bytes: Buffer;
}

/** All that a pod has of volumes. */
export interface PodFiles {
  mounts: Mount[];
  entries: GuestEntry[];
  /** When files have to be written anew, since a token in them ends; milliseconds since the epoch. */
  renewAt: number | undefined;
}

/** Directories of the host that pods may have. */
export interface AllowedHostPath {
  /** Absolute; a pod names exactly this one, so that nothing below it that a guest has made is followed. */
  path: string;
  readonly: boolean;
}

const FILE_MODE = 0o644;
const EMPTY = Buffer.alloc(0);
/** Of directories that begin empty: everybody's. */
const EMPTY_MODE = 0o777;
/** A token is renewed when a fifth of its time is left. */
const TOKEN_SHARE = 0.8;

/** Where a file of a volume may be: below it. @throws PodRefusedError */
function inside(path: string): string {
  const clean = posix.normalize(path);
  if (path === "" || clean.startsWith("..") || posix.isAbsolute(clean) || clean.includes("\0")) {
    throw new PodRefusedError("InvalidVolume", `a volume's path ${JSON.stringify(path)}`);
  }
  return clean;
}

/** Keys as files: all, or those that are named. */
function filesOf(
  content: Content | undefined,
  { items, optional, defaultMode }: Pick<ContentSource, "items" | "optional" | "defaultMode">,
  name: string,
): VolumeFile[] {
  const mode = defaultMode ?? FILE_MODE;
  if (!items || items.length === 0) {
    return [...(content?.values ?? [])].map(([key, bytes]) => ({ path: inside(key), mode, bytes }));
  }
  return items.flatMap((item) => {
    const bytes = content?.values.get(item.key);
    if (bytes !== undefined) {
      return [{ path: inside(item.path), mode: item.mode ?? mode, bytes }];
    }
    if (optional === true) return [];
    throw new PodNotReadyError(
      "CreateContainerConfigError",
      `${name} has no key ${JSON.stringify(item.key)}`,
    );
  });
}

function downwardFiles(
  pod: Pod,
  items: readonly DownwardItem[] | null | undefined,
  mode: number,
  host: HostFacts,
): VolumeFile[] {
  return (items ?? []).map((item) => {
    const text = item.fieldRef
      ? fieldOf(pod, item.fieldRef.fieldPath, host)
      : item.resourceFieldRef
        ? resourceText(pod, item.resourceFieldRef)
        : "";
    return { path: inside(item.path), mode: item.mode ?? mode, bytes: Buffer.from(text) };
  });
}

/** Makes the files of one pod's volumes. */
class FileMaker {
  renewAt: number | undefined;
  private readonly pod: Pod;
  private readonly references: References;
  private readonly host: HostFacts;

  constructor(pod: Pod, references: References, host: HostFacts) {
    this.pod = pod;
    this.references = references;
    this.host = host;
  }

  private async content(
    kind: "configmaps" | "secrets",
    name: string,
    source: Pick<ContentSource, "items" | "optional" | "defaultMode">,
    mode: number | undefined,
  ): Promise<VolumeFile[]> {
    const content = await this.references.content(kind, name, source.optional === true);
    return filesOf(content, { ...source, defaultMode: mode ?? source.defaultMode }, name);
  }

  /** A volume's files; undefined: it is of another kind. */
  async files(volume: PodVolume): Promise<VolumeFile[] | undefined> {
    const { configMap, secret, downwardAPI, projected } = volume;
    if (configMap) return await this.content("configmaps", configMap.name, configMap, undefined);
    if (secret) return await this.content("secrets", secret.secretName ?? "", secret, undefined);
    if (downwardAPI) {
      const mode = downwardAPI.defaultMode ?? FILE_MODE;
      return downwardFiles(this.pod, downwardAPI.items, mode, this.host);
    }
    if (!projected) return undefined;
    const mode = projected.defaultMode ?? FILE_MODE;
    const files: VolumeFile[] = [];
    for (const source of projected.sources ?? []) {
      if (source.configMap) {
        const { name } = source.configMap;
        files.push(...(await this.content("configmaps", name, source.configMap, mode)));
      }
      if (source.secret) {
        const name = source.secret.name ?? "";
        files.push(...(await this.content("secrets", name, source.secret, mode)));
      }
      files.push(...downwardFiles(this.pod, source.downwardAPI?.items, mode, this.host));
      if (source.serviceAccountToken) {
        const { path, audience, expirationSeconds } = source.serviceAccountToken;
        files.push({
          path: inside(path),
          mode,
          bytes: await this.token(audience ?? undefined, expirationSeconds ?? 3600),
        });
      }
    }
    return files;
  }

  private async token(audience: string | undefined, seconds: number): Promise<Buffer> {
    const now = Date.now();
    const { token, expiresAt } = await this.references.token(audience, seconds);
    const renewAt = now + (expiresAt - now) * TOKEN_SHARE;
    this.renewAt = Math.min(this.renewAt ?? renewAt, renewAt);
    return Buffer.from(token);
  }
}

function hostMount(
  volume: PodVolume,
  target: string,
  readonly: boolean,
  allowed: readonly AllowedHostPath[],
): Mount | undefined {
  const path = volume.hostPath?.path.replace(/(?<=.)\/+$/, "");
  if (path === undefined) return undefined;
  const place = allowed.find((entry) => entry.path === path);
  if (place === undefined) {
    throw new PodRefusedError(
      "HostPathNotAllowed",
      `spec.volumes[${volume.name}].hostPath: ${path} is none of the directories that this node gives to pods`,
    );
  }
  return { kind: "bind", source: place.path, target, readonly: readonly || place.readonly };
}

/** An emptyDir: on the VM's disk, or in its memory. @throws PodRefusedError for a size that is none */
function emptyMount({ name, emptyDir }: PodVolume, target: string): Mount {
  if (emptyDir?.medium !== "Memory") return { kind: "anonymous", target, empty: true };
  const { sizeLimit } = emptyDir;
  if (!sizeLimit) return { kind: "tmpfs", target, mode: EMPTY_MODE };
  const sizeBytes = Math.floor(parseQuantity(sizeLimit) ?? 0);
  if (sizeBytes > 0) return { kind: "tmpfs", target, mode: EMPTY_MODE, sizeBytes };
  throw new PodRefusedError(
    "InvalidVolume",
    `spec.volumes[${name}].emptyDir.sizeLimit: ${sizeLimit}`,
  );
}

/**
 * What a pod's volumes are in its VM.
 * @throws PodRefusedError, PodNotReadyError
 */
export async function volumesOf(
  pod: Pod,
  container: PodContainer,
  references: References,
  host: HostFacts & { hostPaths: readonly AllowedHostPath[] },
): Promise<PodFiles> {
  const maker = new FileMaker(pod, references, host);
  const mounts: Mount[] = [];
  const entries: GuestEntry[] = [];
  for (const mount of container.volumeMounts ?? []) {
    const volume = pod.spec.volumes?.find(({ name }) => name === mount.name);
    if (volume === undefined) continue;
    const target = parseTarget(mount.mountPath);
    const files = await maker.files(volume);
    if (files === undefined) {
      const shared = hostMount(volume, target, mount.readOnly === true, host.hostPaths);
      mounts.push(shared ?? emptyMount(volume, target));
    } else if (mount.subPath) {
      entries.push(...partOf(files, inside(mount.subPath), target));
    } else {
      // Also without a file there is a directory.
      if (files.length === 0) entries.push({ root: target, path: "", mode: 0, bytes: EMPTY });
      for (const file of files) entries.push({ root: target, ...file });
    }
  }
  return { mounts, entries, renewAt: maker.renewAt };
}

/** One file of a volume, or those below one of its directories, at a place in the guest. */
function partOf(files: readonly VolumeFile[], part: string, target: string): GuestEntry[] {
  return files.flatMap(({ path, mode, bytes }) => {
    if (path === part) {
      return [{ root: posix.dirname(target), path: posix.basename(target), mode, bytes }];
    }
    if (!path.startsWith(`${part}/`)) return [];
    return [{ root: target, path: path.slice(part.length + 1), mode, bytes }];
  });
}
