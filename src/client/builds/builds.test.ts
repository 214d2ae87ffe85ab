/** What a build sends: contexts without what is ignored, Dockerfiles written as code. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, describe, expect, test } from "vitest";
import { readArchive } from "../../agent/archive/read.ts";
import { secretOf, sourcesOf, sourcesOfStream } from "./context.ts";
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
    const { open, dockerfile } = await sourcesOf(dir, undefined);
    expect(dockerfile).toBe("FROM x");
    expect((await namesIn(open())).filter((name) => name !== ".dockerignore")).toEqual(wanted);
  });

  test("a Dockerfile elsewhere, with patterns of its own", async () => {
    const dir = context({ a: "", b: "", "sub/My": "FROM y", "sub/My.dockerignore": "a\n" });
    const sources = await sourcesOf(dir, "sub/My");
    expect(sources).toMatchObject({ dockerfile: "FROM y", ignore: "a\n" });
    expect(await namesIn(sources.open())).not.toContain("a");
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
    await expect(secretOf("s", join(root, "none"))).rejects.toThrow(/the secret s/);
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
        "RUN npm ci && \\",
        "    npm test",
        'RUN ["echo","a \\"b\\""]',
        'ENV A="x \\"\\$y\\" \\\\z"',
        "EXPOSE 80/tcp",
        'CMD ["node","."]',
        "",
      ].join("\n"),
    );
    expect(base.toDockerfile()).toBe("FROM node:22\nWORKDIR /app\n");
  });

  test("cannot be made to say more than it is told", () => {
    const base = ImageTemplate.from("x");
    const refusal = expect.objectContaining({ code: "ERR_VALIDATION_TEMPLATE" }) as Error;
    expect(() => base.user("a\nRUN rm -rf /")).toThrow(refusal);
    expect(() => base.env({ "A=1\nRUN x": "" })).toThrow(refusal);
    expect(() => base.env({ A: "1\nRUN x" })).toThrow(refusal);
    expect(() => ImageTemplate.from("x\nRUN y")).toThrow(refusal);
  });
});
