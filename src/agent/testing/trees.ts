/** Random directory trees and their description, for tests of copies. */
import * as fs from "node:fs";
import * as fc from "fast-check";

/** A tree to be made. */
export type Tree =
  | { kind: "file"; size: number; seed: number; mode: number; mtimeMs: number }
  | { kind: "sparse"; size: number; at: number; mode: number; mtimeMs: number }
  | { kind: "symlink"; target: Buffer }
  | { kind: "hardlink" }
  | { kind: "dir"; children: [Buffer, Tree][]; mode: number; mtimeMs: number };

const time = fc.integer({ min: 0, max: 2_000_000_000_000 });
const mode = fc.integer({ min: 0, max: 0o777 });

/** File names: any bytes but `/` and NUL, some of them nasty, some long. */
const name = fc
  .oneof(
    fc.uint8Array({ minLength: 1, maxLength: 20 }).map((bytes) => Buffer.from(bytes)),
    fc.string({ minLength: 1, maxLength: 80, unit: "grapheme" }).map((text) => Buffer.from(text)),
    fc
      .constantFrom(" ", "-rf", "a\nb", "*", "é", "\\", "...", "GNUSparseFile.0", "x".repeat(255))
      .map((text) => Buffer.from(text)),
  )
  .map((bytes) =>
    Buffer.from(bytes.map((byte) => (byte === 0 || byte === 0x2f ? 0x5f : byte))).subarray(0, 255),
  )
  .filter((bytes) => !["", ".", ".."].includes(bytes.toString("latin1")));

const { tree } = fc.letrec<{ tree: Tree; dir: Tree }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 4, depthIdentifier: "tree" },
    fc.record({
      kind: fc.constant("file" as const),
      size: fc.oneof(fc.nat(3000), fc.constantFrom(0, 1, 511, 512, 513, 65_536, 300_000)),
      seed: fc.nat(255),
      mode,
      mtimeMs: time,
    }),
    fc.record({
      kind: fc.constant("sparse" as const),
      size: fc.integer({ min: 100_000, max: 3_000_000 }),
      at: fc.nat(90_000),
      mode,
      mtimeMs: time,
    }),
    fc.record({ kind: fc.constant("symlink" as const), target: name }),
    fc.constant({ kind: "hardlink" as const }),
    tie("dir"),
  ),
  dir: fc.record({
    kind: fc.constant("dir" as const),
    children: fc.uniqueArray(fc.tuple(name, tie("tree")), {
      maxLength: 8,
      selector: ([key]) => key.toString("latin1"),
    }),
    mode: mode.map((bits) => bits | 0o700),
    mtimeMs: time,
  }),
}));

/** Arbitrary trees; the root is a directory. */
export const treeArbitrary: fc.Arbitrary<Tree> = tree.map((inner) => ({
  kind: "dir" as const,
  children: [
    [
      Buffer.from("first"),
      { kind: "file" as const, size: 10, seed: 1, mode: 0o644, mtimeMs: 1000 },
    ],
    [Buffer.from("inner"), inner],
  ],
  mode: 0o755,
  mtimeMs: 1_500_000_000_123,
}));

const join = (dir: Buffer, part: Buffer): Buffer => Buffer.concat([dir, Buffer.from("/"), part]);

/** Make the tree. Hard links join the last file made before them, if there is one. */
export function makeTree(path: Buffer, tree: Tree, state: { last?: Buffer } = {}): void {
  switch (tree.kind) {
    case "file":
      fs.writeFileSync(path, Buffer.alloc(tree.size, tree.seed));
      break;
    case "sparse": {
      const fd = fs.openSync(path, "wx");
      fs.ftruncateSync(fd, tree.size);
      fs.writeSync(fd, Buffer.from("data"), 0, 4, tree.at);
      fs.closeSync(fd);
      break;
    }
    case "symlink":
      fs.symlinkSync(tree.target, path);
      fs.lutimesSync(path, 1_600_000_000.5, 1_600_000_000.5);
      return;
    case "hardlink":
      if (state.last !== undefined) fs.linkSync(state.last, path);
      return;
    case "dir":
      fs.mkdirSync(path);
      for (const [child, inner] of tree.children) makeTree(join(path, child), inner, state);
      break;
    default:
      throw new Error("unknown kind");
  }
  if (tree.kind !== "dir") state.last = path;
  fs.chmodSync(path, tree.mode);
  fs.utimesSync(path, tree.mtimeMs / 1000, tree.mtimeMs / 1000);
}

/** Everything about a tree that a copy has to keep, one line an entry, in order. */
export function describeTree(path: Buffer): string[] {
  const lines: string[] = [];
  const links = new Map<bigint, string>();
  const walk = (at: Buffer, shown: string): void => {
    const stat = fs.lstatSync(at, { bigint: true });
    const kind = stat.isDirectory() ? "dir" : stat.isSymbolicLink() ? "link" : "file";
    // A double holds today's nanoseconds to about a quarter of a microsecond.
    const when = (stat.mtimeNs + 500n) / 1000n;
    let more = "";
    if (kind === "link") more = fs.readlinkSync(at, { encoding: "buffer" }).toString("latin1");
    if (kind === "file") {
      const first = links.get(stat.ino);
      more = first === undefined ? fs.readFileSync(at).toString("base64") : `= ${first}`;
      links.set(stat.ino, first ?? shown);
      if (stat.size > 100_000n && stat.blocks * 512n < stat.size / 2n) more += " sparse";
    }
    const bits = kind === "link" ? "" : (stat.mode & 0o7777n).toString(8);
    lines.push(JSON.stringify([shown, kind, bits, String(when), more]));
    if (kind !== "dir") return;
    const names = fs.readdirSync(at, { encoding: "buffer" });
    for (const child of names.sort((a, b) => a.compare(b))) {
      walk(join(at, child), `${shown}/${child.toString("latin1")}`);
    }
  };
  walk(path, "");
  return lines;
}
