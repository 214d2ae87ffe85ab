/**
 * What is in a directory and what is in an ext4 file, told by other people's tools (lstat,
 * getfattr; debugfs), in one form, so that the two can be compared.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { lstatSync, mkdirSync, readFileSync, readdirSync, readlinkSync, rmSync } from "node:fs";
import { join } from "node:path";

/** One entry of a tree; `path` of all that share its inode stands in `links`. */
export interface TreeEntry {
  type: string;
  mode: string;
  uid: number;
  gid: number;
  /** Seconds since 1970 with nine decimals. */
  mtime: string;
  /** Bytes of a regular file. */
  size?: number;
  sha256?: string;
  target?: string;
  device?: string;
  /** Name → hexadecimal value. */
  xattrs: Record<string, string>;
  /** Every path of the same inode, sorted. */
  links: string[];
}

/** Path from the root ("" is the root itself) → entry. */
export type Tree = Record<string, TreeEntry>;

const TYPES: Record<number, string> = {
  0o04: "directory",
  0o10: "file",
  0o12: "symlink",
  0o02: "character device",
  0o06: "block device",
  0o01: "fifo",
};

function typeOf(mode: number): string {
  return TYPES[(mode >> 12) & 0o17] ?? `unknown ${mode.toString(8)}`;
}

function sha256(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Seconds and nanoseconds as text. */
function time(seconds: bigint, nanoseconds: bigint): string {
  // Of times before 1970 both are negative where they are parts of one number.
  if (nanoseconds < 0n) return time(seconds - 1n, nanoseconds + 1_000_000_000n);
  return `${seconds}.${nanoseconds.toString().padStart(9, "0")}`;
}

/** Put what shares an inode together. */
function withLinks(entries: Map<string, { inode: string; entry: Omit<TreeEntry, "links"> }>): Tree {
  const byInode = new Map<string, string[]>();
  for (const [path, { inode }] of entries)
    byInode.set(inode, [...(byInode.get(inode) ?? []), path]);
  return Object.fromEntries(
    [...entries].map(([path, { inode, entry }]) => {
      const links = (byInode.get(inode) ?? []).toSorted();
      return [path, { ...entry, links: entry.type === "directory" ? [path] : links }];
    }),
  );
}

/** Extended attributes of everything below a directory, by path. */
function directoryXattrs(dir: string): Map<string, Record<string, string>> {
  const args = ["-R", "-P", "-h", "-d", "-m", "-", "-e", "hex", "--absolute-names", dir];
  const text = execFileSync("getfattr", args, { encoding: "utf8", maxBuffer: 2 ** 28 });
  const found = new Map<string, Record<string, string>>();
  for (const block of text.split("\n\n")) {
    const [head = "", ...lines] = block.trim().split("\n");
    if (!head.startsWith("# file: ")) continue;
    const path = head.slice("# file: ".length + dir.length + 1);
    const pairs = lines.map((line) => line.split("=0x"));
    found.set(path, Object.fromEntries(pairs.map(([name = "", value = ""]) => [name, value])));
  }
  return found;
}

/** The tree in a directory. */
export function treeOfDirectory(dir: string): Tree {
  const xattrs = directoryXattrs(dir);
  const entries = new Map<string, { inode: string; entry: Omit<TreeEntry, "links"> }>();
  const visit = (path: string): void => {
    const file = join(dir, path);
    const info = lstatSync(file, { bigint: true });
    const type = typeOf(Number(info.mode));
    const major = (info.rdev >> 8n) & 0xfffn;
    const minor = (info.rdev & 0xffn) | ((info.rdev >> 12n) & 0xfff00n);
    entries.set(path, {
      inode: String(info.ino),
      entry: {
        type,
        mode: (Number(info.mode) & 0o7777).toString(8),
        uid: Number(info.uid),
        gid: Number(info.gid),
        mtime: time(info.mtimeNs / 1_000_000_000n, info.mtimeNs % 1_000_000_000n),
        ...(type === "file" ? { size: Number(info.size), sha256: sha256(readFileSync(file)) } : {}),
        ...(type === "symlink" ? { target: readlinkSync(file) } : {}),
        ...(type.endsWith("device") ? { device: `${major}:${minor}` } : {}),
        xattrs: xattrs.get(path) ?? {},
      },
    });
    if (type !== "directory") return;
    for (const name of readdirSync(file)) visit(path === "" ? name : `${path}/${name}`);
  };
  visit("");
  return withLinks(entries);
}

/** Run debugfs requests on a disk and give each one's output. */
function debugfs(disk: string, requests: readonly string[]): string[] {
  const input = requests.map((request) => `${request}\n`).join("");
  const text = execFileSync("debugfs", ["-f", "-", disk], {
    input,
    encoding: "utf8",
    maxBuffer: 2 ** 28,
    stdio: ["pipe", "pipe", "pipe"],
  });
  return text.split(/^debugfs: .*\n/m).slice(1);
}

/** Extended attributes as debugfs prints them: text in quotes, or bytes in hexadecimal. */
function parseXattrs(text: string): Record<string, string> {
  const lines = [...text.matchAll(/^ {2}(\S+) \(\d+\)(?: = (.*))?$/gm)];
  return Object.fromEntries(
    lines.map(([, name = "", value = ""]) => {
      const quoted = /^"(.*)"$/s.exec(value);
      const hex =
        quoted === null
          ? value.replaceAll(" ", "")
          : Buffer.from(quoted[1] ?? "", "latin1").toString("hex");
      return [name, hex];
    }),
  );
}

/** One extended attribute's value, in hexadecimal: `stat` shows no long ones. @param file that it is written to on the way */
function xattrOf(disk: string, inode: string, name: string, file: string): string {
  debugfs(disk, [`ea_get -f ${file} <${inode}> ${name}`]);
  const value = readFileSync(file).toString("hex");
  rmSync(file);
  return value;
}

/** What `stat` of debugfs says of an inode. */
function parseStat(text: string): Omit<TreeEntry, "type" | "mode"> & { mode: number } {
  const field = (pattern: RegExp): string => {
    const match = pattern.exec(text);
    if (match === null) throw new Error(`debugfs says nothing about ${pattern}: ${text}`);
    return match[1] ?? "";
  };
  const [, seconds = "0", extra = "0"] = /^ mtime: 0x([0-9a-f]+):([0-9a-f]+)/m.exec(text) ?? [];
  const device = /major\/minor number: (\d+):(\d+)/.exec(text);
  // The upper 30 bits of the extra field are nanoseconds, the lower two more bits of the seconds.
  const nanoseconds = BigInt(`0x${extra}`) >> 2n;
  const epochs = (BigInt(`0x${extra}`) & 3n) << 32n;
  return {
    mode: Number.parseInt(field(/Mode: +(\d+)/), 8),
    uid: Number(field(/User: +(\d+)/)),
    gid: Number(field(/Group: +(\d+)/)),
    size: Number(field(/Size: (\d+)/)),
    mtime: time(BigInt.asIntN(32, BigInt(`0x${seconds}`)) + epochs, nanoseconds),
    ...(device === null ? {} : { device: `${Number(device[1])}:${Number(device[2])}` }),
    xattrs: parseXattrs(text),
    links: [],
  };
}

/**
 * The tree in an ext4 file, read by debugfs.
 * @param scratch a directory that does not exist; contents are dumped there (needs root)
 */
export function treeOfDisk(disk: string, scratch: string): Tree {
  mkdirSync(scratch);
  debugfs(disk, [`rdump / ${scratch}`]);
  const found: { path: string; inode: string; mode: number }[] = [
    { path: "", inode: "2", mode: 0o040000 },
  ];
  let level = found;
  while (level.length > 0) {
    const listings = debugfs(
      disk,
      level.map(({ inode }) => `ls -p <${inode}>`),
    );
    const next = level.flatMap(({ path }, index) =>
      (listings[index] ?? "").split("\n").flatMap((line) => {
        const [, inode = "", mode = "", , , name = ""] = line.split("/");
        if (inode === "" || name === "." || name === "..") return [];
        if (path === "" && name === "lost+found") return [];
        const at = path === "" ? name : `${path}/${name}`;
        return [{ path: at, inode, mode: Number.parseInt(mode, 8) }];
      }),
    );
    found.push(...next);
    level = next.filter(({ mode }) => typeOf(mode) === "directory");
  }
  const stats = debugfs(
    disk,
    found.map(({ inode }) => `stat <${inode}>`),
  ).map(parseStat);
  const entries = new Map<string, { inode: string; entry: Omit<TreeEntry, "links"> }>();
  for (const [index, { path, inode, mode }] of found.entries()) {
    const info = stats[index];
    if (info === undefined) throw new Error(`debugfs says nothing about ${path}`);
    const type = typeOf(mode);
    const file = join(scratch, path);
    for (const [name, value] of Object.entries(info.xattrs)) {
      if (value === "") info.xattrs[name] = xattrOf(disk, inode, name, `${scratch}.value`);
    }
    entries.set(path, {
      inode,
      entry: {
        type,
        mode: (info.mode & 0o7777).toString(8),
        uid: info.uid,
        gid: info.gid,
        mtime: info.mtime,
        ...(type === "file" ? { size: info.size ?? -1, sha256: sha256(readFileSync(file)) } : {}),
        ...(type === "symlink" ? { target: readlinkSync(file) } : {}),
        ...(info.device === undefined ? {} : { device: info.device }),
        xattrs: info.xattrs,
      },
    });
  }
  return withLinks(entries);
}
