import { randomUUID } from "node:crypto";
import { appendFile, mkdtemp, open, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, expect, test } from "vitest";
import type { Template } from "../../model/snapshot.ts";
import { TemplateShelf, nameOf } from "./template-shelf.ts";

const root = await mkdtemp(join(tmpdir(), "vmsan-templates-"));
afterAll(async () => await rm(root, { recursive: true, force: true }));
afterEach(() => delete process.env["VMSAN_TEMPLATE_BYTES"]);

const machine: Template["machine"] = { vmm: "QEMU 7.2", accelerator: "tcg", cpu: "max" };
const disk: NonNullable<Template["disk"]> = { role: "upper", path: "upper.ext4", readonly: false };
const base = join(root, "base");
await writeFile(base, "base");

/** Keep a template of 5 MiB. @returns its key */
async function keep(
  shelf: TemplateShelf,
  slot: string,
  change: Partial<Pick<Template, "needs" | "machine">> = {},
): Promise<string> {
  const key = nameOf([slot, change]);
  const draft = await shelf.begin("vm-00000001");
  await writeFile(join(draft, "memory"), Buffer.alloc(5 << 20, 7));
  await writeFile(join(draft, "state"), "state");
  await writeFile(join(draft, "token"), randomUUID());
  await writeFile(join(draft, "console.log"), "not needed");
  const about = { disk, machine, slot, needs: [base], ...change };
  await shelf.keep(draft, key, ["memory", "state", "token"], about);
  return key;
}

test("a template is there whole or not at all, and what is changed is of no use", async () => {
  const shelf = new TemplateShelf(join(root, "whole"));
  expect(await shelf.find(nameOf("none"))).toBeUndefined();
  const half = await shelf.begin("vm-00000002");
  expect(await shelf.unfinished()).toEqual([half]);
  const key = await keep(shelf, "a");
  expect((await readdir(shelf.place(key))).toSorted()).toEqual([
    "memory",
    "state",
    "template.json",
    "token",
  ]);
  expect(await shelf.find(key)).toMatchObject({ disk, slot: "a" });
  await appendFile(join(shelf.place(key), "state"), "x");
  expect(await shelf.find(key)).toBeUndefined();
  // Of the size that it had, as a VMM that was taken over would leave it.
  const other = await keep(shelf, "a");
  const found = await shelf.find(other);
  if (found === undefined) throw new Error("it was not kept");
  const memory = await open(join(shelf.place(other), "memory"), "r+");
  await memory.write("x", 1 << 20);
  await memory.close();
  expect(await shelf.holds(other, found)).toBe(false);
  expect(await shelf.find(other)).toBeUndefined();
  expect(await readdir(join(root, "whole"))).toEqual([".new-vm-00000002"]);
});

test("what another kernel, image or VMM has superseded goes, and the least recently used of too many", async () => {
  const dir = join(root, "bounded");
  const shelf = new TemplateShelf(dir);
  const there = async (): Promise<string[]> => (await readdir(dir)).toSorted();
  const first = await keep(shelf, "a", { needs: [base] });
  const second = await keep(shelf, "a", { needs: [base, base] });
  expect(await shelf.find(first)).toBeUndefined();
  const other = await keep(shelf, "b");
  expect(await there()).toEqual([second, other].toSorted());
  // A file that it needs is gone.
  const image = join(root, "image");
  await writeFile(image, "image");
  const pulled = await keep(shelf, "c", { needs: [image] });
  await rm(image);
  expect(await there()).toContain(pulled);
  process.env["VMSAN_TEMPLATE_BYTES"] = String(12 << 20);
  await shelf.find(second);
  const last = await keep(shelf, "d");
  expect(await there()).toEqual([second, last].toSorted());
  delete process.env["VMSAN_TEMPLATE_BYTES"];
  const newer = await keep(shelf, "e", { machine: { ...machine, vmm: "QEMU 8.0" } });
  expect(await there()).toEqual([newer]);
});

test("whoever has waited since it found a template is told that another one is there by now, or none", async () => {
  const shelf = new TemplateShelf(join(root, "changed"));
  const key = await keep(shelf, "a");
  const found = await shelf.find(key);
  if (found === undefined) throw new Error("it was not kept");
  await shelf.find(key);
  expect(await shelf.holds(key, found)).toBe(true);
  await shelf.drop(key);
  expect(await shelf.holds(key, found)).toBe(false);
  expect(await keep(shelf, "a")).toBe(key);
  expect(await shelf.holds(key, found)).toBe(false);
});

test("what a killed daemon has removed half of goes with the next one, and all when there is no room", async () => {
  const dir = join(root, "swept");
  const shelf = new TemplateShelf(dir);
  await shelf.sweep();
  expect(await shelf.clear()).toBe(0);
  const half = await keep(shelf, "a");
  await rm(join(shelf.place(half), "template.json"));
  const old = await keep(shelf, "b");
  await writeFile(join(shelf.place(old), "template.json"), "{}");
  const whole = await keep(shelf, "c");
  const draft = await shelf.begin("vm-00000003");
  await shelf.sweep();
  expect((await readdir(dir)).toSorted()).toEqual([".new-vm-00000003", whole]);
  expect(await shelf.room()).toBeGreaterThan(0);
  expect(await shelf.clear()).toBe(1);
  // What is being made is its maker's.
  expect(await shelf.unfinished()).toEqual([draft]);
});

test("a template that goes while somebody looks for it is not there", async () => {
  const shelf = new TemplateShelf(join(root, "going"));
  for (let round = 0; round < 10; round += 1) {
    const key = await keep(shelf, "a");
    // Between the document and the end of the look, wherever that is.
    const looks = Array.from({ length: 8 }, async () => await shelf.find(key));
    await sleep(round % 3);
    await shelf.drop(key);
    await Promise.all(looks);
    expect(await shelf.find(key)).toBeUndefined();
  }
});
