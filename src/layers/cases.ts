/**
 * For tests: what layers mean, as a table of layers and the tree they make. Run against the merge
 * alone, and against every disk builder. Sources: the OCI image spec (layer.md) and the cases that
 * umoci's, containerd's and moby's test suites name.
 */
import type { TestEntry } from "./testing.ts";

/** One case: layers bottom to top, and the tree, or the error's code. */
export interface LayerCase {
  name: string;
  layers: TestEntry[][];
  /** Path → `dir`, `=content`, `->target`, `fifo`, `char 1:3`; directories not named are implied. */
  tree?: Record<string, string>;
  error?: string;
}

const link = (path: string, to: string): TestEntry => ({ path, kind: "symlink", link: to });
const hard = (path: string, to: string): TestEntry => ({ path, kind: "hardlink", link: to });
const file = (path: string, data = path): TestEntry => ({ path, data });
const dir = (path: string): TestEntry => ({ path: `${path}/` });

/** All cases. */
export const layerCases: LayerCase[] = [
  { name: "no entries", layers: [[]], tree: {} },
  {
    name: "upper file replaces lower",
    layers: [[file("a", "1")], [file("a", "2")]],
    tree: { a: "=2" },
  },
  {
    name: "whiteout removes a lower file",
    layers: [[file("a"), file("b")], [file(".wh.a")]],
    tree: { b: "=b" },
  },
  {
    name: "whiteout removes a lower directory with all it holds",
    layers: [[file("d/a"), file("d/e/b")], [file(".wh.d")]],
    tree: {},
  },
  {
    name: "whiteout of a missing name is nothing",
    layers: [[], [file("x/.wh.a"), file(".wh.y")]],
    tree: {},
  },
  {
    name: "a file and its whiteout in one layer: the file stays",
    layers: [[file("a", "old")], [file("a", "new"), file(".wh.a")]],
    tree: { a: "=new" },
  },
  {
    name: "whiteout and directory in one layer: old content gone, in either order",
    layers: [[file("d/old")], [dir("d"), file("d/new"), file(".wh.d")]],
    tree: { d: "dir", "d/new": "=d/new" },
  },
  {
    name: "opaque hides lower children only, wherever it stands",
    layers: [
      [file("d/old"), file("d/s/x")],
      [file("d/new"), file("d/.wh..wh..opq"), file("d/last")],
    ],
    tree: { "d/new": "=d/new", "d/last": "=d/last" },
  },
  {
    name: "opaque root",
    layers: [[file("a")], [file(".wh..wh..opq"), file("b")]],
    tree: { b: "=b" },
  },
  {
    name: "aufs markers are ignored",
    layers: [[file("a")], [file(".wh..wh.plnk/x"), file(".wh..wh.aufs"), dir(".wh..wh.orph")]],
    tree: { a: "=a" },
  },
  {
    name: "hard links into aufs's directory of links, in either order and by either name",
    layers: [
      [file("x")],
      [
        hard("early", ".wh..wh.plnk/9.1"),
        dir(".wh..wh.plnk"),
        file(".wh..wh.plnk/9.1", "shared"),
        hard("d/late", "/.wh..wh.plnk/9.1"),
      ],
    ],
    tree: { x: "=x", early: "=shared", d: "dir", "d/late": "=shared" },
  },
  {
    name: "a hard link into aufs's directory of another layer leads nowhere",
    layers: [[file(".wh..wh.plnk/9.1")], [hard("a", ".wh..wh.plnk/9.1")]],
    error: "ERR_LAYER_HARDLINK",
  },
  { name: "a whiteout as a directory", layers: [[file(".wh.a/b")]], error: "ERR_LAYER_WHITEOUT" },
  {
    name: "a symlink to a whiteout",
    layers: [[link("l", ".wh.a"), file("l/b")]],
    error: "ERR_LAYER_SYMLINK",
  },
  { name: "whiteout of nothing", layers: [[file(".wh.")]], error: "ERR_LAYER_WHITEOUT" },
  {
    name: "whiteout of the directory itself",
    layers: [[file("d/.wh..")]],
    error: "ERR_LAYER_WHITEOUT",
  },
  { name: "whiteout of the parent", layers: [[file("d/.wh...")]], error: "ERR_LAYER_WHITEOUT" },
  {
    name: "whiteout through a lower symlink removes the target",
    layers: [[dir("real"), file("real/a"), link("l", "real")], [file("l/.wh.a")]],
    tree: { real: "dir", l: "->real" },
  },
  {
    name: "whiteout below a symlink of its own layer that replaced a directory",
    layers: [
      [file("x"), file("l/x")],
      [link("l", ".."), file("l/.wh.x")],
    ],
    tree: { x: "=x", l: "->.." },
  },
  {
    name: "whiteout below a directory of its own layer that replaced a symlink",
    layers: [
      [file("usr/foo"), link("lib", "usr")],
      [dir("lib"), file("lib/.wh.foo")],
    ],
    tree: { "usr/foo": "=usr/foo", lib: "dir" },
  },
  {
    name: "an entry below a lower symlink goes where it leads",
    layers: [[dir("usr/lib"), link("lib", "usr/lib")], [file("lib/foo")]],
    tree: { "usr/lib": "dir", lib: "->usr/lib", "usr/lib/foo": "=lib/foo" },
  },
  {
    name: "an explicit directory replaces a symlink",
    layers: [
      [file("usr/lib/a"), link("lib", "usr/lib")],
      [dir("lib"), file("lib/foo")],
    ],
    tree: { "usr/lib/a": "=usr/lib/a", lib: "dir", "lib/foo": "=lib/foo" },
  },
  {
    name: "a symlink to nowhere makes its target",
    layers: [[link("l", "some/where")], [file("l/x")]],
    tree: { l: "->some/where", "some/where/x": "=l/x" },
  },
  {
    name: "a directory keeps its children when described again",
    layers: [[file("d/a")], [{ path: "d/", mode: 0o700 }]],
    tree: { d: "dir", "d/a": "=d/a" },
  },
  {
    name: "a file replaces a directory, and a directory a file",
    layers: [
      [file("a/x"), file("b")],
      [file("a", "f"), dir("b"), file("b/y")],
    ],
    tree: { a: "=f", b: "dir", "b/y": "=b/y" },
  },
  {
    name: "a directory that is implied replaces a lower file",
    layers: [[file("a")], [file("a/b")]],
    tree: { "a/b": "=a/b" },
  },
  {
    name: "files, directories and back in one layer",
    layers: [[file("a", "1"), dir("a"), file("a/b"), file("a", "2"), dir("a"), file("a/c")]],
    tree: { a: "dir", "a/c": "=a/c" },
  },
  {
    name: "the last of duplicates wins",
    layers: [[file("a", "first"), file("a", "last")]],
    tree: { a: "=last" },
  },
  {
    name: "hard link to a file of a lower layer",
    layers: [[file("a")], [hard("b", "a")]],
    tree: { a: "=a", b: "=a" },
  },
  {
    name: "hard link whose target a later layer replaces keeps the old content",
    layers: [[file("a", "old"), hard("b", "a")], [file("a", "new")]],
    tree: { a: "=new", b: "=old" },
  },
  {
    name: "hard link to a lower file that the same layer hides below another name",
    layers: [[file("a", "x")], [hard("b", "a")], [file(".wh.a")]],
    tree: { b: "=x" },
  },
  {
    name: "hard link through a symlinked directory to hidden content",
    layers: [[file("real/a", "x"), link("l", "real")], [hard("b", "l/a")], [file("real/.wh.a")]],
    tree: { real: "dir", b: "=x", l: "->real" },
  },
  {
    name: "hard link to a symlink links the symlink",
    layers: [[link("s", "nowhere"), hard("h", "s")]],
    tree: { s: "->nowhere", h: "->nowhere" },
  },
  { name: "hard link to itself", layers: [[file("a"), hard("a", "a")]], tree: { a: "=a" } },
  { name: "hard link to nothing", layers: [[hard("b", "a")]], error: "ERR_LAYER_HARDLINK" },
  {
    name: "hard link before its target",
    layers: [[hard("b", "a"), file("a")]],
    error: "ERR_LAYER_HARDLINK",
  },
  {
    name: "hard link to a directory",
    layers: [[dir("d"), hard("b", "d")]],
    error: "ERR_LAYER_HARDLINK",
  },
  { name: "hard link to the root", layers: [[hard("b", "/")]], error: "ERR_LAYER_HARDLINK" },
  {
    name: "hard link out of the image",
    layers: [[hard("b", "../../../etc/passwd")]],
    error: "ERR_LAYER_HARDLINK",
  },
  {
    name: "hard link through a symlink out of the image",
    layers: [[link("l", "/.."), hard("b", "l/etc/passwd")]],
    error: "ERR_LAYER_HARDLINK",
  },
  {
    name: "absolute names and dots are below the root",
    layers: [[file("/a"), file("./b"), file("../../c"), file("d/./../e"), file("//f//g")]],
    tree: { a: "=/a", b: "=./b", c: "=../../c", e: "=d/./../e", "f/g": "=//f//g" },
  },
  {
    name: "symlink up and out stays inside",
    layers: [[link("l", "../../../.."), file("l/x")]],
    tree: { l: "->../../../..", x: "=l/x" },
  },
  {
    name: "absolute symlink chain",
    layers: [[link("a", "/b"), link("b", "/c/../d"), file("a/x")]],
    tree: { a: "->/b", b: "->/c/../d", c: "dir", "d/x": "=a/x" },
  },
  {
    name: "symlink loop",
    layers: [[link("a", "b"), link("b", "a"), file("a/x")]],
    error: "ERR_LAYER_SYMLINK_LOOP",
  },
  { name: "symlink to an empty name", layers: [[link("a", "")]], error: "ERR_LAYER_SYMLINK" },
  { name: "symlink too long", layers: [[link("a", "x".repeat(4096))]], error: "ERR_LAYER_SYMLINK" },
  {
    name: "root that is a file",
    layers: [[{ path: ".", kind: "file" }]],
    error: "ERR_LAYER_ROOT",
  },
  {
    name: "devices, fifos and links",
    layers: [
      [
        { path: "null", kind: "char", major: 1, minor: 3 },
        { path: "sda", kind: "block", major: 259, minor: 70_000 },
        { path: "fifo", kind: "fifo" },
        link("long", "x".repeat(300)),
        link("edge", "x".repeat(60)),
      ],
    ],
    tree: {
      null: "char 1:3",
      sda: "block 259:70000",
      fifo: "fifo",
      long: `->${"x".repeat(300)}`,
      edge: `->${"x".repeat(60)}`,
    },
  },
];
