/**
 * What people write to have something mounted in a guest: the words of `-v` and of `--mount`, made
 * into one kind of data. Nothing here looks at the host or at the image.
 */
import type { Mount, TmpfsMount } from "../model/mount.ts";
import { absolutePath } from "./byte-text.ts";
import { invalid } from "./units.ts";

/** Most mounts of one VM. */
export const MAX_MOUNTS = 32;

const VOLUME_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/;
/** Where the guest's kernel and agent have file systems of their own. */
const RESERVED = ["/proc", "/sys", "/dev"];
/** Words of Docker's `-v` that say nothing where no SELinux and no other system's cache is. */
const MEANINGLESS = new Set(["z", "Z", "cached", "delegated", "consistent"]);

/** A complaint about a word of `-v` or `--mount`. */
function wrong(text: string, why: string, fix: string): Error {
  return invalid("MOUNT", "mount", text, why, fix);
}

/** A volume's name. @throws ERR_VALIDATION_VOLUME */
export function parseVolumeName(text: string): string {
  if (VOLUME_NAME.test(text)) return text;
  throw invalid(
    "VOLUME",
    "volume name",
    text,
    "A name has 1 to 128 letters, digits, '.', '_' and '-', the first a letter or digit.",
    "For example: data-1. A directory of the host begins with / or ./",
  );
}

/** Of the kernel's own places the one where memory may be mounted: programs share theirs there. */
export const SHARED_MEMORY = "/dev/shm";

/** A place in the guest, in its shortest form. @param kind what is mounted there @throws ERR_VALIDATION_MOUNT */
export function parseTarget(text: string, kind: Mount["kind"] = "volume"): string {
  if (!/^\/[^\0]*$/s.test(text) || Buffer.byteLength(text) > 4095) {
    throw wrong(text, "The place in the guest must be an absolute path.", "For example: /data.");
  }
  const parts = text.split("/").filter((part) => part !== "" && part !== ".");
  if (parts.includes("..")) {
    throw wrong(text, "The place in the guest holds `..`.", "Write the path without it.");
  }
  const target = `/${parts.join("/")}`;
  if (target === "/") {
    throw wrong(text, "The guest's root is its disk.", "Name a directory below it.");
  }
  const reserved = RESERVED.find((dir) => target === dir || target.startsWith(`${dir}/`));
  const shared = kind === "tmpfs" && target === SHARED_MEMORY;
  if (reserved !== undefined && !shared) {
    throw wrong(text, `${reserved} is the guest kernel's own.`, "Choose another directory.");
  }
  return target;
}

/** A path within a volume, in its shortest form. @throws ERR_VALIDATION_MOUNT */
export function parsePart(text: string): string {
  const names = text.split("/").filter((name) => name !== "" && name !== ".");
  if (!text.startsWith("/") && names.length > 0 && !names.includes("..") && !text.includes("\0")) {
    return names.join("/");
  }
  const why = "A part of a volume is named by a relative path within the volume.";
  throw wrong(text, why, "For example: volume-subpath=db/main.");
}

const SIZE_UNITS = { "": 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 };
const MOST_BYTES = 2 ** 45;

/** Bytes of a file system in memory: `65536`, `64k`, `64m`, `1g`. @throws ERR_VALIDATION_MOUNT */
function parseTmpfsSize(text: string): number {
  const [, digits, unit = ""] = /^(\d{1,14})([kmg]?)b?$/i.exec(text) ?? [];
  const bytes = Number(digits) * SIZE_UNITS[unit.toLowerCase() as keyof typeof SIZE_UNITS];
  if (bytes >= 4096 && bytes <= MOST_BYTES) return bytes;
  throw wrong(text, "It is no size of a file system in memory.", "For example: size=64m.");
}

/** Permissions in octal digits. @throws ERR_VALIDATION_MOUNT */
function parseTmpfsMode(text: string): number {
  if (/^[0-7]{1,5}$/.test(text) && parseInt(text, 8) <= 0o7777) return parseInt(text, 8);
  throw wrong(text, "It is no mode of a directory.", "For example: mode=1777.");
}

/** Options of mounts in memory that are so here whether they are named or not. */
const TMPFS_GIVEN = new Set(["rw", "nosuid", "nodev", "exec", "noatime", "relatime"]);

/**
 * Memory to be mounted, with options as of mount(8): `size=64m,mode=1770,noexec`.
 * @throws ERR_VALIDATION_MOUNT
 */
export function parseTmpfs(place: string, options: string): TmpfsMount {
  const mount: TmpfsMount = { kind: "tmpfs", target: parseTarget(place, "tmpfs") };
  for (const option of options === "" ? [] : options.split(",")) {
    const [key = "", value] = option.split("=", 2);
    if (key === "size" && value !== undefined) mount.sizeBytes = parseTmpfsSize(value);
    else if (key === "mode" && value !== undefined) mount.mode = parseTmpfsMode(value);
    else if ((key === "uid" || key === "gid") && /^\d{1,9}$/.test(value ?? "")) {
      mount[key] = Number(value);
    } else if (option === "noexec") mount.noexec = true;
    else if (!TMPFS_GIVEN.has(option)) {
      throw wrong(
        option,
        "Memory cannot be mounted with this option.",
        "There are size=, mode=, uid=, gid=, noexec.",
      );
    }
  }
  return mount;
}

/** A source as it stands in front of a colon: a path begins with `/` or a dot. */
function fromSource(source: string, target: string, readonly: boolean, nocopy: boolean): Mount {
  if (/^(?:\/|\.{1,2}(?:\/|$))/.test(source)) {
    return { kind: "bind", source: absolutePath(source), target, readonly };
  }
  return { kind: "volume", name: parseVolumeName(source), target, readonly, nocopy };
}

/**
 * The word of `-v`: `NAME:/path`, `./dir:/path`, both with `:ro`, or `/path` alone.
 * A relative directory is one of this process's working directory.
 * @throws ERR_VALIDATION_MOUNT, ERR_VALIDATION_VOLUME
 */
export function parseVolumeWord(text: string): Mount {
  const [first = "", second, options, ...rest] = text.split(":");
  if (rest.length > 0 || first === "" || second === "") {
    throw wrong(
      text,
      "It takes SOURCE:/path, SOURCE:/path:ro, or /path alone.",
      "For example: data:/var/lib/data, ./src:/work:ro. Paths with a colon: --mount.",
    );
  }
  if (second === undefined) return { kind: "anonymous", target: parseTarget(first) };
  let readonly = false;
  let nocopy = false;
  for (const option of options === undefined ? [] : options.split(",")) {
    if (option === "ro" || option === "rw") readonly = option === "ro";
    else if (option === "nocopy") nocopy = true;
    else if (!MEANINGLESS.has(option)) {
      throw wrong(
        text,
        `There is no option ${JSON.stringify(option)}.`,
        "There are ro, rw, nocopy.",
      );
    }
  }
  return fromSource(first, parseTarget(second), readonly, nocopy);
}

/** Fields of one line of comma-separated values; a field in double quotes may hold commas. */
function fields(text: string): string[] {
  const found: string[] = [];
  let rest = text;
  for (;;) {
    const match = /^(?:"((?:[^"]|"")*)"|([^",]*))(,|$)/s.exec(rest);
    if (match === null) {
      throw wrong(text, "Its quotes do not match.", 'For example: type=bind,"src=/a,b",dst=/c');
    }
    found.push(match[1]?.replaceAll('""', '"') ?? match[2] ?? "");
    if (match[3] === "") return found;
    rest = rest.slice(match[0].length);
  }
}

/** Names of `--mount`'s keys, other spellings included. */
const KEYS: Record<
  string,
  "type" | "source" | "target" | "readonly" | "nocopy" | "part" | "size" | "mode"
> = {
  type: "type",
  src: "source",
  source: "source",
  dst: "target",
  destination: "target",
  target: "target",
  ro: "readonly",
  readonly: "readonly",
  "volume-nocopy": "nocopy",
  "volume-subpath": "part",
  "tmpfs-size": "size",
  "tmpfs-mode": "mode",
};

/** A switch of `--mount`: present, or said in words. */
function flag(text: string, key: string, value: string | undefined): boolean {
  if (value === undefined || value === "true" || value === "1") return true;
  if (value === "false" || value === "0") return false;
  throw wrong(text, `${key} takes true or false.`, `Write ${key} alone, or leave it out.`);
}

/**
 * The word of `--mount`: `type=volume,src=NAME,dst=/path,ro`, `type=bind,src=DIR,dst=/path`,
 * `type=tmpfs,dst=/path,tmpfs-size=64m`;
 * a volume without `src` lies on the VM's own disk.
 * @throws ERR_VALIDATION_MOUNT, ERR_VALIDATION_VOLUME
 */
export function parseMountWord(text: string): Mount {
  const given: Partial<Record<string, string | undefined>> = {};
  for (const field of fields(text)) {
    const at = field.indexOf("=");
    const word = at < 0 ? field : field.slice(0, at);
    const key = KEYS[word];
    if (key === undefined) {
      throw wrong(
        text,
        `There is no key ${JSON.stringify(word)}.`,
        "There are type, src, dst, ro, volume-nocopy, volume-subpath, tmpfs-size and tmpfs-mode.",
      );
    }
    if (key in given) throw wrong(text, `${word} is given twice.`, "Give it once.");
    given[key] = at < 0 ? undefined : field.slice(at + 1);
  }
  const { type = "volume", source, target, size, mode } = given;
  if (target === undefined) throw wrong(text, "It names no place in the guest.", "Add dst=/path.");
  if (type === "tmpfs") {
    if (["source", "readonly", "nocopy", "part"].some((key) => key in given)) {
      throw wrong(text, "Memory is empty, and written to.", "It takes tmpfs-size and tmpfs-mode.");
    }
    const words = [size && `size=${size}`, mode && `mode=${mode}`].filter(Boolean);
    return parseTmpfs(target, words.join(","));
  }
  if (size !== undefined || mode !== undefined) {
    throw wrong(text, "tmpfs-size and tmpfs-mode are for memory.", "Add type=tmpfs.");
  }
  const place = parseTarget(target);
  const readonly = "readonly" in given && flag(text, "ro", given["readonly"]);
  const nocopy = "nocopy" in given && flag(text, "volume-nocopy", given["nocopy"]);
  const part = given["part"] === undefined ? undefined : parsePart(given["part"]);
  if (part !== undefined && (type !== "volume" || source === undefined)) {
    throw wrong(text, "volume-subpath is for volumes with a name.", "Add type=volume,src=NAME.");
  }
  if (type === "bind") {
    if (source === undefined || source === "" || nocopy) {
      const why = nocopy ? "volume-nocopy is for volumes." : "It names no directory of the host.";
      throw wrong(text, why, "For example: type=bind,src=./dir,dst=/path.");
    }
    return { kind: "bind", source: absolutePath(source), target: place, readonly };
  }
  if (type !== "volume") {
    throw wrong(text, `There is no type ${JSON.stringify(type)}.`, "Use bind, volume or tmpfs.");
  }
  if (source !== undefined) {
    const name = parseVolumeName(source);
    const shown = part === undefined ? {} : { part };
    return { kind: "volume", name, target: place, readonly, nocopy, ...shown };
  }
  if (readonly) {
    throw wrong(text, "Nobody could ever write into it.", "Leave out ro, or name a volume.");
  }
  return { kind: "anonymous", target: place };
}

/**
 * Mounts that go together: no place and no volume twice, those inside others behind them.
 * @throws ERR_VALIDATION_MOUNT
 */
export function checkMounts(mounts: readonly Mount[]): Mount[] {
  if (mounts.length > MAX_MOUNTS) {
    throw wrong(String(mounts.length), `A VM has at most ${MAX_MOUNTS} mounts.`, "Use fewer.");
  }
  const targets = new Set<string>();
  const names = new Set<string>();
  for (const mount of mounts) {
    if (targets.has(mount.target)) {
      throw wrong(mount.target, "Two mounts have this place in the guest.", "Give each its own.");
    }
    targets.add(mount.target);
    if (mount.kind !== "volume") continue;
    if (names.has(mount.name)) {
      throw wrong(mount.name, "The volume is mounted twice in one VM.", "Mount it at one place.");
    }
    names.add(mount.name);
  }
  return mounts.toSorted((a, b) => a.target.split("/").length - b.target.split("/").length);
}
