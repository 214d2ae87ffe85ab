/**
 * Structure-aware fuzzing of tar reading and merging: random layers out of few names (so that they
 * meet), valid or with bytes flipped, blocks cut, repeated and swapped.
 *
 *   node test/fuzz/layers.ts [--seconds 60] [--seed N] [--images 25]
 *
 * Each must end in an error with an ERR_LAYER_ code, or in a tree that holds no forbidden name,
 * that does not depend on how the bytes arrive, and in which every file has its content, whatever
 * was left out on the way as hidden. Every so many trees become an ext4 image for e2fsck.
 * A failure prints its seed: `--seed N --seconds 0` runs that one alone.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Ext4Writer, ImageFile } from "../../src/ext4/ext4.ts";
import { memorySource } from "../../src/layers/byte-source.ts";
import { DEFAULT_LIMITS } from "../../src/layers/limits.ts";
import { mergeImage } from "../../src/layers/layers.ts";
import { digestOf, makeTar, type TestEntry } from "../../src/layers/testing.ts";
import { VmsanError } from "../../src/model/errors.ts";
import type { LayerBlob } from "../../src/model/image.ts";
import { ROOT, type FileTree } from "../../src/util/file-tree/file-tree.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    seed: { type: "string", default: String(Date.now() % 1_000_000_000) },
    images: { type: "string", default: "25" },
  },
});

/** A small deterministic generator (mulberry32). */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let value = Math.imul(state ^ (state >>> 15), state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) % below;
  };
}

type Random = (below: number) => number;

const PLAIN = ["a", "b", "c", "d"];
const ODD = ["..", ".", "", "x".repeat(255), "\xff\x80"];
const WHITEOUTS = [".wh.a", ".wh.b", ".wh.c", ".wh..wh..opq", ".wh..wh.plnk"];
const WRONG = [".wh.", ".wh..", ".wh...", "x".repeat(256)];

/** One of a list. */
const pick = (random: Random, list: readonly string[]): string => list[random(list.length)] ?? "a";
const KINDS = [
  "file",
  "file",
  "file",
  "directory",
  "directory",
  "symlink",
  "hardlink",
  "fifo",
  "char",
] as const;

/** A path of few components, mostly harmless ones. */
function path(random: Random): string {
  const parts = Array.from({ length: 1 + random(4) }, () =>
    pick(random, random(12) === 0 ? ODD : PLAIN),
  );
  if (random(6) === 0) parts[parts.length - 1] = pick(random, WHITEOUTS);
  if (random(100) === 0) parts[random(parts.length)] = pick(random, WRONG);
  return (random(10) === 0 ? "/" : "") + parts.join("/");
}

/** One entry. */
function entry(random: Random): TestEntry {
  const kind = KINDS[random(KINDS.length)] ?? "file";
  const name = path(random);
  return {
    path: kind === "directory" ? `${name}/` : name,
    kind,
    ...(kind === "symlink" || kind === "hardlink" ? { link: path(random) } : {}),
    ...(kind === "file"
      ? { data: String.fromCharCode(65 + random(26)).repeat(random(3) * random(1200)) }
      : {}),
    mode: random(0o10000),
    mtime: random(2 ** 31) - 2 ** 30,
    mtimeNsec: random(2) * random(1e9),
    ...(random(8) === 0 ? { xattrs: new Map([["user.x", Buffer.alloc(random(200), 1)]]) } : {}),
  };
}

/** Damage an archive. */
function mutate(tar: Buffer, random: Random): Buffer {
  let bytes: Buffer = Buffer.from(tar);
  for (let n = random(4); n > 0; n--) {
    const block = 512 * random(Math.max(1, bytes.length / 512));
    switch (random(6)) {
      case 0:
        if (bytes.length > 0) bytes[random(bytes.length)] = random(256);
        break;
      case 1:
        bytes = bytes.subarray(0, random(bytes.length + 1));
        break;
      case 2:
        bytes = Buffer.concat([bytes.subarray(0, block), bytes.subarray(block + 512)]);
        break;
      case 3:
        bytes = Buffer.concat([bytes.subarray(0, block + 512), bytes.subarray(block)]);
        break;
      case 4:
        // A number field, its checksum mended: what lies behind the checksum must be reached too.
        if (bytes.length >= block + 512) {
          const at = block + ([100, 108, 116, 124, 136, 156, 329][random(7)] ?? 100);
          bytes[at] = random(256);
          bytes[at + 1] = random(256);
          bytes.fill(0x20, block + 148, block + 156);
          let sum = 0;
          for (let i = 0; i < 512; i++) sum += bytes[block + i] ?? 0;
          bytes.write(`${sum.toString(8).padStart(6, "0")}\0 `, block + 148, "latin1");
        }
        break;
      default:
        bytes = Buffer.concat([bytes, Buffer.alloc(random(2000), random(256))]);
    }
  }
  return bytes;
}

/** A merged tree, and the contents that its numbers stand for. */
interface Merged {
  tree: FileTree;
  contents: string[];
}

/** The tree as lines, contents included. */
function lines({ tree, contents }: Merged): string[] {
  const found: string[] = [];
  const ids = new Map<number, number>();
  const pending: [string, number][] = [["", ROOT]];
  for (let item = pending.pop(); item !== undefined; item = pending.pop()) {
    const [at, node] = item;
    if (!ids.has(node)) ids.set(node, ids.size);
    const known = ids.get(node);
    const { kind, mode, mtime, target, size } = tree.fields(node);
    const content = kind === "file" ? contents[tree.contents[node] ?? 0] : undefined;
    if (kind === "file" && content?.length !== size) throw new Error(`content of ${at} is missing`);
    found.push(JSON.stringify([at, known, kind, mode, mtime, target, size, content]));
    for (let entry = tree.first(node); entry !== 0; entry = tree.next(entry)) {
      const name = tree.name(entry);
      const bad =
        name === "" || name === "." || name === ".." || name.length > 255 || /[/\0]/.test(name);
      if (bad || name.startsWith(".wh.")) throw new Error(`forbidden name ${JSON.stringify(name)}`);
      pending.push([`${at}/${name}`, tree.child(entry)]);
    }
  }
  return found.sort();
}

/** Merge; contents as strings. */
function merge(tars: readonly Buffer[], piece: number): Merged {
  const blobs = tars.map((tar): LayerBlob => {
    const digest = digestOf(tar);
    return { digest, size: tar.length, diffId: digest, compression: "none", path: "" };
  });
  let content = Buffer.alloc(0);
  const open = (layer: number) => memorySource(tars[layer] ?? Buffer.alloc(0), piece);
  const contents = [""];
  const { tree } = mergeImage(blobs, {
    limits: { ...DEFAULT_LIMITS, entries: 10_000 },
    open,
    reopen: open,
    store: {
      begin: (size) => {
        if (size > 1e6) throw new VmsanError({ code: "ERR_LAYER_TEST", message: "too large" });
        content = Buffer.alloc(size);
      },
      write: (offset, chunk, from, to) => content.set(chunk.subarray(from, to), offset),
      end: () => (content.length === 0 ? 0 : contents.push(content.toString("latin1")) - 1),
      release: () => undefined,
    },
  });
  return { tree, contents };
}

/** Either lines or the error's code; other errors are findings. */
function outcome(tars: readonly Buffer[], piece: number): { merged?: Merged; text: string } {
  try {
    const merged = merge(tars, piece);
    return { merged, text: lines(merged).join("\n") };
  } catch (error) {
    if (error instanceof VmsanError && error.code.startsWith("ERR_LAYER_"))
      return { text: error.code };
    throw error;
  }
}

const dir = mkdtempSync(join(tmpdir(), "vmsan-fuzz-"));

/** Write a tree as an image, and ask e2fsck. */
function judge({ tree, contents }: Merged): void {
  const image = join(dir, "image");
  const sizeBytes = 16 * 1024 * 1024;
  const file = new ImageFile(image, sizeBytes);
  const id = new Uint8Array(16).fill(7);
  const writer = new Ext4Writer(file, { sizeBytes, journal: false, uuid: id, hashSeed: id });
  for (const node of tree.nodes()) {
    const content = tree.contents[node] ?? 0;
    if (content === 0) continue;
    const bytes = Buffer.from(contents[content] ?? "", "latin1");
    writer.data.begin(bytes.length);
    writer.data.write(0, bytes, 0, bytes.length);
    tree.contents[node] = writer.data.end();
  }
  writer.finish(tree);
  file.close();
  const { status, stdout } = spawnSync("e2fsck", ["-fn", image]);
  rmSync(image);
  if (status !== 0) throw new Error(`e2fsck: ${String(stdout)}`);
}

const deadline = Date.now() + Number(values.seconds) * 1000;
const counts = { runs: 0, trees: 0, errors: {} as Record<string, number>, images: 0 };
try {
  for (let seed = Number(values.seed); counts.runs === 0 || Date.now() < deadline; seed++) {
    const random = generator(seed);
    const layers = Array.from({ length: 1 + random(4) }, () =>
      makeTar(Array.from({ length: random(12) }, () => entry(random))),
    );
    const tars = random(2) === 0 ? layers : layers.map((tar) => mutate(tar, random));
    try {
      const whole = outcome(tars, 1 << 20);
      const pieces = outcome(tars, 1 + random(1500));
      if (whole.text !== pieces.text) throw new Error("the size of the pieces matters");
      counts.runs++;
      if (whole.merged === undefined)
        counts.errors[whole.text] = (counts.errors[whole.text] ?? 0) + 1;
      else if (++counts.trees % Number(values.images) === 0) {
        judge(whole.merged);
        counts.images++;
      }
    } catch (error) {
      console.error(`seed ${seed}`);
      throw error;
    }
  }
  console.log(JSON.stringify(counts));
} finally {
  rmSync(dir, { recursive: true, force: true });
}
