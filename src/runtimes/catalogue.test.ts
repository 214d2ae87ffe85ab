import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { builtinRuntimes, findRuntime, readCatalogue } from "./catalogue.ts";

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "vmsan-catalogue-"));
});
afterEach(() => rm(dir, { recursive: true }));

/** Read a catalogue with that content. */
async function read(content: unknown) {
  const file = join(dir, "runtimes.json");
  await writeFile(file, typeof content === "string" ? content : JSON.stringify(content));
  return await readCatalogue(file);
}

describe("the catalogue", () => {
  test("without a file it is the built-in one", async () => {
    expect(await readCatalogue(join(dir, "none.json"))).toEqual(builtinRuntimes);
  });

  test("a file adds, replaces and takes away", async () => {
    const catalogue = await read({
      schema: 1,
      runtimes: {
        go: { image: "golang:1", env: ["CGO_ENABLED=0"] },
        node22: { image: "node:22" },
        "python3.13": null,
      },
    });
    const others = Object.keys(builtinRuntimes).filter((name) => name !== "python3.13");
    expect(Object.keys(catalogue).sort()).toEqual([...others, "go"].sort());
    expect(catalogue["node22"]).toEqual({ image: "node:22" });
  });

  test.each([
    ["no JSON", "{"],
    ["another version", { schema: 2, runtimes: {} }],
    ["neither image nor recipe", { schema: 1, runtimes: { a: {} } }],
    [
      "both",
      { schema: 1, runtimes: { a: { image: "x", recipe: { kind: "debian", packages: [] } } } },
    ],
    [
      "an option as package",
      { schema: 1, runtimes: { a: { recipe: { kind: "debian", packages: ["--x"] } } } },
    ],
    [
      "a command as user",
      { schema: 1, runtimes: { a: { recipe: { kind: "debian", packages: [] }, user: "$(id)" } } },
    ],
    [
      "a user that nothing could make",
      {
        schema: 1,
        runtimes: {
          a: { recipe: { kind: "debian", packages: [], unpack: true }, user: "dev" },
        },
      },
    ],
    ["a misspelt field", { schema: 1, runtimes: { a: { image: "x", wordir: "/" } } }],
    ["a path as name", { schema: 1, runtimes: { "../a": { image: "x" } } }],
    [
      "a loop",
      {
        schema: 1,
        runtimes: { a: { recipe: { kind: "node", from: "a", version: "22", npm: "10" } } },
      },
    ],
    ["a base that is gone", { schema: 1, runtimes: { base: null } }],
  ])("%s is refused", async (_what, content) => {
    await expect(read(content)).rejects.toMatchObject({ code: "ERR_VALIDATION_RUNTIME" });
  });

  test("an unknown name is answered with the known ones", () => {
    expect(() => findRuntime(builtinRuntimes, "nodee22")).toThrowError(/nodee22/);
    expect(() => findRuntime(builtinRuntimes, "__proto__")).toThrowError(/__proto__/);
  });
});
