/** The suite that every disk builder passes. Judges: e2fsck, debugfs, then our own reader. */
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Ext4Reader, type FoundEntry } from "../ext4/ext4.ts";
import { layerCases } from "../layers/cases.ts";
import { makeTar, storeLayer, type TestEntry } from "../layers/testing.ts";
import type { DiskBuilder, DiskOptions, DiskSummary } from "../model/disk.ts";
import type { Compression, LayerBlob } from "../model/image.ts";
import { run } from "../util/run.ts";

const SIZE = 64 * 1024 * 1024;

/** e2fsck must say nothing and exit 0. */
export async function expectClean(image: string): Promise<void> {
  const { code, stdout, stderr } = await run("e2fsck", ["-fn", image], {
    env: { ...process.env, LC_ALL: "C" },
  });
  expect(stdout.split("\n").filter((line) => !/^Pass \d|blocks$|^$/.test(line))).toEqual([]);
  expect({ code, stderr: stderr.replace(/^e2fsck .*\n/, "") }).toEqual({ code: 0, stderr: "" });
}

/** The short form that the cases use. */
function shortForm(entry: FoundEntry, contentOf: (sha: string) => string): string {
  if (entry.kind === "directory") return "dir";
  if (entry.kind === "symlink") return `->${entry.target}`;
  if (entry.kind === "file") return `=${contentOf(entry.sha256)}`;
  if (entry.kind === "fifo" || entry.kind === "socket") return entry.kind;
  return `${entry.kind} ${entry.major}:${entry.minor}`;
}

/** Read an image's tree, `lost+found` and the root left out. */
export function readTree(image: string): Map<string, FoundEntry> {
  const reader = new Ext4Reader(image);
  try {
    const tree = reader.tree();
    tree.delete("");
    tree.delete("lost+found");
    return tree;
  } finally {
    reader.close();
  }
}

/** What a builder is excused from, each with its reason where it is set. */
export interface BuilderTraits {
  /** This user can give files away and make devices with this builder. */
  full: boolean;
  /** Times are kept to the nanosecond, and beyond 2038. */
  exactTimes: boolean;
  /** Large directories get hash trees. */
  indexes: boolean;
}

/** Run the contract. */
export function diskBuilderContract(builder: DiskBuilder, traits: BuilderTraits): void {
  const { full, exactTimes, indexes } = traits;
  let dir = "";
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "vmsan-disk-"));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  const store = (layers: TestEntry[][], compression: Compression = "gzip"): LayerBlob[] =>
    layers.map((entries) => storeLayer(dir, makeTar(entries), compression));
  let count = 0;
  const build = async (
    layers: LayerBlob[],
    options: Partial<DiskOptions> = {},
  ): Promise<{ image: string; summary: DiskSummary }> => {
    const image = join(dir, `disk-${count++}.ext4`);
    const summary = await builder.build(
      layers,
      image,
      { sizeBytes: SIZE, journal: false, ...options },
      { signal: new AbortController().signal },
    );
    return { image, summary };
  };

  describe.skipIf(!full)("what layers mean", () => {
    test.each(layerCases)("$name", async ({ layers, tree, error }) => {
      const stored = store(layers);
      if (error !== undefined) {
        const before = readdirSync(dir).length;
        await expect(build(stored)).rejects.toMatchObject({ code: error });
        expect(readdirSync(dir).length).toBe(before);
        return;
      }
      const { image } = await build(stored);
      await expectClean(image);
      const contents = new Map<string, string>();
      for (const { data } of layers.flat()) {
        const bytes = Buffer.from((data as string | undefined) ?? "", "latin1");
        contents.set(createHash("sha256").update(bytes).digest("hex"), bytes.toString("latin1"));
      }
      const found: Record<string, string> = {};
      for (const [path, entry] of readTree(image)) {
        found[path] = shortForm(entry, (sha) => contents.get(sha) ?? sha);
      }
      const wanted = { ...tree };
      for (const path of Object.keys(tree ?? {})) {
        for (let at = path.indexOf("/"); at > 0; at = path.indexOf("/", at + 1)) {
          wanted[path.slice(0, at)] ??= "dir";
        }
      }
      // Directories that stay empty after a whiteout are not named in the cases.
      for (const [path, form] of Object.entries(found)) {
        if (form === "dir" && !(path in wanted)) delete found[path];
      }
      expect(found).toEqual(wanted);
    });
  });

  test.skipIf(!full)("keeps owners, modes, times, attributes", async () => {
    const capability = Buffer.from("0100000200200000000000000000000000000000", "hex");
    const acl = Buffer.from(
      "0200000001000600ffffffff02000400e803000004000400ffffffff10000600ffffffff20000400ffffffff",
      "hex",
    );
    const { image, summary } = await build(
      store([
        [
          { path: "./", mode: 0o751, uid: 7, gid: 8 },
          { path: "su", mode: 0o4755, uid: 100_000, gid: 70_000, data: "x" },
          { path: "time", mtime: 4_000_000_000, mtimeNsec: 123_456_789 },
          { path: "before", mtime: -3, mtimeNsec: 500_000_000 },
          { path: "ping", data: "p", xattrs: new Map([["security.capability", capability]]) },
          {
            path: "acl",
            // The group's bits are the ACL's mask, as in every archive of a real file.
            mode: 0o664,
            xattrs: new Map<string, Uint8Array>([
              ["system.posix_acl_access", acl],
              ["user.note", Buffer.from("n")],
              ["user.big", Buffer.alloc(900, 7)],
              ["trusted.t", Buffer.from("v")],
            ]),
          },
          { path: "sticky/", mode: 0o1777 },
        ],
      ]),
    );
    await expectClean(image);
    expect(summary.warnings.length).toBe(exactTimes ? 0 : 1);
    const reader = new Ext4Reader(image);
    const tree = reader.tree();
    reader.close();
    expect(tree.get("")).toMatchObject({ mode: 0o751, uid: 7, gid: 8 });
    expect(tree.get("su")).toMatchObject({ mode: 0o4755, uid: 100_000, gid: 70_000 });
    if (exactTimes)
      expect(tree.get("time")).toMatchObject({ mtime: 4_000_000_000, mtimeNsec: 123_456_789 });
    if (exactTimes) expect(tree.get("before")).toMatchObject({ mtime: -3, mtimeNsec: 500_000_000 });
    expect(tree.get("ping")?.xattrs).toEqual({ "security.capability": capability.toString("hex") });
    expect(tree.get("acl")?.xattrs).toEqual({
      "system.posix_acl_access": acl.toString("hex"),
      "user.note": Buffer.from("n").toString("hex"),
      "user.big": Buffer.alloc(900, 7).toString("hex"),
      "trusted.t": Buffer.from("v").toString("hex"),
    });
    expect(tree.get("sticky")?.mode).toBe(0o1777);
  });

  test.each(["none", "gzip", "zstd"] as const)(
    "reads layers compressed with %s",
    async (compression) => {
      const data = Buffer.from(Array.from({ length: 3_000_000 }, (_, i) => (i * i) >> 7));
      const { image } = await build(store([[{ path: "big", data }]], compression));
      await expectClean(image);
      const sha = createHash("sha256").update(data).digest("hex");
      expect(readTree(image).get("big")).toMatchObject({ sha256: sha, size: data.length });
    },
  );

  test("long runs of zeros become holes", async () => {
    const data = Buffer.alloc(8 * 1024 * 1024);
    data[5_000_000] = 1;
    const { image, summary } = await build(store([[{ path: "sparse", data }]]));
    await expectClean(image);
    const found = readTree(image).get("sparse");
    expect(found?.sha256).toBe(createHash("sha256").update(data).digest("hex"));
    expect(found?.allocated).toBeLessThan(200_000);
    expect(summary.holeBytes).toBeGreaterThan(7_900_000);
  });

  test("large directories are indexed", async () => {
    const names = Array.from({ length: 2000 }, (_, i) => ({
      path: `d/entry-number-${i}`,
      data: "",
    }));
    const { image } = await build(store([names]));
    await expectClean(image);
    const tree = readTree(image);
    expect(tree.size).toBe(2001);
    expect(tree.get("d")?.indexed).toBe(indexes);
  });

  test("debugfs finds the same content", async () => {
    const { image } = await build(
      store([
        [
          { path: "d/a", data: "hello\n" },
          { path: "e", data: "" },
        ],
      ]),
    );
    const shown = await run("debugfs", ["-R", "cat /d/a", image]);
    expect(shown.stdout).toBe("hello\n");
  });

  test("a journal when asked for", async () => {
    const { image } = await build(store([[{ path: "a" }]]), { journal: true, label: "disk" });
    await expectClean(image);
    const reader = new Ext4Reader(image);
    reader.close();
    expect(reader.superblock.compat & 4).toBe(4);
    expect(reader.superblock.label).toBe("disk");
  });

  test("a disk too small is an error that leaves nothing", async () => {
    const data = Buffer.alloc(3 * 1024 * 1024, 1);
    const layers = store([[{ path: "a", data }]]);
    const before = readdirSync(dir).length;
    await expect(build(layers, { sizeBytes: 1024 * 1024 })).rejects.toHaveProperty("code");
    expect(readdirSync(dir).length).toBe(before);
  });

  test("a blob that is not what its digest says", async () => {
    const [layer] = store([[{ path: "a", data: "a".repeat(5000) }]]);
    if (layer === undefined) throw new Error("no layer");
    const zeros = `sha256:${"0".repeat(64)}` as const;
    const right = readFileSync(layer.path);
    // In its head, where a decompressor minds; in its middle, where only digests do; and its end.
    const flipped = (at: number): Buffer => {
      const bytes = Buffer.from(right);
      bytes[at] = (bytes[at] ?? 0) ^ 0x55;
      return bytes;
    };
    for (const wrong of [
      flipped(0),
      flipped(right.length >> 1),
      flipped(right.length - 5),
      Buffer.concat([right, Buffer.alloc(9)]),
    ]) {
      writeFileSync(layer.path, wrong);
      await expect(build([layer])).rejects.toMatchObject({ code: "ERR_LAYER_DIGEST" });
    }
    writeFileSync(layer.path, right);
    await expect(build([{ ...layer, diffId: zeros }])).rejects.toMatchObject({
      code: "ERR_LAYER_DIFF_ID",
    });
  });

  test("an abort stops it and leaves nothing", async () => {
    const layers = store([[{ path: "a", data: Buffer.alloc(1_000_000, 1) }]]);
    const before = readdirSync(dir).length;
    const controller = new AbortController();
    const image = join(dir, "aborted.ext4");
    const building = builder.build(
      layers,
      image,
      { sizeBytes: SIZE, journal: false },
      { signal: controller.signal },
    );
    controller.abort(new Error("enough"));
    await expect(building).rejects.toThrow("enough");
    expect(existsSync(image)).toBe(false);
    expect(readdirSync(dir).length).toBe(before);
  });

  test("the judge notices a broken image", async () => {
    const { image } = await build(store([[{ path: "a", data: "x" }]]));
    const bytes = readFileSync(image);
    // The count of free blocks: e2fsck compares it with the bitmaps.
    bytes[1024 + 0xc] = (bytes[1024 + 0xc] ?? 0) ^ 1;
    const copy = `${image}.broken`;
    writeFileSync(copy, bytes);
    await expect(expectClean(copy)).rejects.toThrow();
  });
}
