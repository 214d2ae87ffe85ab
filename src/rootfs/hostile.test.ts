/** Layers that mean harm end in a right tree or a coded error, and in nothing outside the image. */
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { zstdCompressSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { DEFAULT_LIMITS, type LayerLimits } from "../layers/layers.ts";
import { digestOf, makeTar, storeLayer } from "../layers/testing.ts";
import type { LayerBlob } from "../model/image.ts";
import { runBuild } from "./build.ts";
import { expectClean, readTree } from "./contract.ts";
import { identityOf } from "./identity.ts";
import type { BuildResult } from "./protocol.ts";

const MIB = 2 ** 20;
let dir = "";
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "vmsan-hostile-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Build; nothing but layers lies in the directory when it fails. */
async function build(
  layers: LayerBlob[],
  limits: Partial<LayerLimits> = {},
): Promise<{ result: BuildResult; image: string }> {
  const image = join(dir, "image.ext4");
  rmSync(image, { force: true });
  const before = readdirSync(dir);
  try {
    const result = await runBuild(
      layers,
      {
        output: image,
        format: "disk",
        options: { sizeBytes: 32 * MIB, journal: false },
        identity: identityOf("x"),
        limits: { ...DEFAULT_LIMITS, ...limits },
      },
      { signal: new AbortController().signal },
    );
    return { result, image };
  } catch (error) {
    expect(readdirSync(dir)).toEqual(before);
    throw error;
  }
}

const code = (value: string): object => ({ code: value });
const ZEROS = zstdCompressSync(Buffer.alloc(64 * MIB));

/** A layer that holds one file of many zeros, in as many zstd frames; and the archive's digest. */
function zeroLayer(pieces: number, claimed = pieces): LayerBlob {
  const whole = makeTar([{ path: "zeros", size: claimed * 64 * MIB, data: "" }]);
  const head = whole.subarray(0, 512);
  const end = whole.subarray(512);
  const hash = createHash("sha256").update(head);
  for (let i = 0; i < pieces; i++) hash.update(Buffer.alloc(64 * MIB));
  hash.update(end);
  const blob = Buffer.concat([
    zstdCompressSync(head),
    ...Array.from({ length: pieces }, () => ZEROS),
    zstdCompressSync(end),
  ]);
  const layer = storeLayer(dir, whole, "zstd", blob);
  return { ...layer, diffId: `sha256:${hash.digest("hex")}` };
}

test("hundreds of megabytes of zeros become one hole", async () => {
  const { result, image } = await build([zeroLayer(4)]);
  await expectClean(image);
  expect(result).toMatchObject({ dataBytes: 0, holeBytes: 256 * MIB });
  expect(readTree(image).get("zeros")).toMatchObject({ size: 256 * MIB, allocated: 0 });
});

test("a blob that expands without end is given up while its one file is read", async () => {
  await expect(build([zeroLayer(40, 2 ** 20)])).rejects.toMatchObject(code("ERR_LAYER_LIMIT"));
});

test("an image that is larger than allowed", async () => {
  const limits = { archiveBytes: 100 * MIB };
  await expect(build([zeroLayer(4)], limits)).rejects.toMatchObject(code("ERR_LAYER_LIMIT"));
});

test("names and attributes that would fill the memory", async () => {
  const xattrs = new Map([["user.x", Buffer.alloc(60_000, 1)]]);
  const entries = Array.from({ length: 20 }, (_, i) => ({ path: `f${i}`, xattrs }));
  const layer = storeLayer(dir, makeTar(entries), "gzip");
  await expect(build([layer], { metadataBytes: MIB })).rejects.toMatchObject(
    code("ERR_LAYER_LIMIT"),
  );
});

test("paths through a great many directories", async () => {
  const entries = Array.from({ length: 50 }, (_, i) => ({ path: `${i}/${"d/".repeat(100)}f` }));
  const layer = storeLayer(dir, makeTar(entries), "gzip");
  await expect(build([layer], { implied: 4000 })).rejects.toMatchObject(code("ERR_LAYER_LIMIT"));
});

test("global headers without end", async () => {
  const one = (i: number): Buffer => {
    const text = `10000 k${i}=`.padEnd(9999, "x");
    const tar = makeTar([{ path: "pax", data: `${text}\n` }]);
    const header = Buffer.from(tar.subarray(0, 512));
    header.write("g", 156, "latin1");
    header.fill(0x20, 148, 156);
    let sum = 0;
    for (const byte of header) sum += byte;
    header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
    return Buffer.concat([header, tar.subarray(512, tar.length - 1024)]);
  };
  const tar = Buffer.concat([...Array.from({ length: 120 }, (_, i) => one(i)), makeTar([])]);
  await expect(build([storeLayer(dir, tar, "gzip")])).rejects.toMatchObject(
    code("ERR_LAYER_TAR_HEADER_SIZE"),
  );
});

test("a sparse file larger than ext4 can map", async () => {
  const records = (size: number): string =>
    [`GNU.sparse.size=${size}`, "GNU.sparse.map=", "GNU.sparse.name=huge"]
      .map((text) => `${text.length + 4} ${text}\n`)
      .join("");
  const layer = (size: number): LayerBlob => {
    const text = records(size);
    const tar = makeTar([{ path: "pax", data: text }, { path: "f" }]);
    tar.write("x", 156, "latin1");
    tar.fill(0x20, 148, 156);
    let sum = 0;
    for (const byte of tar.subarray(0, 512)) sum += byte;
    tar.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
    return storeLayer(dir, tar, "gzip");
  };
  await expect(build([layer(2 ** 50)])).rejects.toMatchObject(code("ERR_DISK_FILE_SIZE"));
  // More than 32 bits of size; the judge reads all of it, so no more than that needs.
  const { image } = await build([layer(5_000_000_000)]);
  await expectClean(image);
  expect(readTree(image).get("huge")).toMatchObject({ allocated: 0 });
}, 300_000);

test.each([
  ["one path", 1],
  ["a few paths by turns", 3],
])("thousands of files at %s leave one on the disk", async (_, paths) => {
  // Of all sizes, so that what one gives back fits the next only in parts.
  const entries = Array.from({ length: 3000 }, (__, i) => ({
    path: `a/${i % paths}`,
    data: Buffer.alloc(1 + ((i * 7919) % 90_000), 1 + (i % 250)),
  }));
  const { image } = await build([storeLayer(dir, makeTar(entries), "gzip")]);
  await expectClean(image);
  expect(statSync(image).blocks * 512).toBeLessThan(3 * MIB);
  const tree = readTree(image);
  for (const [path, data] of new Map(entries.map((entry) => [entry.path, entry.data]))) {
    const sha256 = createHash("sha256").update(data).digest("hex");
    expect(tree.get(path)).toMatchObject({ size: data.length, sha256 });
  }
});

test("an archive with too many entries is refused while it is read", async () => {
  const entries = Array.from({ length: 5000 }, (_, i) => ({ path: `f${i}` }));
  const tar = makeTar(entries);
  // What follows is no archive: nobody gets there.
  const whole = Buffer.concat([tar.subarray(0, tar.length - 1024), Buffer.alloc(5120, 1)]);
  const layer = storeLayer(dir, whole, "gzip");
  await expect(build([layer], { entries: 4000 })).rejects.toMatchObject(code("ERR_LAYER_LIMIT"));
});

test("a digest of other content", async () => {
  const layer = storeLayer(dir, makeTar([{ path: "a" }]), "zstd");
  const other = digestOf(Buffer.from("other"));
  await expect(build([{ ...layer, diffId: other }])).rejects.toMatchObject(
    code("ERR_LAYER_DIFF_ID"),
  );
});
