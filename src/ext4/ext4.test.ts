import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { VmsanError } from "../model/errors.ts";
import { run, runOk } from "../util/run.ts";
import { crc32c, crc32cWord, crc32cZeros } from "./crc32c.ts";
import { createEmptyDisk } from "./empty.ts";
import { Ext4Reader, Ext4Writer, ImageFile } from "./ext4.ts";
import { growDisk } from "./grow.ts";
import { FileTree, PLAIN_DIRECTORY, ROOT, type NodeFields } from "../util/file-tree/file-tree.ts";
import { DirectoryHash } from "./hash.ts";
import { clampTime, decodeTime, timeExtra } from "./inodes/inode.ts";
import { packAcl, unpackAcl } from "./inodes/xattr.ts";

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const uuid = "01234567-89ab-4def-8123-456789abcdef";
let dir = "";
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "vmsan-ext4-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));
let count = 0;
const fresh = (): string => join(dir, `image-${count++}`);

/** e2fsck finds nothing to say. */
async function expectClean(image: string): Promise<void> {
  const { code, stdout } = await run("e2fsck", ["-fn", image]);
  expect({ code, stdout: code === 0 ? "" : stdout }).toEqual({ code: 0, stdout: "" });
}

/** An inode as a test writes it; the same object under several names is a file with hard links. */
type TreeInode = NodeFields & {
  content: number;
  children: Map<string, TreeInode> | undefined;
};

/** A tree of the given children of its root. */
function treeOf(children: Map<string, TreeInode>): FileTree {
  const tree = new FileTree();
  const known = new Map<TreeInode, number>();
  const fill = (directory: number, inside: Map<string, TreeInode>): void => {
    for (const [name, child] of inside) {
      const node = known.get(child) ?? tree.add(child);
      known.set(child, node);
      tree.contents[node] = child.content;
      tree.link(directory, name, node);
      if (child.children !== undefined) fill(node, child.children);
    }
  };
  fill(ROOT, children);
  return tree;
}

/** Write a tree of the given children, and check it. */
async function write(children: Map<string, TreeInode>, sizeBytes = 256 * MIB): Promise<string> {
  const path = fresh();
  const file = new ImageFile(path, sizeBytes);
  try {
    const id = Buffer.from(uuid.replaceAll("-", ""), "hex");
    const writer = new Ext4Writer(file, { sizeBytes, journal: false, uuid: id, hashSeed: id });
    writer.finish(treeOf(children));
  } finally {
    file.close();
  }
  await expectClean(path);
  return path;
}

const inode = (fields: Partial<TreeInode>): TreeInode => ({
  ...PLAIN_DIRECTORY,
  kind: "file",
  mode: 0o644,
  content: 0,
  children: undefined,
  ...fields,
});

test.each([1, 4, 96, 4000])("crc32c: %d zero bytes, and a word, by table", (count) => {
  const before = crc32c(0xffffffff, Buffer.from("abc"));
  expect(crc32cZeros(before, count)).toBe(crc32c(before, Buffer.alloc(count)));
  const word = Buffer.alloc(4);
  word.writeUInt32LE(0xfedcba98 - count);
  expect(crc32cWord(before, 0xfedcba98 - count)).toBe(crc32c(before, word));
});

test("crc32c: the check value of RFC 3720", () => {
  expect((crc32c(0xffffffff, Buffer.from("123456789")) ^ 0xffffffff) >>> 0).toBe(0xe3069283);
});

test("the directory hash is debugfs's", async () => {
  const hash = new DirectoryHash(Buffer.from(uuid.replaceAll("-", ""), "hex"));
  for (const name of [
    "a",
    "hello",
    "x".repeat(31),
    "y".repeat(32),
    "z".repeat(33),
    "n".repeat(255),
  ]) {
    const said = await runOk(
      "debugfs",
      ["-R", `dx_hash -h half_md4 -s ${uuid} ${name}`],
      "ERR_TEST",
    );
    const match = /is 0x([0-9a-f]+) \(minor 0x([0-9a-f]+)\)/.exec(said);
    hash.of(Buffer.from(name), 0, name.length);
    expect({ major: hash.major, minor: hash.minor }).toEqual({
      major: Number.parseInt(match?.[1] ?? "", 16),
      minor: Number.parseInt(match?.[2] ?? "", 16),
    });
  }
});

test.each([
  0,
  -1,
  -(2 ** 31),
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32 - 1,
  2 ** 32,
  2_200_000_000,
  15_032_385_535,
])("time %i survives", (seconds) => {
  expect(decodeTime(seconds | 0, timeExtra(seconds, 999_999_999))).toEqual({
    seconds,
    nsec: 999_999_999,
  });
  expect(clampTime(seconds)).toBe(seconds);
});

test("times outside the range are moved to its ends", () => {
  expect([clampTime(-1e12), clampTime(1e12)]).toEqual([-(2 ** 31), 15_032_385_535]);
});

test("ACLs survive ext4's own form", () => {
  const acl = Buffer.from(
    "0200000001000600ffffffff02000400e803000004000400ffffffff10000600ffffffff20000400ffffffff",
    "hex",
  );
  const packed = packAcl(acl);
  expect(packed?.length).toBe(4 + 5 * 4 + 4);
  expect(Buffer.from(unpackAcl(packed ?? new Uint8Array())).equals(acl)).toBe(true);
  expect(packAcl(acl.subarray(0, 10))).toBeUndefined();
});

describe("empty disks", () => {
  test.each([
    64 * 1024,
    MIB,
    100 * MIB,
    128 * MIB,
    128 * MIB + 4096,
    4 * GIB,
    10 * GIB,
    1024 * GIB,
  ])("%i bytes", async (sizeBytes) => {
    const path = fresh();
    await createEmptyDisk(path, { sizeBytes, journal: true, label: "vm" });
    await expectClean(path);
    expect(statSync(path).size).toBe(sizeBytes);
    // A terabyte's descriptors take 512 KiB, and there are 18 copies of them.
    expect(statSync(path).blocks * 512).toBeLessThan(sizeBytes < 1024 * GIB ? MIB : 12 * MIB);
    rmSync(path);
  });
  test("the same UUID gives the same bytes", async () => {
    const paths = [fresh(), fresh()];
    for (const path of paths)
      await createEmptyDisk(path, { sizeBytes: 16 * MIB, journal: true, uuid });
    const [a, b] = paths.map((path) => readFileSync(path));
    expect(a !== undefined && b !== undefined && a.equals(b)).toBe(true);
  });
  test.each([0, 4095, 65_537, 2 ** 60])("a size of %i is refused", async (sizeBytes) => {
    await expect(createEmptyDisk(fresh(), { sizeBytes, journal: false })).rejects.toThrow();
  });
});

describe("growing", () => {
  const steps = [100 * MIB, 129 * MIB, 2 * GIB, 10 * GIB, 40 * GIB, 300 * GIB];
  test.each([true, false])("step by step; with a journal: %s", async (journal) => {
    const path = fresh();
    await createEmptyDisk(path, { sizeBytes: 64 * MIB, journal });
    for (const size of steps) {
      const got = await growDisk(path, size);
      expect(size - got).toBeLessThan(2.2 * MIB);
      await expectClean(path);
    }
    expect(statSync(path).blocks * 512).toBeLessThan(5 * MIB);
    // What has been grown by us, resize2fs can grow further.
    await runOk("resize2fs", [path, "400G"], "ERR_TEST");
    await expectClean(path);
  });
  test("beyond the reserved descriptors: refused", async () => {
    const path = fresh();
    await createEmptyDisk(path, { sizeBytes: 64 * MIB, journal: true });
    await expect(growDisk(path, 600 * GIB)).rejects.toMatchObject({ code: "ERR_DISK_GROW" });
    await expectClean(path);
  });
  test("what the kernel needs to grow a mounted disk", async () => {
    const path = fresh();
    await createEmptyDisk(path, { sizeBytes: 10 * GIB, journal: true });
    const said = await runOk("dumpe2fs", ["-h", path], "ERR_TEST");
    expect(said).toMatch(/features:.* resize_inode .*sparse_super /);
    expect(said).not.toContain("sparse_super2");
    // A hundred times the size: descriptors of 8 GiB a block.
    expect(Number(/Reserved GDT blocks: +(\d+)/.exec(said)?.[1])).toBeGreaterThanOrEqual(120);
    // The copies say the same.
    const groups = (text: string): string[] =>
      text.split("\n").filter((line) => /bitmap at/.test(line));
    const stats = async (...place: string[]): Promise<string> =>
      await runOk("debugfs", ["-c", ...place, "-R", "stats", path], "ERR_TEST");
    const primary = await stats();
    const copy = await stats("-s", "32768", "-b", "4096");
    expect(groups(copy).length).toBe(80);
    expect(groups(copy)).toEqual(groups(primary));
  });
  test("resize2fs can grow it too", async () => {
    const path = fresh();
    await createEmptyDisk(path, { sizeBytes: GIB, journal: true });
    await runOk("resize2fs", [path, "20G"], "ERR_TEST");
    await expectClean(path);
  });
  test("refuses to shrink, and what is no disk of ours", async () => {
    const path = fresh();
    await createEmptyDisk(path, { sizeBytes: 64 * MIB, journal: true });
    await expect(growDisk(path, 32 * MIB)).rejects.toMatchObject({ code: "ERR_DISK_GROW" });
    const foreign = fresh();
    await runOk("mkfs.ext4", ["-q", "-F", foreign, "32m"], "ERR_TEST");
    await expect(growDisk(foreign, 64 * MIB)).rejects.toMatchObject({ code: "ERR_DISK_GROW" });
  });
});

describe("trees", () => {
  test("100,000 names in one directory, found through its index", async () => {
    const children = new Map<string, TreeInode>();
    for (let i = 0; i < 100_000; i++)
      children.set(`a-somewhat-longer-name-${i}`, inode({ mtime: i }));
    const image = await write(new Map([["d", inode({ kind: "directory", children })]]), 1024 * MIB);
    const found = await runOk(
      "debugfs",
      ["-R", "stat /d/a-somewhat-longer-name-77777", image],
      "ERR_TEST",
    );
    expect(found).toContain("Type: regular");
    const dump = await runOk("debugfs", ["-R", "htree_dump /d", image], "ERR_TEST", {
      maxOutput: 1 << 24,
    });
    expect(dump.includes("Indirect levels: 1")).toBe(true);
  });
  test("any bytes in names, of any length", async () => {
    const children = new Map<string, TreeInode>();
    for (let i = 1; i < 256; i++) {
      if (i !== 47)
        children.set(String.fromCharCode(i) === "." ? "..." : String.fromCharCode(i), inode({}));
      children.set("n".repeat(i), inode({}));
    }
    for (let i = 0; i < 3000; i++) children.set(`\xff\x80${i}\xe9`, inode({}));
    const image = await write(children);
    const reader = new Ext4Reader(image);
    const found = new Set(reader.tree().keys());
    reader.close();
    expect([...children.keys()].filter((name) => !found.has(name))).toEqual([]);
  });
  test("60,000 links are kept, more than 65,000 refused", async () => {
    const shared = inode({ mode: 0o600 });
    const children = new Map<string, TreeInode>();
    for (let i = 0; i < 60_000; i++) children.set(`l${i}`, shared);
    const image = await write(children);
    expect(await runOk("debugfs", ["-R", "stat /l0", image], "ERR_TEST")).toContain("Links: 60000");
    for (let i = 60_000; i < 65_001; i++) children.set(`l${i}`, shared);
    await expect(write(children)).rejects.toMatchObject({ code: "ERR_DISK_LINKS" });
  });
  test("70,000 subdirectories", async () => {
    const children = new Map<string, TreeInode>();
    for (let i = 0; i < 70_000; i++)
      children.set(`d${i}`, inode({ kind: "directory", children: new Map() }));
    await write(children, 1024 * MIB);
  }, 120_000);
  test("more files than the disk can number", async () => {
    const children = new Map<string, TreeInode>();
    for (let i = 0; i < 40_000; i++) children.set(`f${i}`, inode({}));
    await expect(write(children, 100 * MIB)).rejects.toMatchObject({ code: "ERR_DISK_INODES" });
  });
  test("attributes up to a block, larger ones refused", async () => {
    const value = (bytes: number): TreeInode =>
      inode({ xattrs: new Map([["user.x", Buffer.alloc(bytes, 1)]]) });
    await write(
      new Map([
        ["a", value(4000)],
        ["b", value(76)],
        ["c", value(77)],
        ["d", value(0)],
      ]),
    );
    await expect(write(new Map([["a", value(4096)]]))).rejects.toBeInstanceOf(VmsanError);
  });
  test("many extents: trees of several levels", async () => {
    const path = fresh();
    const sizeBytes = 512 * MIB;
    const file = new ImageFile(path, sizeBytes);
    const id = Buffer.from(uuid.replaceAll("-", ""), "hex");
    const writer = new Ext4Writer(file, { sizeBytes, journal: true, uuid: id, hashSeed: id });
    const chunk = Buffer.alloc(1, 1);
    const size = 20 * GIB;
    writer.data.begin(size);
    for (let i = 0; i < 2000; i++) writer.data.write(i * 10 * MIB, chunk, 0, 1);
    const content = writer.data.end();
    writer.finish(treeOf(new Map([["sparse", inode({ size, content })]])));
    file.close();
    await expectClean(path);
    expect(
      await runOk("debugfs", ["-R", "ex /sparse", path], "ERR_TEST", { maxOutput: 1 << 24 }),
    ).toContain("2/ 2");
  });
});
