import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import type { LayerBlob } from "../model/image.ts";
import { layerCases } from "./cases.ts";
import { DEFAULT_LIMITS, type LayerLimits } from "./limits.ts";
import { memorySource } from "./byte-source.ts";
import { mergeImage, type MergedImage } from "./stream.ts";
import { digestOf, makeTar, type TestEntry } from "./testing.ts";
import { ROOT, type FileTree } from "../util/file-tree/file-tree.ts";

/** Merge archives in memory; contents are strings, released ones are listed. */
function merge(
  tars: Buffer[],
  limits: LayerLimits = DEFAULT_LIMITS,
): { merged: MergedImage; contents: string[]; stored: number; released: string[] } {
  const blobs = tars.map((tar): LayerBlob => ({
    digest: digestOf(tar),
    size: tar.length,
    diffId: digestOf(tar),
    compression: "none",
    path: "",
  }));
  let parts: Buffer[] = [];
  let stored = 0;
  const released: string[] = [];
  const contents = ["(missing)"];
  const open = (layer: number) => memorySource(tars[layer] ?? Buffer.alloc(0), 700);
  const merged = mergeImage(blobs, {
    limits,
    open,
    reopen: open,
    store: {
      begin: () => {
        parts = [];
        stored++;
      },
      write: (_offset, chunk, from, to) => parts.push(Buffer.from(chunk.subarray(from, to))),
      end: () => contents.push(Buffer.concat(parts).toString("latin1")) - 1,
      release: (content) => released.push(contents[content] ?? ""),
    },
  });
  return { merged, contents, stored, released };
}

/** Path → short form, as in the cases. */
function flatten(
  tree: FileTree,
  contents: string[],
  directory = ROOT,
  prefix = "",
): Record<string, string> {
  const found: Record<string, string> = {};
  for (let name = tree.first(directory); name !== 0; name = tree.next(name)) {
    const node = tree.child(name);
    const path = prefix + tree.name(name);
    const { kind, target, major, minor } = tree.fields(node);
    if (kind === "directory")
      Object.assign(found, { [path]: "dir" }, flatten(tree, contents, node, `${path}/`));
    else if (kind === "symlink") found[path] = `->${target}`;
    else if (kind === "file") found[path] = `=${contents[tree.contents[node] ?? 0]}`;
    else if (kind === "fifo") found[path] = "fifo";
    else found[path] = `${kind} ${major}:${minor}`;
  }
  return found;
}

/** The node at a path. */
const nodeAt = (tree: FileTree, ...parts: string[]): number =>
  parts.reduce((node, part) => tree.child(tree.find(node, part)), ROOT);

const tars = (layers: TestEntry[][]): Buffer[] => layers.map((entries) => makeTar(entries));

describe("what layers mean", () => {
  test.each(layerCases)("$name", ({ layers, tree = {}, error }) => {
    if (error !== undefined) {
      expect(() => merge(tars(layers))).toThrow(expect.objectContaining({ code: error }));
      return;
    }
    const { merged, contents } = merge(tars(layers));
    const found = flatten(merged.tree, contents);
    for (const [path, form] of Object.entries(tree)) expect(found[path]).toBe(form);
    const extra = Object.entries(found).filter(([path, form]) => form !== "dir" && !(path in tree));
    expect(extra).toEqual([]);
  });
});

test("hidden content is not stored", () => {
  const { stored } = merge(
    tars([
      [
        { path: "a", data: "old" },
        { path: "d/x", data: "x" },
        { path: "keep", data: "k" },
      ],
      [{ path: "a", data: "new" }, { path: ".wh.d" }],
    ]),
  );
  expect(stored).toBe(2);
});

test("content that is hidden by its name but needed by a link is read again", () => {
  const { merged, stored } = merge(
    tars([
      [
        { path: "a", data: "old" },
        { path: "b", kind: "hardlink", link: "a" },
      ],
      [{ path: "a", data: "new" }],
    ]),
  );
  expect(merged.rereadLayers).toBe(1);
  expect(stored).toBe(2);
});

test("content of a duplicate is given back", () => {
  const { released } = merge(
    tars([
      [
        { path: "a", data: "1" },
        { path: "a", data: "2" },
      ],
    ]),
  );
  expect(released).toEqual(["1"]);
});

test("content of a duplicate that a hard link keeps is read again", () => {
  const { merged, contents, released } = merge(
    tars([
      [
        { path: "a", data: "1" },
        { path: "b", kind: "hardlink", link: "a" },
        { path: "a", data: "2" },
      ],
    ]),
  );
  expect(released).toEqual(["1"]);
  expect(merged.rereadLayers).toBe(1);
  expect(flatten(merged.tree, contents)).toEqual({ a: "=2", b: "=1" });
});

test("hard links share one inode, whose metadata is the file's", () => {
  const { merged } = merge(
    tars([
      [
        { path: "a", data: "x", mode: 0o600, uid: 5 },
        { path: "b", kind: "hardlink", link: "a", mode: 0o777, uid: 9 },
      ],
    ]),
  );
  const { tree } = merged;
  expect(nodeAt(tree, "a")).toBe(nodeAt(tree, "b"));
  expect(tree.fields(nodeAt(tree, "b"))).toMatchObject({ mode: 0o600, uid: 5 });
});

test("more directories than are remembered at once, one of them replaced between", () => {
  const directories = Array.from({ length: 2100 }, (_, i) => `d${i}`);
  const files = (name: string): TestEntry[] =>
    directories.map((directory) => ({ path: `${directory}/${name}`, data: directory + name }));
  const moved: TestEntry[] = [
    { path: "d5", kind: "symlink", link: "d6" },
    { path: "d5/c", data: "through the link" },
  ];
  const { merged, contents } = merge([makeTar([...files("a"), ...files("b"), ...moved])]);
  const { tree } = merged;
  const read = (directory: string, name: string): string | undefined => {
    const node = tree.child(tree.find(tree.child(tree.find(ROOT, directory)), name));
    return node === 0 ? undefined : contents[tree.contents[node] ?? 0];
  };
  const others = directories.filter((directory) => directory !== "d5");
  expect(others.map((d) => read(d, "a"))).toEqual(others.map((d) => `${d}a`));
  expect(others.map((d) => read(d, "b"))).toEqual(others.map((d) => `${d}b`));
  expect(tree.kind(tree.child(tree.find(ROOT, "d5")))).toBe("symlink");
  expect(read("d6", "c")).toBe("through the link");
});

test("limits", () => {
  const limited = (limits: Partial<LayerLimits>, layers: TestEntry[][]) => () =>
    merge(tars(layers), { ...DEFAULT_LIMITS, ...limits });
  const code = (code: string): unknown => expect.objectContaining({ code });
  expect(limited({ entries: 1 }, [[{ path: "a" }], [{ path: "b" }]])).toThrow(
    code("ERR_LAYER_LIMIT"),
  );
  expect(limited({ archiveBytes: 2000 }, [[{ path: "a", data: "x".repeat(3000) }]])).toThrow(
    code("ERR_LAYER_LIMIT"),
  );
  expect(limited({ depth: 3 }, [[{ path: "a/b/c/d" }]])).toThrow(code("ERR_LAYER_PATH"));
  expect(limited({}, [[{ path: "a/".repeat(2001) }]])).toThrow(code("ERR_LAYER_PATH"));
  expect(limited({}, [[{ path: "x".repeat(256) }]])).toThrow(code("ERR_LAYER_PATH"));
});

test("a tree 2000 deep needs no stack", () => {
  const { merged, contents } = merge(tars([[{ path: `${"a/".repeat(1999)}f`, data: "deep" }]]));
  const node = nodeAt(merged.tree, ...Array.from({ length: 1999 }, () => "a"), "f");
  expect(contents[merged.tree.contents[node] ?? 0]).toBe("deep");
});

test("contents are what the archive holds", () => {
  const data = Buffer.from(Array.from({ length: 5000 }, (_, i) => i % 251));
  const { merged, contents } = merge(tars([[{ path: "a", data }]]));
  const content = contents[merged.tree.contents[nodeAt(merged.tree, "a")] ?? 0] ?? "";
  const sha = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
  expect(sha(Buffer.from(content, "latin1"))).toBe(sha(data));
});

describe("dropped entries are counted:", () => {
  const dropped = (layers: TestEntry[][]): number => merge(tars(layers)).merged.droppedEntries;
  test("none, whatever directories are implied", () => {
    expect(dropped([[{ path: "a/b/c" }], [{ path: "a/" }, { path: "a/b/d" }]])).toBe(0);
  });
  test("each hidden name, whiteouts themselves not", () => {
    expect(
      dropped([
        [{ path: "a" }, { path: "d/" }, { path: "d/x" }, { path: "d/y" }, { path: "e/f/g" }],
        [{ path: "a" }, { path: ".wh.d" }, { path: ".wh.none" }, { path: "e/.wh..wh..opq" }],
      ]),
    ).toBe(5);
  });
  test("duplicates and hard links by name", () => {
    const link = (path: string, to: string): TestEntry => ({ path, kind: "hardlink", link: to });
    expect(dropped([[{ path: "a" }, link("b", "a"), link("c", "a")], [{ path: ".wh.b" }]])).toBe(1);
    expect(dropped([[{ path: "a" }, { path: "a" }, { path: "a" }]])).toBe(2);
  });
});
