/**
 * For tests: random images, and what each of three independent makers turns them into. Paths meet
 * often, so that layers hide, replace and link one another; names and sizes sit at the edges.
 */
import { createHash } from "node:crypto";
import { lstatSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as fc from "fast-check";
import { Ext4Reader, type FoundEntry } from "../ext4/ext4.ts";
import type { InodeKind } from "../ext4/constants.ts";
import { makeTar, storeLayer, storeLayout, type TestEntry } from "../layers/testing.ts";
import type { DiskBuilder } from "../model/disk.ts";
import { VmsanError } from "../model/errors.ts";
import type { LayerBlob } from "../model/image.ts";
import { run } from "../util/run.ts";

/** One random image: layers bottom to top. */
export type RandomImage = TestEntry[][];

/** No entry is younger: what umoci has made later is of the time of its run. */
const LATEST = 1_700_000_000;

/** Any bytes but `/`, NUL and what would be a whiteout, as a byte string. */
const oddName = fc
  .uint8Array({ minLength: 1, maxLength: 255 })
  .map((bytes) => Buffer.from(bytes.map((b) => (b === 0 || b === 47 ? 1 : b))).toString("latin1"))
  .filter((name) => name !== "." && name !== ".." && !name.startsWith(".wh."));
const name = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom("a", "b", "c", "d") },
  { weight: 1, arbitrary: oddName },
  { weight: 1, arbitrary: fc.constantFrom("n".repeat(255), " ", "-x", "new\nline", "\xc3\xa9") },
);
const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((parts) => parts.join("/"));

/** Contents around the sizes of blocks and windows, some with zeros in them. */
const data = fc
  .tuple(
    fc.constantFrom(0, 1, 59, 4095, 4096, 4097, 65_536, 65_537, 200_000),
    fc.nat(255),
    fc.constantFrom(0, 1, 4096, 70_000),
  )
  .map(([size, byte, zeros]) => Buffer.concat([Buffer.alloc(zeros), Buffer.alloc(size, byte)]));

const xattrs = fc.option(
  fc
    .array(fc.tuple(fc.constantFrom("user.a", "user.long-name", "trusted.t"), fc.nat(900)), {
      minLength: 1,
      maxLength: 3,
    })
    .map((list) => new Map(list.map(([key, size]) => [key, Buffer.alloc(size + 1, size)]))),
  { nil: undefined, freq: 8 },
);
const common = fc.record({
  mode: fc.nat(0o7777),
  uid: fc.constantFrom(0, 1, 1000, 65_534, 70_000),
  gid: fc.constantFrom(0, 5, 100_000),
  mtime: fc.integer({ min: 1, max: LATEST }),
});

const entry: fc.Arbitrary<TestEntry> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.tuple(path, common, data, xattrs).map(([at, meta, bytes, attrs]): TestEntry => ({
      path: at,
      ...meta,
      data: bytes,
      xattrs: attrs,
    })),
  },
  {
    weight: 4,
    arbitrary: fc
      .tuple(path, common, xattrs)
      .map(([at, meta, attrs]): TestEntry => ({ path: `${at}/`, ...meta, xattrs: attrs })),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(path, common, path)
      .map(([at, meta, link]): TestEntry => ({ path: at, ...meta, kind: "symlink", link })),
  },
  {
    weight: 3,
    arbitrary: fc
      .tuple(path, common, path)
      .map(([at, meta, link]): TestEntry => ({ path: at, ...meta, kind: "hardlink", link })),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(path, common, fc.constantFrom("fifo", "char", "block"))
      .map(([at, meta, kind]): TestEntry => ({ path: at, ...meta, kind, major: 7, minor: 300 })),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(path, fc.boolean()).map(([at, opaque]): TestEntry => ({
      path: at.replace(/[^/]*$/, (last) => (opaque ? ".wh..wh..opq" : `.wh.${last.slice(0, 251)}`)),
    })),
  },
);

/** Most hard links name a file that was there before: links to nothing end a run early. */
function aimLinks(image: RandomImage): RandomImage {
  const files: string[] = [];
  return image.map((entries) =>
    entries.map((given) => {
      const isFile = given.data !== undefined && !given.path.endsWith("/");
      if (isFile) files.push(given.path);
      if (given.kind !== "hardlink") return given;
      const { link = "" } = given;
      const number = link.length + link.charCodeAt(0);
      const target = files[number % Math.max(1, files.length)];
      return target === undefined || number % 13 === 0 ? given : { ...given, link: target };
    }),
  );
}

/** Random images of up to four layers. */
export const randomImage: fc.Arbitrary<RandomImage> = fc
  .array(fc.array(entry, { maxLength: 12 }), { minLength: 1, maxLength: 4 })
  .map(aimLinks);

/** Store an image's layers. */
export function storeImage(dir: string, image: RandomImage): LayerBlob[] {
  return image.map((entries) => storeLayer(dir, makeTar(entries), "gzip"));
}

/** What is compared of a name; hard links by the first of their names. */
export type Shown = Record<string, string>;

/** One line on an inode. */
function line(
  kind: InodeKind,
  meta: { mode: number; uid: number; gid: number; mtime: number },
  rest: string,
): string {
  const mode = kind === "symlink" ? 0o777 : meta.mode;
  return `${kind} ${mode.toString(8)} ${meta.uid}:${meta.gid} ${meta.mtime} ${rest}`;
}

/** A tree as our reader finds it on a disk image, without what file systems add. */
export function shownOnDisk(tree: ReadonlyMap<string, FoundEntry>, withXattrs: boolean): Shown {
  const first = new Map<number, string>();
  const shown: Shown = {};
  for (const path of [...tree.keys()].toSorted()) {
    const entry = tree.get(path);
    if (entry === undefined || path === "" || path === "lost+found") continue;
    const { kind, inode, target, major, minor, size, sha256 } = entry;
    const known = first.get(inode);
    if (known !== undefined) {
      shown[path] = `= ${known}`;
      continue;
    }
    first.set(inode, path);
    const rest =
      kind === "file"
        ? `${size} ${sha256}`
        : kind === "symlink"
          ? target
          : kind === "char" || kind === "block"
            ? `${major}:${minor}`
            : "";
    const attributes = withXattrs
      ? JSON.stringify(entry.xattrs, Object.keys(entry.xattrs).sort())
      : "";
    shown[path] = line(kind, entry, rest) + attributes;
  }
  return shown;
}

/** The same of a directory of this machine. */
function shownInDirectory(root: string): Shown {
  const found = new Map<string, { key: string; text: string }>();
  const visit = (at: string): void => {
    const here = Buffer.from(join(root, "/"), "latin1");
    for (const bytes of readdirSync(Buffer.concat([here, Buffer.from(at, "latin1")]), {
      encoding: "buffer",
    })) {
      const path = at + bytes.toString("latin1");
      const full = Buffer.concat([here, Buffer.from(path, "latin1")]);
      const info = lstatSync(full);
      let kind: InodeKind = "fifo";
      let rest = "";
      if (info.isDirectory()) kind = "directory";
      else if (info.isSymbolicLink()) {
        kind = "symlink";
        rest = readlinkSync(full, { encoding: "buffer" }).toString("latin1");
      } else if (info.isFile()) {
        kind = "file";
        const sum = createHash("sha256").update(readFileSync(full)).digest("hex");
        rest = `${info.size} ${sum}`;
      } else if (info.isCharacterDevice() || info.isBlockDevice()) {
        kind = info.isBlockDevice() ? "block" : "char";
        rest = "7:300";
      }
      const meta = {
        mode: info.mode & 0o7777,
        uid: info.uid,
        gid: info.gid,
        mtime: Math.floor(info.mtimeMs / 1000),
      };
      const text = line(kind, meta, rest);
      found.set(path, { key: `${info.dev}:${info.ino}`, text });
      if (kind === "directory") visit(`${path}/`);
    }
  };
  visit("");
  const first = new Map<string, string>();
  const shown: Shown = {};
  for (const path of [...found.keys()].toSorted()) {
    const { key, text } = found.get(path) ?? { key: "", text: "" };
    const known = first.get(key);
    shown[path] = known === undefined ? text : `= ${known}`;
    first.set(key, known ?? path);
  }
  return shown;
}

/** What umoci makes of an image (as root); undefined when it refuses it. */
async function unpackedByUmoci(
  dir: string,
  layers: readonly LayerBlob[],
): Promise<Shown | undefined> {
  const bundle = join(dir, "bundle");
  const layout = join(dir, "layout");
  try {
    const image = storeLayout(layout, layers);
    const { code } = await run("umoci", ["unpack", "--image", image, bundle]);
    return code === 0 ? shownInDirectory(join(bundle, "rootfs")) : undefined;
  } finally {
    for (const path of [bundle, layout]) rmSync(path, { recursive: true, force: true });
  }
}

/**
 * Leave out times of directories that umoci gives the time of its run: those that no entry
 * describes, and those that such ones were made in.
 */
function withoutNow(ours: Shown, theirs: Shown): [Shown, Shown] {
  const hidden = new Set<string>();
  for (const [path, text] of Object.entries(theirs)) {
    const time = /^directory \S+ \S+ (\d+)/.exec(text)?.[1];
    if (time !== undefined && Number(time) > LATEST) hidden.add(path);
  }
  const hide = (shown: Shown): Shown =>
    Object.fromEntries(
      Object.entries(shown).map(([path, text]) => [
        path,
        hidden.has(path) ? text.replace(/^(directory \S+ \S+) \d+/, "$1 -") : text,
      ]),
    );
  return [hide(ours), hide(theirs)];
}

/** e2fsck's complaints; "" when there are none. */
export async function complaints(image: string): Promise<string> {
  const { code, stdout, stderr } = await run("e2fsck", ["-fn", image]);
  return code === 0 ? "" : `${stdout}${stderr}`;
}

/** Where two trees differ, a line each. */
export function differences(ours: Shown, theirs: Shown): string[] {
  const paths = [...new Set([...Object.keys(ours), ...Object.keys(theirs)])].toSorted();
  return paths
    .filter((path) => ours[path] !== theirs[path])
    .map((path) => `${JSON.stringify(path)}: ours ${ours[path]}, theirs ${theirs[path]}`);
}

/** A tree, or the code of the error, that a builder makes of layers; e2fsck must like the disk. */
export async function builtTree(
  builder: DiskBuilder,
  dir: string,
  layers: LayerBlob[],
): Promise<ReadonlyMap<string, FoundEntry> | string> {
  const disk = join(dir, `${builder.name}.ext4`);
  const signal = new AbortController().signal;
  try {
    await builder.build(layers, disk, { sizeBytes: 2 ** 26, journal: false }, { signal });
    const found = await complaints(disk);
    if (found !== "") throw new Error(`e2fsck: ${found}`);
    const reader = new Ext4Reader(disk);
    try {
      return reader.tree();
    } finally {
      reader.close();
    }
  } catch (error) {
    if (error instanceof VmsanError) return error.code;
    throw error;
  } finally {
    rmSync(disk, { force: true });
  }
}

/**
 * Build a random image and compare it with umoci's tree. Throws where they differ.
 * @returns what became of it, to be counted
 */
export async function compareWithUmoci(
  builder: DiskBuilder,
  dir: string,
  image: RandomImage,
): Promise<string> {
  const layers = storeImage(dir, image);
  const tree = await builtTree(builder, dir, layers);
  const theirs = await unpackedByUmoci(dir, layers);
  if (typeof tree === "string") {
    if (theirs !== undefined) throw new Error(`${tree}, but umoci makes a tree of it`);
    return `${tree}, umoci refuses it too`;
  }
  if (theirs === undefined) return "tree, refused by umoci";
  const found = differences(...withoutNow(shownOnDisk(tree, false), theirs));
  if (found.length > 0) throw new Error(found.slice(0, 5).join("\n"));
  return "the same tree";
}
