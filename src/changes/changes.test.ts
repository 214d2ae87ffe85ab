/** Overlays as ext4 holds them become changes and layers; hostile ones become errors. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { Ext4Reader, Ext4Writer, ImageFile } from "../ext4/ext4.ts";
import { FileTree, PLAIN_DIRECTORY, ROOT } from "../util/file-tree/file-tree.ts";
import type { NodeFields } from "../util/file-tree/file-tree.ts";
import { withInstructions } from "./instructions.ts";
import { layerOf } from "./layer.ts";
import { listChanges } from "./list.ts";
import { changesOf } from "./overlay.ts";

const dir = mkdtempSync(join(tmpdir(), "vmsan-changes-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
let count = 0;

/** A tree as a test writes it: names → what it is. */
type Spec = { [name: string]: Partial<NodeFields> & { in?: Spec } };

/** A file system with this tree. */
function fileSystem(spec: Spec): Ext4Reader {
  const tree = new FileTree();
  const fill = (directory: number, inside: Spec): void => {
    for (const [name, { in: children, ...fields }] of Object.entries(inside)) {
      const kind = fields.kind ?? (children === undefined ? "file" : "directory");
      const node = tree.add({ ...PLAIN_DIRECTORY, ...fields, kind });
      tree.link(directory, name, node);
      if (children !== undefined) fill(node, children);
    }
  };
  fill(ROOT, spec);
  const path = join(dir, `image-${count++}`);
  const sizeBytes = 64 << 20;
  const file = new ImageFile(path, sizeBytes);
  const id = Buffer.alloc(16, 7);
  try {
    new Ext4Writer(file, { sizeBytes, journal: false, uuid: id, hashSeed: id }).finish(tree);
  } finally {
    file.close();
  }
  return new Ext4Reader(path);
}

const GONE = { kind: "char", major: 0, minor: 0 } as const;
const attribute = (name: string, value: string): Pick<NodeFields, "xattrs"> => ({
  xattrs: new Map([[name, Buffer.from(value, "latin1")]]),
});
/** The changes of an upper tree over a base. */
const acts = (upper: Spec, base: Spec): string[] =>
  [...changesOf(fileSystem({ upper: { in: upper }, work: { in: {} } }), fileSystem(base))].map(
    (change) => `${change.act} ${change.path}`,
  );

describe("changes of an overlay", () => {
  test("names that are gone, also those that the image never had", () => {
    expect(acts({ a: GONE, b: GONE }, { a: {} })).toEqual(["remove a"]);
  });

  test("a directory made anew hides the one below", () => {
    const upper = { d: { in: { n: {} }, ...attribute("trusted.overlay.opaque", "y") } };
    expect(acts(upper, { d: { in: { o: {} } } })).toEqual(["make d", "opaque d", "make d/n"]);
  });

  test("a renamed directory is written whole, as it was changed", () => {
    const upper = {
      old: GONE,
      new: {
        in: { gone: GONE, more: {}, sub: { in: { x: {} } } },
        ...attribute("trusted.overlay.redirect", "old"),
      },
    };
    const base = { old: { in: { gone: {}, kept: {}, sub: { in: { y: {} } } } } };
    expect(acts(upper, base)).toEqual([
      "make new",
      "make new/more",
      "make new/sub",
      "make new/sub/x",
      "make new/sub/y",
      "make new/kept",
      "remove old",
    ]);
  });

  test("a directory moved over another one, from elsewhere", () => {
    const upper = { b: { in: {}, ...attribute("trusted.overlay.redirect", "/a/in") }, a: GONE };
    const base = { a: { in: { in: { in: { x: {} } } } }, b: { in: { y: {} } } };
    expect(acts(upper, base)).toEqual(["remove a", "make b", "opaque b", "make b/x"]);
  });

  test("what an agent writes at each boot, and an overlay's own attributes, are no changes", () => {
    const upper = {
      etc: { in: { hosts: {}, hostname: GONE, "resolv.conf": {}, other: {} } },
      f: attribute("trusted.overlay.origin", "x"),
    };
    const base = { etc: { in: { hosts: {}, hostname: {} } }, f: {} };
    expect(acts(upper, base)).toEqual(["make etc", "make etc/other", "make f"]);
    const changes = changesOf(fileSystem({ upper: { in: upper } }), fileSystem(base));
    const own = [...changes].flatMap((change) =>
      change.act === "make" ? Object.keys(change.inode.xattrs) : [],
    );
    expect(own).toEqual([]);
  });

  test("what an agent made for its mounts and nobody touched is no change; what somebody did is", () => {
    const place = (path: string, at = "755 0 0"): Pick<NodeFields, "xattrs"> =>
      attribute("trusted.vmsan.place", `${at} /${path}`);
    const upper = {
      empty: { in: { inner: { in: {}, ...place("empty/inner") } }, ...place("empty") },
      filled: { in: { ours: { in: {}, ...place("filled/ours") }, x: {} }, ...place("filled") },
      file: { mode: 0o644, ...place("file", "644 0 0") },
      grown: { mode: 0o644, size: 1, ...place("grown", "644 0 0") },
      owned: { in: {}, uid: 7, ...place("owned") },
      closed: { in: {}, mode: 0o700, ...place("closed") },
      listed: {
        in: {},
        xattrs: new Map([["user.acl", Buffer.from("x")], ...(place("listed").xattrs ?? [])]),
      },
      moved: { in: {}, ...place("elsewhere") },
      theirs: { in: {} },
      base: { in: { vol: { in: {}, ...place("base/vol") } }, ...place("base") },
      größe: { in: {}, ...place("größe") },
    };
    const base = { base: { in: {} } };
    expect(acts(upper, base)).toEqual([
      "make base",
      "make closed",
      "make filled",
      "make filled/x",
      "make grown",
      "make listed",
      "make moved",
      "make owned",
      "make theirs",
    ]);
    const [disk, image] = [fileSystem({ upper: { in: upper } }), fileSystem(base)];
    const listed = listChanges(disk, image).map(({ path }) => path);
    expect(listed).not.toContain("/base");
    expect(listed).toContain("/filled");
    const marks = [...changesOf(disk, image)].flatMap((change) =>
      change.act === "make" ? Object.keys(change.inode.xattrs) : [],
    );
    expect(marks).toEqual(["user.acl"]);
  });

  test("the list shows directories for what changed in them, and not for being copied up", () => {
    const upper = fileSystem({
      upper: { in: { d: { in: { n: {} } }, e: { in: {} }, m: { in: {}, mode: 0o700 } } },
    });
    const base = fileSystem({ d: { in: {} }, e: { in: {} }, m: { in: {} } });
    expect(listChanges(upper, base)).toEqual([
      { path: "/d", kind: "changed" },
      { path: "/d/n", kind: "added", sizeBytes: 0 },
      { path: "/m", kind: "changed" },
    ]);
  });
});

describe("a layer", () => {
  const collect = async (upper: Spec, limitBytes = 1 << 20): Promise<[Buffer, string[]]> => {
    const parts: Buffer[] = [];
    const skipped: string[] = [];
    const changes = changesOf(fileSystem({ upper: { in: upper } }), fileSystem({}));
    const options = { limitBytes, signal: new AbortController().signal };
    const onSkip = (path: string, why: string): void => void skipped.push(`${path}: ${why}`);
    for await (const part of layerOf(changes, { ...options, onSkip })) parts.push(part);
    return [Buffer.concat(parts), skipped];
  };

  test("names that mean something else in a layer are left out, and said", async () => {
    const [bytes, skipped] = await collect({ ".wh.a": {}, b: {} });
    expect(skipped).toHaveLength(1);
    expect(bytes.includes(".wh.a")).toBe(false);
    expect(bytes.includes("b")).toBe(true);
  });

  test("files that say they are longer than any disk are refused", async () => {
    const long = { kind: "file", size: 2 ** 40 } as const;
    await expect(collect({ long })).rejects.toMatchObject({ code: "ERR_CHANGES_TOO_LARGE" });
  });
});

describe("instructions", () => {
  test.each([
    ['CMD ["a", "b"]', { Cmd: ["a", "b"] }],
    ["cmd a b", { Cmd: ["/bin/sh", "-c", "a b"] }],
    ["ENV A=1 B=\"two words\" C='x'", { Env: ["B0=0", "A=1", "B=two words", "C=x"] }],
    ["ENV A the rest", { Env: ["B0=0", "A=the rest"] }],
    ["LABEL a.b=c", { Labels: { "a.b": "c" } }],
    ["EXPOSE 80 53/udp", { ExposedPorts: { "80/tcp": {}, "53/udp": {} } }],
    ["WORKDIR sub", { WorkingDir: "/srv/sub" }],
    ["USER a:b", { User: "a:b" }],
    ['VOLUME ["/data"]', { Volumes: { "/data": {} } }],
    ["STOPSIGNAL 9", { StopSignal: "9" }],
    ["HEALTHCHECK NONE", { Healthcheck: { Test: ["NONE"] } }],
    [
      "HEALTHCHECK --interval=1m30.5s --retries=2 CMD curl -f http://localhost/",
      {
        Healthcheck: {
          Test: ["CMD-SHELL", "curl -f http://localhost/"],
          Interval: 90_500_000_000,
          Retries: 2,
        },
      },
    ],
    [
      'healthcheck --start-period=5s --start-interval=200ms --timeout=1h cmd ["a", "b"]',
      {
        Healthcheck: {
          Test: ["CMD", "a", "b"],
          StartPeriod: 5e9,
          StartInterval: 2e8,
          Timeout: 3600e9,
        },
      },
    ],
    ["ONBUILD RUN make", { OnBuild: ["RUN make"] }],
  ])("%s", (text, wanted) => {
    const before = { Env: ["B0=0"], WorkingDir: "/srv" };
    expect(withInstructions(before, [text])).toMatchObject(wanted);
  });

  test.each([
    "RUN x",
    "ENV",
    "ENV =x",
    'ENV A="',
    "EXPOSE http",
    "HEALTHCHECK true",
    "HEALTHCHECK --interval=5 CMD true",
    "HEALTHCHECK --retries=1.5 CMD true",
    "HEALTHCHECK --bogus=1s CMD true",
    "HEALTHCHECK CMD",
    "ONBUILD ONBUILD RUN x",
    "",
  ])("%j is refused", (text) => {
    expect(() => withInstructions({}, [text])).toThrow(/Cannot use the change/);
  });
});
