import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterEach, beforeEach, expect, test } from "vitest";
import { packSparse, unpackSparse } from "./sparse-tar.ts";

let dir = "";
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vmsan-sparse-"));
  writeFileSync(join(dir, "file"), "content");
  mkdirSync(join(dir, "out"));
});
afterEach(() => rmSync(dir, { recursive: true }));

const refuse = (why: string): Error => new Error(`refused: ${why}`);
const unpack = async (from: Readable): Promise<void> =>
  await unpackSparse(from, join(dir, "out"), new AbortController().signal, refuse);

/** All of an archive's bytes. */
async function collect(from: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of from) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

test("an archive that is read long after tar has ended is whole", async () => {
  const archive = packSparse(dir, ["file"]);
  await new Promise((resolve) => setTimeout(resolve, 1000));
  await unpack(archive);
  expect(readFileSync(join(dir, "out/file"), "utf8")).toBe("content");
});

test("what follows an archive's end is no error, whether tar still takes it or not", async () => {
  const data = await collect(packSparse(dir, ["file"]));
  const more = Buffer.alloc(1 << 20);
  await unpack(Readable.from([data, ...Array.from({ length: 20 }, () => more)]));
  expect(readFileSync(join(dir, "out/file"), "utf8")).toBe("content");
});

test("half an archive and none are refused, a source that fails is told as it is", async () => {
  const data = await collect(packSparse(dir, ["file"]));
  await expect(unpack(Readable.from([data.subarray(0, 700)]))).rejects.toThrow(/refused: /);
  await expect(unpack(Readable.from([Buffer.from("no archive")]))).rejects.toThrow(/refused: /);
  const broken = Readable.from(
    (async function* () {
      yield data;
      await Promise.resolve();
      throw new Error("cut");
    })(),
  );
  await expect(unpack(broken)).rejects.toThrow(/^cut$/);
  await expect(collect(packSparse(dir, ["none"]))).rejects.toThrow(/tar ended with status/);
});
