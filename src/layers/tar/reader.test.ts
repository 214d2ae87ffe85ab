import { describe, expect, test } from "vitest";
import { memorySource } from "../byte-source.ts";
import { DigestedSource } from "../digested-source.ts";
import { DEFAULT_LIMITS } from "../limits.ts";
import { digestOf, makeTar } from "../testing.ts";
import { TarReader, type TarEntry } from "./reader.ts";
import { END_OF_ARCHIVE, padTo } from "./writer.ts";

/** A raw header block with fields set by offset; the checksum is put last, unless given. */
function raw(
  fields: Record<number, string | Uint8Array>,
  sum: "unsigned" | "signed" | "none" = "unsigned",
): Buffer {
  const block = Buffer.alloc(512);
  block.write("0000644\0", 100);
  block.write("0000000\0", 108);
  block.write("0000000\0", 116);
  block.write("00000000000\0", 124);
  block.write("00000000000\0", 136);
  block.write("0", 156);
  for (const [at, value] of Object.entries(fields))
    block.set(Buffer.from(value as string, "latin1"), Number(at));
  block.fill(0x20, 148, 156);
  let total = 0;
  for (const byte of block) total += sum === "signed" ? (byte << 24) >> 24 : byte;
  if (sum !== "none") block.write(`${total.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}

/** PAX records as an `x` (or `g`) entry. */
function pax(records: [string, string][], type = "x"): Buffer {
  const text = records
    .map(([key, value]) => {
      const rest = ` ${key}=${value}\n`;
      let length = rest.length + 1;
      while (String(length).length + rest.length !== length) length++;
      return `${length}${rest}`;
    })
    .join("");
  const content = Buffer.from(text, "latin1");
  return Buffer.concat([
    raw({ 0: "pax", 124: `${content.length.toString(8).padStart(11, "0")}\0`, 156: type }),
    content,
    padTo(content.length),
  ]);
}

/** A header and its content. */
function withData(header: Buffer, data: string): Buffer {
  return Buffer.concat([header, Buffer.from(data, "latin1"), padTo(data.length)]);
}

const size = (bytes: number): string => `${bytes.toString(8).padStart(11, "0")}\0`;

/** Read an archive: entries, and contents by path. */
function read(
  bytes: Uint8Array,
  piece = 333,
): { entries: TarEntry[]; contents: Map<string, Buffer>; digest: string } {
  const source = new DigestedSource(memorySource(Buffer.from(bytes), piece), () => undefined);
  const reader = new TarReader(source, DEFAULT_LIMITS);
  const entries: TarEntry[] = [];
  const contents = new Map<string, Buffer>();
  for (let entry = reader.next(); entry !== undefined; entry = reader.next()) {
    entries.push(entry);
    if (entry.kind !== "file") continue;
    const content = Buffer.alloc(entry.size);
    reader.content((offset, chunk, from, to) => content.set(chunk.subarray(from, to), offset));
    contents.set(entry.path, content);
  }
  return { entries, contents, digest: source.end() };
}

const one = (bytes: Uint8Array): TarEntry => {
  const { entries } = read(bytes);
  expect(entries.length).toBe(1);
  return entries[0] as TarEntry;
};
const end = (...parts: Uint8Array[]): Buffer => Buffer.concat([...parts, END_OF_ARCHIVE]);
const code = (code: string): unknown => expect.objectContaining({ code });

describe("header fields", () => {
  test("octal with leading spaces, space end", () => {
    expect(one(end(raw({ 0: "a", 108: "   765 \0" }))).uid).toBe(0o765);
  });
  test("base-256 size and negative base-256 time", () => {
    const time = Buffer.alloc(12, 0xff);
    time[11] = 0xfe;
    expect(one(end(raw({ 0: "a", 136: time }))).mtime).toBe(-2);
    const uid = Buffer.from([0x80, 0, 0, 0, 0x00, 0x20, 0, 1]);
    expect(one(end(raw({ 0: "a", 108: uid }))).uid).toBe(0x200001);
  });
  test("base-256 beyond 2^53 is an error", () => {
    const huge = Buffer.alloc(12, 0x7f);
    huge[0] = 0x80;
    expect(() => read(end(raw({ 0: "a", 124: huge })))).toThrow(code("ERR_LAYER_TAR_NUMBER"));
  });
  test("negative size is an error", () => {
    expect(() => read(end(raw({ 0: "a", 124: Buffer.alloc(12, 0xff) })))).toThrow(
      code("ERR_LAYER_TAR_SIZE"),
    );
  });
  test("ustar prefix and name", () => {
    expect(one(end(raw({ 0: "name", 257: "ustar\x0000", 345: "some/prefix" }))).path).toBe(
      "some/prefix/name",
    );
  });
  test("GNU magic: no prefix", () => {
    expect(one(end(raw({ 0: "name", 257: "ustar  \0", 345: "12345670" }))).path).toBe("name");
  });
  test("checksum of signed characters", () => {
    expect(one(end(raw({ 0: "\xe9\xff" }, "signed"))).path).toBe("\xe9\xff");
  });
  test("wrong checksum", () => {
    expect(() => read(end(raw({ 0: "a" }, "none")))).toThrow(code("ERR_LAYER_TAR_CHECKSUM"));
  });
  test("v7: type NUL is a file, a trailing slash a directory", () => {
    expect(one(end(raw({ 0: "a", 156: "\0" }))).kind).toBe("file");
    expect(one(end(raw({ 0: "a/", 156: "\0" }))).kind).toBe("directory");
  });
  test("type 7 is a file; unknown types are errors", () => {
    expect(one(end(raw({ 0: "a", 156: "7" }))).kind).toBe("file");
    expect(() => read(end(raw({ 0: "a", 156: "Z" })))).toThrow(code("ERR_LAYER_TAR_TYPE"));
  });
  test("links have no content, whatever their size says", () => {
    const { entries } = read(
      end(raw({ 0: "l", 156: "1", 157: "t", 124: size(99) }), raw({ 0: "b" })),
    );
    expect(entries.map(({ path }) => path)).toEqual(["l", "b"]);
  });
});

describe("extended headers", () => {
  test("GNU long name and link", () => {
    const long = "n".repeat(300);
    const entry = one(makeTar([{ path: long, kind: "symlink", link: "t".repeat(200) }]));
    expect([entry.path, entry.link]).toEqual([long, "t".repeat(200)]);
  });
  test("PAX overrides everything", () => {
    const entry = one(
      end(
        pax([
          ["path", "p\u00c3\u00a9"],
          ["linkpath", "l"],
          ["uid", "4000000"],
          ["gid", "5"],
          ["mtime", "1.5"],
        ]),
        raw({ 0: "a", 156: "2" }),
      ),
    );
    expect(entry).toMatchObject({
      path: "p\u00c3\u00a9",
      link: "l",
      uid: 4_000_000,
      gid: 5,
      mtime: 1,
      mtimeNsec: 5e8,
    });
  });
  test("PAX size overrides the header's", () => {
    const { contents, entries } = read(
      end(pax([["size", "3"]]), withData(raw({ 0: "a" }), "abc"), raw({ 0: "b" })),
    );
    expect(contents.get("a")?.toString()).toBe("abc");
    expect(entries.length).toBe(2);
  });
  test.each([
    ["-1.25", -2, 750_000_000],
    ["-7", -7, 0],
    ["0.0000000019", 0, 1],
    ["99999999999999", 99_999_999_999_999, 0],
  ])("time %s", (text, mtime, mtimeNsec) => {
    expect(one(end(pax([["mtime", text]]), raw({ 0: "a" })))).toMatchObject({ mtime, mtimeNsec });
  });
  test("values with newlines and =", () => {
    const entry = one(end(pax([["SCHILY.xattr.user.x", "a=b\nc=d\0"]]), raw({ 0: "a" })));
    expect(Buffer.from(entry.xattrs?.get("user.x") ?? []).toString()).toBe("a=b\nc=d\0");
  });
  test("a global header counts until it is overridden or emptied", () => {
    const { entries } = read(
      end(
        pax([["uid", "7"]], "g"),
        raw({ 0: "a" }),
        pax([["uid", ""]]),
        raw({ 0: "b" }),
        pax([["uid", "8"]]),
        raw({ 0: "c" }),
        raw({ 0: "d" }),
      ),
    );
    expect(entries.map(({ uid }) => uid)).toEqual([7, 0, 8, 7]);
  });
  test("LIBARCHIVE attributes", () => {
    const overlay = pax([
      ["SCHILY.xattr.trusted.overlay.metacopy", "y"],
      ["LIBARCHIVE.xattr.trusted.overlay.redirect", "aGk="],
      ["SCHILY.xattr.trusted.other", "z"],
    ]);
    // The guest's overlay would take its own attributes for its own.
    expect([...(one(end(overlay, raw({ 0: "a" }))).xattrs ?? []).keys()]).toEqual([
      "trusted.other",
    ]);
    const entry = one(end(pax([["LIBARCHIVE.xattr.user.a%20b", "aGk="]]), raw({ 0: "a" })));
    expect(Buffer.from(entry.xattrs?.get("user.a b") ?? []).toString()).toBe("hi");
  });
  test("SCHILY ACLs become the kernel's attribute", () => {
    const entry = one(
      end(
        pax([["SCHILY.acl.access", "user::rw-,user:joe:r--:1000,group::r--,mask::rw-,other::r--"]]),
        raw({ 0: "a" }),
      ),
    );
    expect(Buffer.from(entry.xattrs?.get("system.posix_acl_access") ?? []).toString("hex")).toBe(
      "0200000001000600ffffffff02000400e803000004000400ffffffff10000600ffffffff20000400ffffffff",
    );
  });
  test.each([["9 path=a"], ["x path=a\n"], ["999 path=a\n"], ["8 =aaaa\n"], ["6 abc\n"]])(
    "bad records %j",
    (text) => {
      const bytes = withData(raw({ 0: "pax", 156: "x", 124: size(text.length) }), text);
      expect(() => read(end(bytes, raw({ 0: "a" })))).toThrow(code("ERR_LAYER_TAR_PAX"));
    },
  );
  test("headers larger than the limit are not read", () => {
    expect(() => read(raw({ 0: "pax", 156: "x", 124: size(2 ** 30) }))).toThrow(
      code("ERR_LAYER_TAR_HEADER_SIZE"),
    );
    expect(() => read(raw({ 0: "long", 156: "L", 124: size(2 ** 30) }))).toThrow(
      code("ERR_LAYER_TAR_HEADER_SIZE"),
    );
  });
});

describe("sparse files", () => {
  const expected = Buffer.alloc(3000);
  expected.write("AAAA", 1000);
  expected.write("BB", 2500);
  const check = (bytes: Buffer): void => {
    const { entries, contents } = read(end(bytes, raw({ 0: "next" })));
    expect(entries.map(({ path }) => path)).toEqual(["s", "next"]);
    expect(contents.get("s")?.equals(expected)).toBe(true);
  };
  test("old GNU", () => {
    const field = (n: number): string => size(n);
    check(
      withData(
        raw({
          0: "s",
          156: "S",
          124: size(6),
          257: "ustar  \0",
          386: field(1000),
          398: field(4),
          410: field(2500),
          422: field(2),
          434: field(3000),
          446: field(0),
          483: field(3000),
        }),
        "AAAABB",
      ),
    );
  });
  test("old GNU with an extension block", () => {
    const field = (n: number): string => size(n);
    const header = raw({
      0: "s",
      156: "S",
      124: size(6),
      257: "ustar  \0",
      386: field(1000),
      398: field(4),
      410: field(2000),
      422: field(0),
      434: field(2100),
      446: field(0),
      458: field(2200),
      470: field(0),
      482: "\x01",
      483: field(3000),
    });
    const extension = Buffer.alloc(512);
    extension.write(field(2500), 0);
    extension.write(field(2), 12);
    check(Buffer.concat([header, withData(extension, "AAAABB")]));
  });
  test("PAX 0.0", () => {
    check(
      Buffer.concat([
        pax([
          ["GNU.sparse.size", "3000"],
          ["GNU.sparse.numblocks", "2"],
          ["GNU.sparse.offset", "1000"],
          ["GNU.sparse.numbytes", "4"],
          ["GNU.sparse.offset", "2500"],
          ["GNU.sparse.numbytes", "2"],
        ]),
        withData(raw({ 0: "s", 124: size(6) }), "AAAABB"),
      ]),
    );
  });
  test("PAX 0.1", () => {
    check(
      Buffer.concat([
        pax([
          ["GNU.sparse.size", "3000"],
          ["GNU.sparse.name", "s"],
          ["GNU.sparse.map", "1000,4,2500,2"],
        ]),
        withData(raw({ 0: "GNUSparseFile.0/s", 124: size(6) }), "AAAABB"),
      ]),
    );
  });
  test("PAX 1.0", () => {
    const map = Buffer.from("2\n1000\n4\n2500\n2\n");
    const content = Buffer.concat([map, padTo(map.length), Buffer.from("AAAABB")]);
    check(
      Buffer.concat([
        pax([
          ["GNU.sparse.major", "1"],
          ["GNU.sparse.minor", "0"],
          ["GNU.sparse.realsize", "3000"],
          ["GNU.sparse.name", "s"],
        ]),
        withData(raw({ 0: "x", 124: size(content.length) }), content.toString("latin1")),
      ]),
    );
  });
  test.each([["1000,4,900,2"], ["1000,4,2999,2"], ["1000,9"], ["1000"], ["a,b"], ["-1,6"]])(
    "bad map %s",
    (map) => {
      const bytes = Buffer.concat([
        pax([
          ["GNU.sparse.size", "3000"],
          ["GNU.sparse.map", map],
        ]),
        withData(raw({ 0: "s", 124: size(6) }), "AAAABB"),
      ]);
      expect(() => read(end(bytes))).toThrow(code("ERR_LAYER_TAR_SPARSE"));
    },
  );
});

describe("the archive's end", () => {
  test("one zero block, then more entries", () => {
    const { entries } = read(end(raw({ 0: "a" }), Buffer.alloc(512), raw({ 0: "b" })));
    expect(entries.map(({ path }) => path)).toEqual(["a", "b"]);
  });
  test("no trailer, and nothing at all", () => {
    expect(read(raw({ 0: "a" })).entries.length).toBe(1);
    expect(read(Buffer.alloc(0)).entries).toEqual([]);
    expect(read(Buffer.alloc(1024)).entries).toEqual([]);
  });
  test("trailing garbage is not read as entries, but counts for the digest", () => {
    const bytes = Buffer.concat([end(raw({ 0: "a" })), Buffer.from("garbage".repeat(200))]);
    const { entries, digest } = read(bytes);
    expect(entries.length).toBe(1);
    expect(digest).toBe(digestOf(bytes));
  });
  test("truncated anywhere: an error, never an entry too many", () => {
    const bytes = withData(raw({ 0: "a", 124: size(700) }), "x".repeat(700));
    for (const length of [100, 512, 600, 1211]) {
      expect(() => read(bytes.subarray(0, length))).toThrow(code("ERR_LAYER_TAR_TRUNCATED"));
    }
  });
  test("whole content without the padding behind it, or with some of it, is whole", () => {
    const bytes = Buffer.concat([
      raw({ 0: "first" }),
      withData(raw({ 0: "a", 124: size(700) }), "x".repeat(700)),
    ]);
    const content = 512 + 512 + 700;
    for (const length of [content, content + 1, bytes.length - 1, bytes.length]) {
      const cut = bytes.subarray(0, length);
      for (const piece of [1, 512, 4096]) {
        const { contents, digest } = read(cut, piece);
        expect([...contents].map(([path, content]) => [path, content.length])).toEqual([
          ["first", 0],
          ["a", 700],
        ]);
        expect(digest).toBe(digestOf(cut));
      }
    }
    expect(() => read(bytes.subarray(0, content - 1))).toThrow(code("ERR_LAYER_TAR_TRUNCATED"));
    // Zeros are the beginning of the end; anything else is a header that is cut off.
    expect(read(Buffer.concat([bytes, Buffer.alloc(700)])).entries.length).toBe(2);
    expect(() => read(Buffer.concat([bytes, Buffer.from("x")]))).toThrow(
      code("ERR_LAYER_TAR_TRUNCATED"),
    );
  });
});

test("the size of the pieces does not matter", () => {
  const bytes = makeTar([
    { path: "a".repeat(150), data: "x".repeat(1500) },
    { path: "d/" },
    { path: "b", data: "y" },
  ]);
  const whole = read(bytes, 1 << 20);
  for (const piece of [1, 7, 511, 512, 513]) expect(read(bytes, piece)).toEqual(whole);
});
