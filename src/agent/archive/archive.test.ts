import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { describeTree, makeTree, treeArbitrary } from "../testing/trees.ts";
import { extract } from "./extract.ts";
import { pack } from "./pack.ts";
import { encodeEnd, encodeEntry, padding } from "./pax.ts";
import type { ArchiveEntry } from "./pax.ts";

const scale = Number(process.env["VMSAN_TEST_SCALE"] ?? 1);
const root = fs.mkdtempSync(join(tmpdir(), "vmsan-archive-"));
afterAll(() => fs.rmSync(root, { recursive: true }));
let dir: string;
beforeEach(() => {
  dir = fs.mkdtempSync(join(root, "t-"));
});

const bytes = async (source: AsyncIterable<Buffer>): Promise<Buffer> => {
  const chunks: Buffer[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
};

/** The bytes in pieces of odd sizes. */
async function* pieces(data: Buffer, size = 1000): AsyncGenerator<Buffer> {
  for (let at = 0; at < data.length; at += size) yield data.subarray(at, at + size);
  await Promise.resolve();
}

const as = Buffer.from("out");

test("random trees come back identical", async () => {
  await fc.assert(
    fc.asyncProperty(treeArbitrary, fc.integer({ min: 1, max: 5000 }), async (tree, size) => {
      const work = fs.mkdtempSync(join(dir, "p-"));
      makeTree(Buffer.from(join(work, "in")), tree);
      const data = await bytes(pack([{ path: join(work, "in"), name: Buffer.from("in") }]));
      await extract(pieces(data, size), work, { as });
      expect(describeTree(Buffer.from(join(work, "out")))).toEqual(
        describeTree(Buffer.from(join(work, "in"))),
      );
      expect(fs.readdirSync(work).sort()).toEqual(["in", "out"]);
      execFileSync("chmod", ["-R", "u+rwx", work]);
      fs.rmSync(work, { recursive: true });
    }),
    { numRuns: 60 * scale },
  );
});

describe("GNU tar agrees", () => {
  const make = (): void => {
    fs.mkdirSync(join(dir, "in/sub"), { recursive: true });
    fs.writeFileSync(join(dir, "in/a"), "hello");
    fs.writeFileSync(join(dir, `in/${"n".repeat(200)}`), "long");
    fs.writeFileSync(join(dir, "in/é\n"), "odd");
    fs.symlinkSync("../a", join(dir, "in/sub/link"));
    fs.linkSync(join(dir, "in/a"), join(dir, "in/sub/hard"));
    fs.writeFileSync(join(dir, "in/holes"), "x");
    fs.truncateSync(join(dir, "in/holes"), 5_000_000);
    fs.appendFileSync(join(dir, "in/holes"), "end");
    // Times that a number of seconds holds exactly: Node.js sets no others.
    for (const name of fs.readdirSync(join(dir, "in"), { recursive: true }) as string[]) {
      fs.lutimesSync(join(dir, "in", name), 1_234_567_890.125, 1_234_567_890.125);
    }
    fs.utimesSync(join(dir, "in"), 1_234_567_890.5, 1_234_567_890.5);
  };

  test("with what we write", async () => {
    make();
    const data = await bytes(pack([{ path: join(dir, "in"), name: Buffer.from("out") }]));
    fs.writeFileSync(join(dir, "a.tar"), data);
    execFileSync("tar", ["-xpf", join(dir, "a.tar"), "-C", dir]);
    expect(describeTree(Buffer.from(join(dir, "out")))).toEqual(
      describeTree(Buffer.from(join(dir, "in"))),
    );
    expect(data.length).toBeLessThan(100_000);
  });

  test("with what we read", async () => {
    make();
    execFileSync("tar", ["--format=posix", "--sparse", "-cf", join(dir, "a.tar"), "-C", dir, "in"]);
    await extract(pieces(fs.readFileSync(join(dir, "a.tar"))), dir, { as });
    expect(describeTree(Buffer.from(join(dir, "out")))).toEqual(
      describeTree(Buffer.from(join(dir, "in"))),
    );
  });

  test("on base-256 numbers and ustar prefixes", async () => {
    fs.mkdirSync(join(dir, "in", "d".repeat(90)), { recursive: true });
    fs.writeFileSync(join(dir, "in", "d".repeat(90), "f".repeat(90)), "x");
    fs.chownSync(join(dir, "in"), process.geteuid?.() === 0 ? 3_000_000 : -1, -1);
    execFileSync("tar", [
      "--format=ustar",
      "--owner=o:1",
      "-cf",
      join(dir, "a.tar"),
      "-C",
      dir,
      "in",
    ]);
    await extract(pieces(fs.readFileSync(join(dir, "a.tar"))), dir, { as });
    expect(fs.readFileSync(join(dir, "out", "d".repeat(90), "f".repeat(90)), "utf8")).toBe("x");
  });
});

/** An archive of these entries. */
function archive(
  ...entries: [Omit<Partial<ArchiveEntry>, "name"> & { name: string | Buffer }, string?][]
): Buffer {
  const parts = entries.map(([given, content = ""]) => {
    const entry: ArchiveEntry = {
      type: "file",
      mode: 0o644,
      uid: 0,
      gid: 0,
      mtimeNs: 1_000_000_000n,
      size: content.length,
      ...given,
      name: Buffer.from(given.name),
    };
    return Buffer.concat([
      encodeEntry(entry),
      Buffer.from(content),
      Buffer.alloc(padding(content.length)),
    ]);
  });
  return Buffer.concat([...parts, encodeEnd()]);
}

const top = { name: "t", type: "dir" as const, mode: 0o755 };

describe("a hostile guest", () => {
  const outside = (): string => join(dir, "outside");
  beforeEach(() => {
    fs.mkdirSync(outside());
    fs.mkdirSync(join(dir, "dest"));
  });
  const refused: [string, Buffer][] = [
    ["..", archive([top], [{ name: "t/../../outside/x" }, "bad"])],
    ["an absolute name", archive([top], [{ name: "/outside/x" }, "bad"])],
    ["..", archive([{ name: "..", type: "dir" }], [{ name: "../outside/x" }, "bad"])],
    [
      "a file below a symlink",
      archive(
        [top],
        [{ name: "t/l", type: "symlink", link: Buffer.from("../../outside") }],
        [{ name: "t/l/x" }, "bad"],
      ),
    ],
    [
      "a symlink replaced by a directory",
      archive(
        [top],
        [{ name: "t/l", type: "symlink", link: Buffer.from("../../outside") }],
        [{ name: "t/l", type: "dir" }],
        [{ name: "t/l/x" }, "bad"],
      ),
    ],
    ["a name that comes twice", archive([top], [{ name: "t/a" }, "1"], [{ name: "t/a" }, "2"])],
    ["a file without its directory", archive([top], [{ name: "t/no/x" }, "bad"])],
    ["a file below a file", archive([top], [{ name: "t/a" }, "1"], [{ name: "t/a/x" }, "2"])],
    ["two top-level names", archive([top], [{ name: "u" }, "bad"])],
    ["an empty part", archive([top], [{ name: "t//x" }, "bad"])],
    ["a dot", archive([top], [{ name: "t/./x" }, "bad"])],
    ["a NUL", archive([top], [{ name: Buffer.from("t/a\0b") }, "bad"])],
    ["a name that is too long", archive([top], [{ name: `t/${"x".repeat(300)}` }, "bad"])],
    [
      "a hard link's target outside",
      archive([top], [{ name: "t/h", type: "hardlink", link: Buffer.from("../outside/secret") }]),
    ],
  ];
  test.each(refused)("%s is refused and nothing is left", async (_name, data) => {
    fs.writeFileSync(join(outside(), "secret"), "secret");
    await expect(extract(pieces(data), join(dir, "dest"), { as })).rejects.toMatchObject({
      code: "ERR_AGENT_ARCHIVE",
    });
    expect(fs.readdirSync(join(dir, "dest"))).toEqual([]);
    expect(fs.readdirSync(outside())).toEqual(["secret"]);
  });

  test("a hard link to a symlink is left out", async () => {
    const data = archive(
      [top],
      [{ name: "t/l", type: "symlink", link: Buffer.from("../../outside/secret") }],
      [{ name: "t/h", type: "hardlink", link: Buffer.from("t/l") }],
    );
    const skipped: string[] = [];
    await extract(pieces(data), join(dir, "dest"), {
      as,
      onSkip: (name) => skipped.push(String(name)),
    });
    expect(skipped).toEqual(["out/h"]);
  });

  test("symlinks of an earlier download are not followed", async () => {
    fs.mkdirSync(join(dir, "dest/out"));
    fs.symlinkSync("../../outside", join(dir, "dest/out/l"));
    const data = archive([top], [{ name: "t/l", type: "dir" }], [{ name: "t/l/x" }, "bad"]);
    await expect(extract(pieces(data), join(dir, "dest"), { as })).rejects.toMatchObject({
      code: "ERR_AGENT_CONFLICT",
    });
    expect(fs.readdirSync(outside())).toEqual([]);
    const over = archive([top], [{ name: "t/l" }, "file"]);
    await extract(pieces(over), join(dir, "dest"), { as });
    expect(fs.lstatSync(join(dir, "dest/out/l")).isFile()).toBe(true);
    expect(fs.readdirSync(outside())).toEqual([]);
  });

  test("set-id bits, devices and pipes do not come through", async () => {
    const skipped: string[] = [];
    const data = archive(
      [top],
      [{ name: "t/suid", mode: 0o6755 }, "x"],
      [{ name: "t/dev", type: "block" }],
      [{ name: "t/pipe", type: "fifo" }],
    );
    await extract(pieces(data), join(dir, "dest"), {
      as,
      onSkip: (name) => skipped.push(String(name)),
    });
    expect(fs.readdirSync(join(dir, "dest/out"))).toEqual(["suid"]);
    expect(fs.statSync(join(dir, "dest/out/suid")).mode & 0o7777).toBe(0o755);
    expect(skipped).toEqual(["t/suid", "out/dev", "out/pipe"]);
  });

  test("bounds hold", async () => {
    const many = archive([top], [{ name: "t/a" }, "1"], [{ name: "t/b" }, "2"]);
    await expect(extract(pieces(many), dir, { as, maxEntries: 2 })).rejects.toMatchObject({
      code: "ERR_AGENT_ARCHIVE",
    });
    await expect(extract(pieces(many), dir, { as, maxBytes: 1 })).rejects.toMatchObject({
      code: "ERR_AGENT_ARCHIVE",
    });
  });

  test("cut off anywhere, nothing appears", async () => {
    const data = archive([top], [{ name: "t/a" }, "content"], [{ name: "t/b" }, "more"]);
    for (let length = 0; length < data.length - 1024; length += 97) {
      await expect(
        extract(pieces(data.subarray(0, length)), join(dir, "dest"), { as }),
      ).rejects.toMatchObject({ code: "ERR_AGENT_ARCHIVE" });
    }
    expect(fs.readdirSync(join(dir, "dest"))).toEqual([]);
  });

  test("any change of a byte gives a tree inside of the destination or an error", async () => {
    const data = archive(
      [top],
      [{ name: "t/a" }, "content"],
      [{ name: "t/l", type: "symlink", link: Buffer.from("a") }],
    );
    await fc.assert(
      fc.asyncProperty(fc.nat(data.length - 1), fc.nat(255), async (at, value) => {
        const broken = Buffer.from(data);
        broken[at] = value;
        await extract(pieces(broken), join(dir, "dest"), { as }).catch((error: unknown) => {
          expect(error).toHaveProperty("code");
        });
        expect(fs.readdirSync(dir).sort()).toEqual(["dest", "outside"]);
        expect(fs.readdirSync(outside())).toEqual([]);
        fs.rmSync(join(dir, "dest/out"), { recursive: true, force: true });
        expect(fs.readdirSync(join(dir, "dest"))).toEqual([]);
      }),
      { numRuns: 200 * scale },
    );
  });
});

test("an existing directory is merged into, its files replaced", async () => {
  fs.mkdirSync(join(dir, "out/sub"), { recursive: true });
  fs.writeFileSync(join(dir, "out/keep"), "old");
  fs.writeFileSync(join(dir, "out/sub/a"), "old");
  const data = archive(
    [top],
    [{ name: "t/sub", type: "dir" }],
    [{ name: "t/sub/a" }, "new"],
    [{ name: "t/b" }, "new"],
  );
  await extract(pieces(data), dir, { as });
  expect(fs.readFileSync(join(dir, "out/keep"), "utf8")).toBe("old");
  expect(fs.readFileSync(join(dir, "out/sub/a"), "utf8")).toBe("new");
  expect(fs.readFileSync(join(dir, "out/b"), "utf8")).toBe("new");
  await expect(
    extract(pieces(archive([{ name: "f" }, "file"])), dir, { as }),
  ).rejects.toMatchObject({ code: "ERR_AGENT_CONFLICT" });
});

test("the sender's verdict comes before anything is in place", async () => {
  const ready = (): Promise<void> => Promise.reject(new Error("unreadable"));
  await expect(
    extract(pieces(archive([{ name: "f" }, "file"])), dir, { as, ready }),
  ).rejects.toThrow("unreadable");
  expect(fs.readdirSync(dir)).toEqual([]);
});
