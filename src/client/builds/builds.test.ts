/** What a build sends: contexts without what is ignored, Dockerfiles written as code. */
import { execFileSync, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import type { ReadStream } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { readArchive } from "../../agent/archive/read.ts";
import type { Daemon } from "../daemon.ts";
import { Builds } from "./builds.ts";
import { keepArchive } from "./archive.ts";
import { secretOf, sourcesOf, sourcesOfStream } from "./context.ts";
import { commitOf } from "./git.ts";
import { ImageTemplate } from "./image-template.ts";

const root = mkdtempSync(join(tmpdir(), "vmsan-context-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** A directory with these files. */
function context(files: Record<string, string>): string {
  const dir = mkdtempSync(join(root, "c-"));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, name)), { recursive: true });
    writeFileSync(join(dir, name), text);
  }
  return dir;
}

/** Names of files in an archive. */
async function namesIn(archive: Readable): Promise<string[]> {
  const names: string[] = [];
  for await (const { entry, content } of readArchive(archive as AsyncIterable<Buffer>)) {
    for await (const piece of content) expect(piece.bytes.length).toBeGreaterThan(0);
    if (entry.type !== "dir") names.push(entry.name.toString());
  }
  return names.sort();
}

test("what is asked of the daemon says where, for whom, and with which names", async () => {
  const dir = context({ Dockerfile: "FROM x" });
  const sent: string[] = [];
  const daemon = {
    streamed: async (_method: string, _path: string, { upload }: { upload: () => Readable }) => {
      for await (const part of upload()) sent.push(String(part).split("\n", 1)[0] ?? "");
      return { timings: {} };
    },
  } as unknown as Daemon;
  const builds = new Builds(daemon);
  await builds.build({
    context: dir,
    addHosts: { six: ["::1", "10.0.0.1"], one: "10.0.0.2" },
    contexts: { a: "b:1" },
  });
  expect(JSON.parse(sent[0] ?? "")).toMatchObject({
    place: dir,
    addHosts: ["six:::1", "six:10.0.0.1", "one:10.0.0.2"],
    contexts: ["a=b:1"],
  });
  sent.length = 0;
  await builds.build({ dockerfile: "FROM x" });
  expect(Object.keys(JSON.parse(sent[0] ?? "") as object)).not.toContain("place");
});

describe("a context", () => {
  test.each([
    ["nothing ignored", "", ["Dockerfile", "a", "d/e/x.log", "d/f"]],
    ["a pattern for all depths", "**/*.log\n", ["Dockerfile", "a", "d/f"]],
    ["a directory", "d\n", ["Dockerfile", "a"]],
    ["an exception within one", "# words\nd\n!d/f\n", ["Dockerfile", "a", "d/f"]],
    ["everything but one", "*\n!a\n", ["a"]],
  ])("%s", async (_what, ignore, wanted) => {
    const files = { Dockerfile: "FROM x", a: "", "d/e/x.log": "", "d/f": "" };
    const dir = context(ignore === "" ? files : { ...files, ".dockerignore": ignore });
    const { open, dockerfile, ignore: sent } = await sourcesOf(dir, undefined);
    expect(dockerfile).toBe("FROM x");
    // The builder is told, though the patterns may leave out their own file.
    expect(sent).toBe(ignore === "" ? undefined : ignore);
    expect((await namesIn(open())).filter((name) => name !== ".dockerignore")).toEqual(wanted);
  });

  test("a Dockerfile elsewhere, with patterns of its own", async () => {
    const dir = context({ a: "", b: "", "sub/My": "FROM y", "sub/My.dockerignore": "a\n" });
    const sources = await sourcesOf(dir, "sub/My");
    expect(sources).toMatchObject({ dockerfile: "FROM y", ignore: "a\n" });
    expect(await namesIn(sources.open())).not.toContain("a");
  });

  test("a symlink to a directory is that directory; patterns may begin with a byte order mark", async () => {
    const dir = context({ Dockerfile: "FROM x", a: "", b: "", ".dockerignore": "\uFEFFa\n" });
    const link = join(root, "link-to-context");
    symlinkSync(dir, link);
    const { open } = await sourcesOf(link, undefined);
    expect(await namesIn(open())).toEqual([".dockerignore", "Dockerfile", "b"]);
  });

  test("what cannot be used is refused", async () => {
    await expect(sourcesOf(context({ a: "" }), undefined)).rejects.toMatchObject({
      code: "ERR_BUILD_CONTEXT",
    });
    await expect(sourcesOf(join(root, "none"), undefined)).rejects.toMatchObject({
      code: "ERR_BUILD_CONTEXT",
      why: "It is no directory.",
    });
    const long = Readable.from([Buffer.alloc(5 << 20)]);
    await expect(sourcesOfStream(long)).rejects.toMatchObject({ code: "ERR_BUILD_CONTEXT" });
    await expect(secretOf("s", join(root, "none"))).rejects.toThrow(/the secret s from/);
    await expect(secretOf("s", Buffer.alloc(600 << 10))).rejects.toThrow(/the secret s$/);
    expect(await secretOf("s", Buffer.from("a\0b"))).toBe("YQBi");
  });
});

/** Set an extended attribute. @returns whether this file system has such */
function setAttribute(name: string, value: string, path: string): boolean {
  return spawnSync("setfattr", ["-n", name, "-v", value, path]).status === 0;
}

test("attributes of users travel with the context, links have none", async ({ skip }) => {
  const dir = context({ "sub/a=b": "x", Dockerfile: "" });
  symlinkSync("a=b", join(dir, "sub/link"));
  const has = setAttribute("user.a=%b", "0x00ff0a", join(dir, "sub/a=b"));
  skip(!has, "no attributes of users on this file system");
  setAttribute("user.dir", "d", join(dir, "sub"));
  const { open } = await sourcesOf(dir, undefined);
  const unpacked = mkdtempSync(join(root, "unpacked-"));
  const words = ["-x", "--xattrs", "--xattrs-include=user.*", "-C", unpacked, "-f", "-"];
  execFileSync("tar", words, { input: Buffer.concat(await open().toArray()) });
  const told = execFileSync("getfattr", ["-R", "-h", "-d", "-m", "user", "-e", "hex", "sub"], {
    cwd: unpacked,
    encoding: "utf8",
  });
  expect(told.trim().split(/\n+/)).toEqual([
    "# file: sub",
    "user.dir=0x64",
    "# file: sub/a=b",
    String.raw`user.a\075%b=0x00ff0a`,
  ]);
});

test("a build that is given up lets its context go", async () => {
  const dir = context({ Dockerfile: "FROM x", a: "x".repeat(1 << 20) });
  const given = new AbortController();
  let sent: Readable | undefined;
  const daemon = {
    streamed: async (_method: string, _path: string, { upload }: { upload: () => Readable }) => {
      sent = upload();
      await once(sent, "readable");
      throw given.signal.reason;
    },
  } as unknown as Daemon;
  given.abort(new Error("given up"));
  await expect(new Builds(daemon).build({ context: dir })).rejects.toThrow("given up");
  // No program that reads attributes is left: it would keep this process alive.
  const children = (): string =>
    spawnSync("ps", ["-o", "args=", "--ppid", String(process.pid)]).stdout.toString();
  await expect.poll(children, { timeout: 60_000 }).not.toContain("--attributes");
  expect(sent?.destroyed).toBe(true);
});

describe("a context as an archive on a stream", () => {
  /** GNU tar's archive of a directory. */
  function archiveOf(dir: string, ...words: string[]): Buffer {
    return execFileSync("tar", [...words, "-cf", "-", "-C", dir, "."]);
  }
  const long = "n".repeat(120);
  const files = {
    Dockerfile: "FROM x",
    "sub/My": "FROM y",
    "sub/My.dockerignore": "a\n",
    [long]: "",
  };

  test.each([
    ["plain", (bytes: Buffer) => bytes],
    ["gzip", (bytes: Buffer) => gzipSync(bytes)],
    ["zstd", (bytes: Buffer) => zstdCompressSync(bytes)],
    ["bzip2", (bytes: Buffer) => execFileSync("bzip2", { input: bytes })],
    ["xz", (bytes: Buffer) => execFileSync("xz", { input: bytes })],
  ])("%s: is sent as it is, with the Dockerfile in it", async (_how, packed) => {
    const bytes = archiveOf(context(files));
    // In the smallest pieces that a pipe may give.
    const pieces = [...packed(bytes)].map((byte) => Buffer.from([byte]));
    const { dockerfile, ignore, open, close } = await sourcesOfStream(Readable.from(pieces));
    expect({ dockerfile, ignore }).toEqual({ dockerfile: "FROM x" });
    const stream = open() as ReadStream;
    expect(Buffer.concat(await stream.toArray())).toEqual(bytes);
    await close?.();
    expect(existsSync(stream.path)).toBe(false);
  });

  test("without its end, as Docker's command line sends one with a Dockerfile from elsewhere, it gets one", async () => {
    const whole = archiveOf(context({ Dockerfile: "FROM x" }));
    const end = whole.indexOf("FROM x") + 6;
    const { dockerfile, open, close } = await sourcesOfStream(
      Readable.from([whole.subarray(0, end)]),
    );
    expect(dockerfile).toBe("FROM x");
    const sent = Buffer.concat(await (open() as ReadStream).toArray());
    expect(execFileSync("tar", ["-tf", "-"], { input: sent }).toString()).toBe(
      "./\n./Dockerfile\n",
    );
    await close?.();
    // What is cut off is refused all the same.
    await expect(
      sourcesOfStream(Readable.from([whole.subarray(0, end - 1)])),
    ).rejects.toMatchObject({ code: "ERR_BUILD_CONTEXT" });
  });

  test("another Dockerfile in it, with patterns of its own; or one from elsewhere", async () => {
    const bytes = archiveOf(context(files), "--format=pax");
    const other = await sourcesOfStream(Readable.from([bytes]), "./sub/My");
    expect(other).toMatchObject({ dockerfile: "FROM y", ignore: "a\n" });
    const given = await sourcesOfStream(Readable.from([bytes]), undefined, "FROM z");
    expect(given.dockerfile).toBe("FROM z");
    await Promise.all([other.close?.(), given.close?.()]);
  });

  test("what cannot be used is refused, and nothing is kept", async () => {
    const bytes = archiveOf(context(files));
    const cut = bytes.subarray(0, 3000);
    const xz = Buffer.from("fd377a585a0000", "hex");
    for (const [input, file, code] of [
      [bytes, "no/such", "ERR_BUILD_CONTEXT"],
      [cut, undefined, "ERR_BUILD_CONTEXT"],
      [xz, undefined, "ERR_VALIDATION_ARCHIVE"],
      [Buffer.from("FROM x"), "Dockerfile", "ERR_BUILD_CONTEXT"],
    ] as const) {
      const sources = sourcesOfStream(Readable.from([input]), file);
      await expect(sources).rejects.toMatchObject({ code });
    }
  });
});

describe("an archive that is kept", () => {
  let place = "";
  beforeEach(() => {
    place = mkdtempSync(join(root, "kept-"));
    vi.stubEnv("TMPDIR", place);
  });
  afterEach(() => {
    vi.unstubAllEnvs();
    expect(readdirSync(place)).toEqual([]);
  });

  test("takes no more room than it leaves, however little was sent", async () => {
    // 64 MiB in some kilobytes.
    const bomb = zstdCompressSync(Buffer.alloc(64 << 20));
    const without = keepArchive(Readable.from([bomb]), { freeIn: async () => 40 << 20 });
    await expect(without).rejects.toMatchObject({
      code: "ERR_BUILD_CONTEXT",
      why: expect.stringMatching(/48 MiB have come so far, and 40 MiB are left/),
    });
    const { remove } = await keepArchive(Readable.from([bomb]));
    await remove();
  });

  test("that is damaged is refused with a code", async () => {
    const damaged = gzipSync("x".repeat(1000)).fill(0xff, 10, 14);
    const broken = keepArchive(Readable.from([damaged]));
    await expect(broken).rejects.toMatchObject({ code: "ERR_VALIDATION_ARCHIVE" });
    const full = keepArchive(Readable.from([Buffer.alloc(32 << 20)]), {
      freeIn: async () => {
        throw Object.assign(new Error("ENOSPC: no space left"), { code: "ENOSPC" });
      },
    });
    await expect(full).rejects.toMatchObject({ code: "ERR_DISK_FULL" });
  });
});

describe("a context of a git repository", () => {
  const git = (dir: string, ...words: string[]): string =>
    execFileSync("git", ["-C", dir, "-c", "user.name=a", "-c", "user.email=b", ...words], {
      encoding: "utf8",
    });

  test("is what is committed, of a branch and of a directory in it", async () => {
    const dir = context({ Dockerfile: "FROM x", "sub/Dockerfile": "FROM y", "sub/f": "" });
    git(dir, "init", "-q", "-b", "main");
    git(dir, "add", ".");
    git(dir, "commit", "-q", "-m", "all");
    writeFileSync(join(dir, "Dockerfile"), "FROM uncommitted");
    const all = await commitOf(`${dir}#`);
    const whole = await sourcesOfStream(all as Readable);
    expect(whole.dockerfile).toBe("FROM x");
    await whole.close?.();
    const below = await sourcesOfStream((await commitOf(`${dir}#main:sub`)) as Readable);
    expect(below.dockerfile).toBe("FROM y");
    expect(await namesIn(below.open())).toEqual(["Dockerfile", "f"]);
    await below.close?.();
    // A directory is a directory, whatever it is called.
    expect(await commitOf(dir)).toBeUndefined();
    for (const ref of ["none", "--output=x", "main:none"]) {
      const found = commitOf(`${dir}#${ref}`).then(
        async (stream) => stream === undefined || (await stream.toArray()),
      );
      await expect(found).rejects.toMatchObject({ code: "ERR_BUILD_CONTEXT" });
    }
  });

  test("on another machine is none", async () => {
    for (const address of ["https://a.test/b.git", "git@a.test:b", "ssh://a.test/b#main"]) {
      await expect(commitOf(address)).rejects.toMatchObject({
        code: "ERR_BUILD_CONTEXT",
        why: "Contexts are not fetched from other machines.",
      });
    }
  });
});

describe("a template", () => {
  test("is a Dockerfile, and can be the start of several", () => {
    const base = ImageTemplate.from("node:22").workdir("/app");
    const one = base
      .copy(["package.json", "a file"], "./", { owner: "node" })
      .run("npm ci\nnpm test")
      .run(["echo", 'a "b"'])
      .env({ A: 'x "$y" \\z' })
      .expose(80)
      .cmd(["node", "."]);
    expect(one.toDockerfile()).toBe(
      [
        "FROM node:22",
        "WORKDIR /app",
        'COPY --chown=node ["package.json","a file","./"]',
        "RUN <<'END'",
        "set -e",
        "npm ci",
        "npm test",
        "END",
        'RUN ["echo","a \\"b\\""]',
        'ENV A="x \\"\\$y\\" \\\\z"',
        "EXPOSE 80/tcp",
        'CMD ["node","."]',
        "",
      ].join("\n"),
    );
    expect(base.toDockerfile()).toBe("FROM node:22\nWORKDIR /app\n");
  });

  test.each([
    ["for i in 1 2; do\n  echo $i # all of them\ndone", "END"],
    ["cat <<END >/f\nhello\nEND", "END_"],
    ["echo a \\", "END"],
  ])("a script stays what it is: %j", (script, end) => {
    const text = ImageTemplate.from("x").run(script).user("y").toDockerfile();
    expect(text).toBe(`FROM x\nRUN <<'${end}'\nset -e\n${script}\n${end}\nUSER y\n`);
    const command = ImageTemplate.from("x").cmd(script).toDockerfile();
    expect(command).toBe(`FROM x\nCMD ${JSON.stringify(["/bin/sh", "-ec", script])}\n`);
  });

  test("text that a Dockerfile would find variables, quotes, flags or lists in stays what it is", () => {
    const text = ImageTemplate.from("x")
      .copy(["$HOME/a b", 'quo"te', "it's"], "/back\\slash/")
      .workdir("/$a \"b\" 'c'")
      .run('["rm", "-rf"]')
      .run("--mount=type=secret,id=s true")
      .run("echo $HOME # stays")
      .toDockerfile();
    expect(text.split("\n")).toEqual([
      "FROM x",
      String.raw`COPY ["\\$HOME/a b","quo\\\"te","it\\'s","/back\\\\slash/"]`,
      String.raw`WORKDIR /\$a \"b\" \'c\'`,
      "RUN <<'END'",
      "set -e",
      '["rm", "-rf"]',
      "END",
      "RUN <<'END'",
      "set -e",
      "--mount=type=secret,id=s true",
      "END",
      "RUN echo $HOME # stays",
      "",
    ]);
  });

  test("cannot be made to say more than it is told", () => {
    const base = ImageTemplate.from("x");
    expect(() => base.workdir("/a\\")).toThrow(/into a Dockerfile/);
    expect(() => base.run(" \n")).toThrow(/into a Dockerfile/);
    const refusal = expect.objectContaining({ code: "ERR_VALIDATION_TEMPLATE" }) as Error;
    expect(() => base.user("a\nRUN rm -rf /")).toThrow(refusal);
    expect(() => base.env({ "A=1\nRUN x": "" })).toThrow(refusal);
    expect(() => base.env({ A: "1\nRUN x" })).toThrow(refusal);
    expect(() => ImageTemplate.from("x\nRUN y")).toThrow(refusal);
    expect(() => ImageTemplate.from("x AS y")).toThrow(refusal);
    expect(() => ImageTemplate.from("x", { platform: "a b" })).toThrow(refusal);
    expect(() => base.copy("a", "b", { owner: "1 --from=other" })).toThrow(refusal);
    expect(() => base.copy("a\0", "b")).toThrow(refusal);
    expect(() => base.user("$USER")).toThrow(refusal);
  });
});
