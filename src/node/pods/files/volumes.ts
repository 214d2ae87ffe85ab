/**
 * files/: the volumes of a pod: what is mounted when its VM is made, what is written into it, and what becomes of that while it
 * runs. Takes the pod and what it names in the cluster; gives mounts and files, and has them in the guest.
 *
 * volumes.ts: which volumes are mounts, and which are files.
 */
import { createHash } from "node:crypto";
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
import { fieldOf, resourceText } from "../spec/downward.ts";
import type { HostFacts } from "../spec/downward.ts";
import { expand } from "../spec/env.ts";
import { PodNotReadyError, PodRefusedError } from "../spec/failure.ts";
import { parseQuantity } from "../spec/quantity.ts";
import type { Content, ContentKind, References } from "./references.ts";
import type { Tokens } from "./tokens.ts";

/** A file in a volume. */
export interface VolumeFile {
  /** Relative to the volume. */
  path: string;
  mode: number;
  /** Default root's. */
  gid?: number;
  bytes: Buffer;
}

/** Files at a place in the guest, absolute: mounted there, whatever the image has. */
export interface FilledPlace {
  target: string;
  /** `volume`: all of a volume, changed with what it is made of; `tree`, `file`: a part of one, as it is when the command starts. */
  shape: "volume" | "tree" | "file";
  files: VolumeFile[];
  /** The group that has them, and what is made there. */
  gid?: number;
  /** Whoever runs in the guest may write there. */
  writable?: true;
}

/** What volumes are made with besides their pod. */
export interface VolumeOptions {
  /** Absent: tokens in files are left empty, as when they are only looked at. */
  tokens?: Tokens;
  /** The container's, for parts that are named by them; absent: those parts are left out. */
  variables?: ReadonlyMap<string, string>;
}

/** An object of the cluster whose content is in a volume, as it was then. */
export interface Source {
  kind: ContentKind;
  name: string;
  /** Empty: there was none. */
  version: string;
  immutable: boolean;
}

/** All that a pod has of volumes. */
export interface PodFiles {
  mounts: Mount[];
  /** Outer places first. */
  places: FilledPlace[];
  /** What of the cluster is in its files. */
  sources: Source[];
  /** Of all that may change in them but tokens; tells nothing of it. */
  digest: string;
}

/** Directories of the host that pods may have. */
export interface AllowedHostPath {
  /** Absolute; a pod names exactly this one, so that nothing below it that a guest has made is followed. */
  path: string;
  readonly: boolean;
}

const FILE_MODE = 0o644;
const NO_TOKEN = Buffer.alloc(0);
/** Of a token's file where a group is to read it. */
const TOKEN_MODE = 0o600;
/** Of directories that begin empty: everybody's; what is made in a group's is the group's. */
const EMPTY_MODE = 0o777;
const GROUP_MODE = 0o2777;
/** What a group may do with files that are written for it. */
const GROUP_READS = 0o440;

/** A path below a volume in its shortest form, empty for all of it; undefined: it leads elsewhere. */
function below(path: string): string | undefined {
  const clean = posix.normalize(path).replace(/\/$/, "");
  if (clean.startsWith("..") || posix.isAbsolute(path) || clean.includes("\0")) return undefined;
  return clean === "." ? "" : clean;
}

/** Where a file of a volume may be: below it. @throws PodRefusedError */
function inside(path: string): string {
  const clean = below(path);
  if (clean !== undefined && clean !== "") return clean;
  throw new PodRefusedError("InvalidVolume", `a volume's path ${JSON.stringify(path)}`);
}

type VolumeMount = NonNullable<PodContainer["volumeMounts"]>[number];

/**
 * Which part of its volume a mount shows; empty: all of it. One that variables name may be right after the next
 * change of the pod: so it is waited for.
 * @returns undefined for one that variables name which are not given
 * @throws PodRefusedError, PodNotReadyError
 */
function partOf(
  { name, subPath, subPathExpr }: VolumeMount,
  variables: ReadonlyMap<string, string> | undefined,
): string | undefined {
  if (!subPathExpr) return subPath ? (below(subPath) === "" ? "" : inside(subPath)) : "";
  if (variables === undefined) return undefined;
  const waits = (why: string): PodNotReadyError =>
    new PodNotReadyError("CreateContainerConfigError", `subPathExpr of volume ${name}: ${why}`);
  const path = expand(subPathExpr, variables, (variable) => {
    throw waits(`there is no variable ${variable}`);
  });
  const part = below(path);
  if (part !== undefined) return part;
  throw waits(`${JSON.stringify(path)} is no path below the volume`);
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
  readonly sources = new Map<string, Source>();
  /** Files that say something of the pod. */
  readonly own: VolumeFile[] = [];
  private readonly pod: Pod;
  private readonly references: References;
  private readonly host: HostFacts;
  private readonly tokens: Tokens | undefined;

  constructor(pod: Pod, references: References, host: HostFacts, tokens: Tokens | undefined) {
    this.pod = pod;
    this.references = references;
    this.host = host;
    this.tokens = tokens;
  }

  private async content(
    kind: ContentKind,
    name: string,
    source: Pick<ContentSource, "items" | "optional" | "defaultMode">,
    mode: number | undefined,
  ): Promise<VolumeFile[]> {
    const content = await this.references.content(kind, name, source.optional === true);
    const { version = "", immutable = false } = content ?? {};
    this.sources.set(`${kind}/${name}`, { kind, name, version, immutable });
    return filesOf(content, { ...source, defaultMode: mode ?? source.defaultMode }, name);
  }

  /** A volume's files; undefined: it is of another kind. */
  async files(volume: PodVolume): Promise<VolumeFile[] | undefined> {
    const { configMap, secret, downwardAPI, projected } = volume;
    if (configMap) return await this.content("configmaps", configMap.name, configMap, undefined);
    if (secret) return await this.content("secrets", secret.secretName ?? "", secret, undefined);
    if (downwardAPI) {
      const mode = downwardAPI.defaultMode ?? FILE_MODE;
      return this.downward(downwardAPI.items, mode);
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
      files.push(...this.downward(source.downwardAPI?.items, mode));
      if (source.serviceAccountToken) {
        const { path, audience, expirationSeconds } = source.serviceAccountToken;
        const group = this.pod.spec.securityContext?.fsGroup ?? undefined;
        files.push({
          path: inside(path),
          mode: group === undefined ? mode : TOKEN_MODE,
          bytes: await this.token(audience ?? undefined, expirationSeconds ?? 3600),
        });
      }
    }
    return files;
  }

  private downward(items: readonly DownwardItem[] | null | undefined, mode: number): VolumeFile[] {
    const files = downwardFiles(this.pod, items, mode, this.host);
    this.own.push(...files);
    return files;
  }

  private async token(audience: string | undefined, seconds: number): Promise<Buffer> {
    const { tokens, references } = this;
    if (tokens === undefined) return NO_TOKEN;
    return Buffer.from(await tokens.get(references, audience, seconds));
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

/** How an emptyDir is mounted. */
interface EmptyPlace {
  target: string;
  name?: string;
  part?: string;
  readonly?: boolean;
}

/** An emptyDir: on the VM's disk, or in its memory. @throws PodRefusedError for a size that is none */
function emptyMount(
  { name, emptyDir }: PodVolume,
  place: EmptyPlace,
  gid: number | undefined,
): Mount {
  const group = gid === undefined ? {} : { gid, mode: GROUP_MODE };
  if (emptyDir?.medium !== "Memory") return { kind: "anonymous", empty: true, ...place, ...group };
  const { sizeLimit } = emptyDir;
  const memory = { kind: "tmpfs", mode: EMPTY_MODE, ...place, ...group } as const;
  if (!sizeLimit) return memory;
  const sizeBytes = Math.floor(parseQuantity(sizeLimit) ?? 0);
  if (sizeBytes > 0) return { ...memory, sizeBytes };
  throw new PodRefusedError(
    "InvalidVolume",
    `spec.volumes[${name}].emptyDir.sizeLimit: ${sizeLimit}`,
  );
}

/** A digest of what is in files, but for tokens. */
function digestOf({ sources, own }: FileMaker): string {
  const versions = [...sources].map(([key, { version }]) => [key, version]);
  const texts = own.map(({ path, bytes }) => [path, bytes.toString("utf8")]);
  return createHash("sha256")
    .update(JSON.stringify([versions, texts]))
    .digest("hex")
    .slice(0, 32);
}

/** Files as a group has them. */
function ofGroup(files: readonly VolumeFile[], gid: number | undefined): VolumeFile[] {
  if (gid === undefined) return [...files];
  return files.map((file) => ({ ...file, mode: file.mode | GROUP_READS, gid }));
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
  { tokens, variables }: VolumeOptions = {},
): Promise<PodFiles> {
  const gid = pod.spec.securityContext?.fsGroup ?? undefined;
  const maker = new FileMaker(pod, references, host, tokens);
  const mounts: Mount[] = [];
  const places: FilledPlace[] = [];
  const group = gid === undefined ? {} : { gid };
  for (const mount of container.volumeMounts ?? []) {
    const volume = pod.spec.volumes?.find(({ name }) => name === mount.name);
    if (volume === undefined) continue;
    const target = parseTarget(mount.mountPath);
    const files = await maker.files(volume);
    const part = partOf(mount, variables);
    if (part === undefined) continue;
    if (files === undefined) {
      const readonly = mount.readOnly === true;
      const shared = hostMount(volume, target, readonly, host.hostPaths);
      const others = container.volumeMounts?.filter(({ name }) => name === mount.name) ?? [];
      const place: EmptyPlace = {
        target,
        ...(part !== "" || others.length > 1 ? { name: volume.name } : {}),
        ...(part === "" ? {} : { part }),
        ...(readonly ? { readonly } : {}),
      };
      mounts.push(shared ?? emptyMount(volume, place, gid));
    } else if (part === "") {
      places.push({ target, shape: "volume", files: ofGroup(files, gid), ...group });
    } else places.push(...partsOf(ofGroup(files, gid), part, { target, ...group }));
  }
  checkPlaces(places, mounts);
  places.sort((a, b) => a.target.split("/").length - b.target.split("/").length);
  const sources = [...maker.sources.values()];
  return { mounts, places, sources, digest: digestOf(maker) };
}

/** Nothing is mounted below files: they are read-only, and mounted last. @throws PodRefusedError */
function checkPlaces(places: readonly FilledPlace[], mounts: readonly Mount[]): void {
  for (const { target } of [...places, ...mounts]) {
    const outer = places.find((place) => target.startsWith(`${place.target}/`));
    if (outer === undefined) continue;
    throw new PodRefusedError(
      "InvalidVolume",
      `spec.containers[0].volumeMounts: ${target} is below ${outer.target}, which is read-only`,
    );
  }
}

/** One file of a volume, or those below one of its directories, at a place in the guest. */
function partsOf(
  files: readonly VolumeFile[],
  part: string,
  place: Omit<FilledPlace, "shape" | "files">,
): FilledPlace[] {
  const single = files.find(({ path }) => path === part);
  if (single !== undefined) {
    return [{ ...place, shape: "file", files: [{ ...single, path: posix.basename(part) }] }];
  }
  const below = files.filter(({ path }) => path.startsWith(`${part}/`));
  const inner = below.map((file) => ({ ...file, path: file.path.slice(part.length + 1) }));
  return inner.length === 0 ? [] : [{ ...place, shape: "tree", files: inner }];
}
