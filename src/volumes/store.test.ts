import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readdir, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Ext4Reader } from "../ext4/reading/reader.ts";
import { readState, writeLabel } from "../ext4/reading/label.ts";
import { VolumeStore } from "./store.ts";

const GIB = 2 ** 30;
let root = "";
let store: VolumeStore;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "vmsan-volumes-"));
  store = new VolumeStore(join(root, "volumes"));
});
afterAll(() => rm(root, { recursive: true }));

const signal = new AbortController().signal;
const fsck = (path: string): string =>
  execFileSync("/sbin/e2fsck", ["-fn", path], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });

test("a volume is an ext4 file system with one empty directory, whole or not there", async () => {
  await store.create({ name: "data", sizeBytes: GIB, labels: { a: "b" } });
  expect(fsck(store.diskPath("data"))).toMatch(/clean|files/);
  const reader = new Ext4Reader(store.diskPath("data"));
  expect([...reader.tree().keys()].toSorted()).toEqual(["", "data", "lost+found"]);
  expect(reader.lookup(["data"])).toMatchObject({ kind: "directory" });
  expect(reader.lookup(["data", "nothing"])).toBeUndefined();
  reader.close();
  const { sizeBytes, storedBytes } = await store.sizes({ name: "data" });
  expect(sizeBytes).toBe(GIB);
  expect(storedBytes).toBeLessThan(4 << 20);
  await expect(store.create({ name: "data", sizeBytes: GIB, labels: {} })).rejects.toMatchObject({
    code: "ERR_VOLUME_NAME_TAKEN",
  });
  await expect(store.create({ name: "big", sizeBytes: 5, labels: {} })).rejects.toMatchObject({
    code: "ERR_DISK_SIZE",
  });
  expect(await readdir(join(root, "volumes"))).toEqual(["data"]);
});

test("a guest's own label does not stay: it would pass for another disk", async () => {
  const { path, label } = await store.disk("data", false);
  await writeLabel(path, "vmsan-modules");
  expect(await store.disk("data", false)).toMatchObject({ label, needsRecovery: false });
  expect((await readState(path))?.label).toBe(label);
  expect(fsck(path)).toMatch(/clean|files/);
});

test("it grows, and does not shrink", async () => {
  await store.grow("data", 3 * GIB);
  expect(fsck(store.diskPath("data"))).toMatch(/clean|files/);
  expect((await readState(store.diskPath("data")))?.sizeBytes).toBe(3 * GIB);
  await expect(store.grow("data", GIB)).rejects.toMatchObject({ code: "ERR_VOLUME_SIZE" });
  await expect(store.grow("none", GIB)).rejects.toMatchObject({ code: "ERR_VOLUME_NOT_FOUND" });
});

test("an archive makes another volume of the same content, told apart from the first", async () => {
  const archive = await store.export("data");
  await expect(store.disk("data", false)).rejects.toMatchObject({ code: "ERR_VOLUME_IN_USE" });
  await expect(store.remove("data")).rejects.toMatchObject({ code: "ERR_VOLUME_IN_USE" });
  await store.disk("data", true);
  const copy = await store.import("copy", archive, signal);
  expect(copy.labels).toEqual({ a: "b" });
  const [one, other] = [await store.disk("data", false), await store.disk("copy", false)];
  expect(other.label).not.toBe(one.label);
  expect(fsck(other.path)).toMatch(/clean|files/);
  expect((await store.sizes({ name: "copy" })).storedBytes).toBeLessThan(8 << 20);
  await expect(store.import("copy", await store.export("data"), signal)).rejects.toMatchObject({
    code: "ERR_VOLUME_NAME_TAKEN",
  });
  await store.remove("copy");
  await expect(store.get("copy")).rejects.toMatchObject({ code: "ERR_VOLUME_NOT_FOUND" });
});

test.each([
  ["no archive", async () => Readable.from([Buffer.from("x".repeat(2000))])],
  ["nothing", async () => Readable.from([])],
  [
    "a link",
    async (dir: string) => await tarOf(dir, "ln -s /etc/passwd volume.ext4; echo {} >volume.json"),
  ],
  [
    "another file",
    async (dir: string) =>
      await tarOf(dir, "echo x >volume.ext4; echo {} >volume.json; echo y >more"),
  ],
  [
    "no file system",
    async (dir: string) => await tarOf(dir, "truncate -s 200K volume.ext4; echo {} >volume.json"),
  ],
])("an import of %s leaves nothing", async (what, make) => {
  const dir = join(root, what.replaceAll(" ", "-"));
  await mkdir(dir);
  await expect(store.import("bad", await make(dir), signal)).rejects.toMatchObject({
    code: "ERR_VOLUME_ARCHIVE",
  });
  expect(await readdir(join(root, "volumes"))).toEqual(["data"]);
});

/** An archive of what a script makes in a directory. */
async function tarOf(dir: string, script: string): Promise<Readable> {
  execFileSync("sh", ["-c", script], { cwd: dir });
  return Readable.from([execFileSync("tar", ["-c", "-C", dir, "."])]);
}

test("what is half-made is swept, what is damaged is shown and can be removed", async () => {
  await mkdir(join(root, "volumes", ".tmp-0123"));
  expect(await store.sweep()).toEqual([".tmp-0123"]);
  await truncate(store.diskPath("data"), 4096);
  await expect(store.disk("data", false)).rejects.toMatchObject({ code: "ERR_VOLUME_DAMAGED" });
  await writeFile(join(root, "volumes", "data", "volume.json"), "{");
  expect(await store.list()).toMatchObject([
    { name: "data", damaged: expect.any(String) as string },
  ]);
  await store.remove("data");
  expect(await store.list()).toEqual([]);
});
