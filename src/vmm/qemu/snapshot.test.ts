/** Snapshots as files; that QEMU loads them is in the drivers' contract. */
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { readSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { loadState, withBalloon } from "./snapshot.ts";

const root = await mkdtemp(join(tmpdir(), "vmsan-qemu-snapshot-"));
afterAll(async () => await rm(root, { recursive: true, force: true }));

/** Larger than what is looked at. */
const MEMORY = "x".repeat(3 << 20);

test.each([
  ["of a machine with a balloon", `head${MEMORY}/virtio-balloon/end`, true],
  ["of one without", `head${MEMORY}end`, false],
  ["of nothing", "", false],
])("a state %s is known, and read from its beginning", async (_what, text, balloon) => {
  const state = join(root, "state");
  await writeFile(state, text);
  const open = await loadState({ state, memory: join(root, "memory") });
  expect(open.balloon).toBe(balloon);
  const first = Buffer.alloc(4);
  readSync(open.descriptors[0] ?? -1, first, 0, 4, null);
  expect(first.toString()).toBe(text === "" ? "\0\0\0\0" : "head");
  await open.close();
});

test("a machine with a balloon shares its memory file with nobody", async () => {
  const [memory, own] = [join(root, "memory"), join(root, "memory.own")];
  await writeFile(memory, "memory");
  expect(await withBalloon({ memory }, own)).toEqual({ memory: own, balloon: true });
  expect(await readFile(own, "utf8")).toBe("memory");
  expect((await stat(own)).ino).not.toBe((await stat(memory)).ino);
  expect(await withBalloon({}, own)).toEqual({ balloon: true });
});
