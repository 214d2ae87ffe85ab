/** Compressed layers through the whole build, by the inner decompressor and by Node's public streams. */
import { randomFillSync, createHash } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { makeTar, storeLayer } from "../layers/testing.ts";
import type { Compression } from "../model/image.ts";
import { runBuild } from "./build.ts";
import { readTree } from "./contract.ts";
import { identityOf } from "./identity.ts";

let dir = "";
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "vmsan-compression-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const data = randomFillSync(Buffer.alloc(700_000));
const tar = makeTar([{ path: "data", data }]);
const sha256 = createHash("sha256").update(data).digest("hex");

/** A skippable zstd frame (RFC 8878, section 3.1.2). */
function skippable(bytes: number): Buffer {
  const frame = Buffer.alloc(8 + bytes, 7);
  frame.writeUInt32LE(0x184d2a5b, 0);
  frame.writeUInt32LE(bytes, 4);
  return frame;
}

/** The archive in pieces, each compressed for itself. */
function pieces(compress: (piece: Buffer) => Buffer, ...cuts: number[]): Buffer[] {
  const ends = [...cuts, tar.length];
  return ends.map((end, i) => compress(tar.subarray(ends[i - 1] ?? 0, end)));
}

/** A first member that ends exactly where the file is read from anew. */
function alignedMembers(): Buffer[] {
  for (let cut = 262_144 - 200; cut < 262_144; cut++) {
    const members = pieces((piece) => gzipSync(piece, { level: 0 }), cut);
    if (members[0]?.length === 262_144) return members;
  }
  throw new Error("no member has that length");
}

const good: [string, Compression, () => Buffer[]][] = [
  ["gzip, one member", "gzip", () => pieces(gzipSync)],
  ["gzip, several members, one of them empty", "gzip", () => pieces(gzipSync, 5, 5, 300_000)],
  ["gzip, a member ends with a piece of the file", "gzip", alignedMembers],
  ["gzip, zeros behind it", "gzip", () => [...pieces(gzipSync), Buffer.alloc(5000)]],
  ["zstd, one frame", "zstd", () => pieces(zstdCompressSync)],
  ["zstd, several frames", "zstd", () => pieces(zstdCompressSync, 5, 5, 300_000)],
  [
    "zstd, skippable frames",
    "zstd",
    () => [
      skippable(3),
      ...pieces(zstdCompressSync, 400_000).flatMap((frame) => [frame, skippable(300_000)]),
      skippable(0),
    ],
  ],
  ["none", "none", () => [tar]],
];

const cut = (parts: Buffer[], bytes: number): Buffer[] => [
  Buffer.concat(parts).subarray(0, -bytes),
];
const bad: [string, Compression, () => Buffer[], RegExp][] = [
  ["gzip, its checksum cut off", "gzip", () => cut(pieces(gzipSync), 4), /COMPRESSION$/],
  [
    "gzip, cut in the middle",
    "gzip",
    () => cut(pieces(gzipSync), 100_000),
    /COMPRESSION|TRUNCATED/,
  ],
  [
    "gzip, garbage behind it",
    "gzip",
    () => [...pieces(gzipSync), Buffer.alloc(9, 1)],
    /COMPRESSION$/,
  ],
  ["gzip, nothing at all", "gzip", () => [Buffer.alloc(0)], /COMPRESSION$/],
  ["zstd, cut in the middle", "zstd", () => cut(pieces(zstdCompressSync), 100_000), /./],
  [
    "zstd, garbage behind it",
    "zstd",
    () => [...pieces(zstdCompressSync), Buffer.alloc(9, 1)],
    /COMPRESSION$/,
  ],
  ["gzip that is called zstd", "zstd", () => pieces(gzipSync), /COMPRESSION$/],
  ["none, cut in the middle", "none", () => cut([tar], 2000), /TRUNCATED$/],
];

describe.each([
  ["in place", false],
  ["by public streams", true],
])("%s", (_, streams) => {
  let count = 0;
  const build = async (compression: Compression, blob: Buffer): Promise<string> => {
    const output = join(dir, `${streams ? "s" : "p"}-${count++}.ext4`);
    const options = { sizeBytes: 16 * 2 ** 20, journal: false };
    await runBuild(
      [storeLayer(dir, tar, compression, blob)],
      { output, format: "disk", options, identity: identityOf("x"), streams },
      { signal: new AbortController().signal },
    );
    return output;
  };

  test.each(good)("%s", async (_name, compression, blob) => {
    const image = await build(compression, Buffer.concat(blob()));
    expect(readTree(image).get("data")).toMatchObject({ sha256, size: data.length });
  });

  test.each(bad)("%s: an error", async (_name, compression, blob, code) => {
    const building = build(compression, Buffer.concat(blob()));
    await expect(building).rejects.toMatchObject({
      code: expect.stringMatching(/^ERR_LAYER_/) as string,
    });
    await expect(building).rejects.toMatchObject({ code: expect.stringMatching(code) as string });
    expect(readdirSync(dir).filter((name) => name.includes("vmsan"))).toEqual([]);
  });
});
