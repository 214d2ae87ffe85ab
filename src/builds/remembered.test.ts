/** When a build is the same as one before, and when that cannot be told. */
import { execFileSync } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, describe, expect, test } from "vitest";
import type { BuildRequest } from "../model/api/builds.ts";
import { pack } from "../agent/archive/pack.ts";
import { contentDigest } from "./content.ts";
import type { Asked, Imports } from "./registry/imports.ts";
import { Remembered, lookAt, originOf } from "./remembered.ts";

const request: BuildRequest = {
  tags: ["a:1"],
  dockerfile: "FROM x\nRUN apk add y\n",
  buildArgs: ["A=1"],
  labels: [],
  secrets: {},
  noCache: false,
  pull: "missing",
  policy: { mode: "deny-all" },
} as unknown as BuildRequest;
const context = Buffer.from("context");

describe("what a build is made from", () => {
  test("is the same whatever it is called, and another one when anything else is", () => {
    const origin = originOf(request, context);
    expect(originOf({ ...request, tags: ["b:2"], place: "/y", pull: "always" }, context)).toBe(
      origin,
    );
    const others: Partial<BuildRequest>[] = [
      { dockerfile: "FROM x\nRUN apk add z\n" },
      { ignore: "a" },
      { buildArgs: ["A=2"] },
      { labels: ["l=1"] },
      { target: "t" },
      { addHosts: ["a:10.0.0.1"] },
      { contexts: ["a=b"] },
      { platform: "linux/arm64" },
      { secrets: { s: "YQ==" } },
      { policy: { mode: "allow-all" } as BuildRequest["policy"] },
    ];
    const digests = others.map((other) => originOf({ ...request, ...other }, context));
    digests.push(originOf(request, Buffer.from("Context")), origin);
    expect(new Set(digests).size).toBe(others.length + 2);
    expect(digests).not.toContain(undefined);
  });

  test.each([
    "ADD http://x/y /y",
    "  add $URL /y",
    "A\\\nDD http://x/y /y",
    "A\\\n# a comment\nD`\n\nD http://x/y /y",
    "\\\nADD http://x/y /y",
    "ONBUILD ADD http://x/y /y",
    "on\\\nbuild RUN true",
  ])("cannot be told with %j", (line) => {
    expect(originOf({ ...request, dockerfile: `FROM x\n${line}\n` }, context)).toBeUndefined();
  });

  test.each(["RUN groupadd x", "RUN a; d; d", "# ADD x y", "COPY add /add", "LABEL address=1"])(
    "can be told with %j",
    (line) => {
      expect(originOf({ ...request, dockerfile: `FROM x\n${line}\n` }, context)).toBeDefined();
    },
  );

  test("cannot be told when steps are to be run again", () => {
    expect(originOf({ ...request, noCache: true }, context)).toBeUndefined();
  });

  test("a context is looked at if it is small; all of it is there in any case", async () => {
    const small = await lookAt(Readable.from([Buffer.from("a"), Buffer.from("b")]));
    expect(small.few?.toString()).toBe("ab");
    expect(Buffer.concat(await small.all.toArray()).toString()).toBe("ab");
    const pieces = Array.from({ length: 12 }, (_, index) => Buffer.alloc(1 << 20, index));
    const large = await lookAt(Readable.from(pieces));
    expect(large.few).toBeUndefined();
    expect(Buffer.concat(await large.all.toArray()).equals(Buffer.concat(pieces))).toBe(true);
  });
});

describe("a context's files", () => {
  const dir = mkdtempSync(join(tmpdir(), "vmsan-content-"));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  const packed = async (): Promise<Buffer> => {
    const parts: Buffer[] = [];
    const attributesOf = async (paths: readonly Buffer[]): Promise<Map<string, Buffer>[]> =>
      await Promise.resolve(paths.map(() => new Map(attributes)));
    for await (const part of pack([{ path: dir, name: Buffer.from(".") }], { attributesOf }))
      parts.push(part);
    return Buffer.concat(parts);
  };
  const gnu = async (): Promise<Buffer> =>
    await Promise.resolve(execFileSync("tar", ["-C", dir, "-c", "."]));
  const posix = async (): Promise<Buffer> =>
    await Promise.resolve(execFileSync("tar", ["-C", dir, "--format=posix", "-c", "."]));
  const attributes: [string, Buffer][] = [["user.a", Buffer.from("1")]];

  test.each([
    ["our archive", packed],
    ["GNU tar's", gnu],
    ["GNU tar's with records", posix],
  ])(
    "%s: are the same whenever they were made, and others when anything else is",
    async (_, of) => {
      const file = join(dir, "f".repeat(120));
      writeFileSync(file, "content");
      chmodSync(file, 0o644);
      const before = contentDigest(await of());
      utimesSync(file, 1.25, 123_456.789);
      utimesSync(dir, 1, 2);
      expect(contentDigest(await of())).toBe(before);
      writeFileSync(file, "Content");
      const changed = contentDigest(await of());
      expect(changed).not.toBe(before);
      chmodSync(file, 0o755);
      expect(contentDigest(await of())).not.toBe(changed);
    },
  );

  test("their attributes count, and what is no archive counts as it is", async () => {
    const before = contentDigest(await packed());
    attributes[0] = ["user.a", Buffer.from("2")];
    expect(contentDigest(await packed())).not.toBe(before);
    const [a, b] = [Buffer.alloc(2000, "a"), Buffer.alloc(2000, "b")];
    expect(contentDigest(a)).not.toBe(contentDigest(b));
    expect(contentDigest(a)).toBe(contentDigest(Buffer.from(a)));
  });
});

describe("results", () => {
  /** What a build asks for; an image that is not there is `digest: undefined`. */
  function importsOf(now: Record<string, string>, triggers: string[] = []): Imports {
    const asked = Object.entries(now).map(([repository, digest]) => ({
      place: "h0",
      repository,
      reference: "1",
      digest: digest as Asked["digest"],
    }));
    const manifest = async (_place: string, repository: string): Promise<{ digest: string }> => {
      const digest = now[repository];
      if (digest === undefined) throw new Error(`no ${repository}`);
      return await Promise.resolve({ digest });
    };
    return { asked, triggers, manifest } as unknown as Imports;
  }

  test("hold while images and cache are what they were", async () => {
    const results = new Remembered();
    results.add("o", "config", importsOf({ x: "1", y: "2" }), "vm 0");
    expect(await results.find("o", importsOf({ x: "1", y: "2" }), "vm 0")).toBe("config");
    expect(await results.find("p", importsOf({ x: "1", y: "2" }), "vm 0")).toBeUndefined();
    expect(await results.find("o", importsOf({ x: "1", y: "3" }), "vm 0")).toBeUndefined();
    expect(await results.find("o", importsOf({ x: "1", y: "2" }), "vm 1")).toBeUndefined();
    expect(await results.find("o", importsOf({ x: "1", y: "2" }), "")).toBeUndefined();
    await expect(results.find("o", importsOf({ x: "1" }), "vm 0")).rejects.toThrow("no y");
  });

  test("of images with triggers are not remembered, nor too many", async () => {
    const results = new Remembered();
    results.add("t", "config", importsOf({}, ["RUN true"]), "vm 0");
    expect(await results.find("t", importsOf({}), "vm 0")).toBeUndefined();
    for (let i = 0; i < 1001; i += 1) results.add(`o${i}`, "config", importsOf({}), "vm 0");
    expect(await results.find("o0", importsOf({}), "vm 0")).toBeUndefined();
    expect(await results.find("o1", importsOf({}), "vm 0")).toBe("config");
  });
});
