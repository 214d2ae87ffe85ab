import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { fileLog } from "./log.ts";

let dir = "";
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "vmsan-log-"));
});
afterAll(async () => await rm(dir, { recursive: true, force: true }));

async function lines(name: string): Promise<string[]> {
  const path = join(dir, name);
  const log = fileLog(path);
  log.info("one\ntwo");
  log.info("", { key: "a", status: 403 });
  log.error("failed", new Error("why", { cause: new Error("because\nof this") }));
  return (await readFile(path, "utf8")).trimEnd().split("\n");
}

test("a line each, whatever is said", async () => {
  const [one = "", two = "", three = ""] = await lines("text");
  expect(one).toMatch(/^\S+Z info one\\ntwo$/);
  expect(two).toMatch(/^\S+Z info \{"key":"a","status":403\}$/);
  expect(three).toMatch(/^\S+Z error failed: why <- because\\nof this$/);
});

test("as JSON where that is asked for", async () => {
  vi.stubEnv("VMSAN_LOG_FORMAT", "json");
  try {
    const entries = (await lines("json")).map((line) => JSON.parse(line) as object);
    expect(entries).toMatchObject([
      { level: "info", message: "one\ntwo" },
      { level: "info", key: "a", status: 403 },
      { level: "error", message: String.raw`failed: why <- because\nof this` },
    ]);
    expect(entries[1]).not.toHaveProperty("message");
  } finally {
    vi.unstubAllEnvs();
  }
});
