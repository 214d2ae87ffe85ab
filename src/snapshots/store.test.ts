import { appendFile, mkdir, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type { SnapshotRecord } from "../model/snapshot.ts";
import type { DiskAttachment } from "../model/vm.ts";
import { giveDisk, keepDisk, removeUnused, withLayer } from "./disks.ts";
import { emptyQcow2, virtualSize } from "./qcow2.ts";
import { SnapshotStore, memoryPaths, writeToken } from "./store.ts";

const root = await mkdtemp(join(tmpdir(), "vmsan-snapshots-"));
afterAll(async () => await rm(root, { recursive: true, force: true }));

const open = (dir: string): SnapshotStore =>
  new SnapshotStore(dir, (value) => value as SnapshotRecord);

/** What a snapshot says of itself, as far as the store looks. */
const about = (id: string, name?: string): Omit<SnapshotRecord, "files"> =>
  ({
    schema: 1,
    id,
    ...(name === undefined ? {} : { name }),
    createdAt: new Date().toISOString(),
    disks: [],
  }) as unknown as Omit<SnapshotRecord, "files">;

/** A draft with a small and a large part. */
async function draftOf(store: SnapshotStore): Promise<string> {
  const { draft } = await store.begin();
  await writeFile(memoryPaths(draft).state, "state");
  await writeFile(memoryPaths(draft).memory, Buffer.alloc(5 << 20, 7));
  await writeToken(draft, "ab".repeat(16));
  return draft;
}

test("a snapshot is there whole or not at all, also for the next daemon", async () => {
  const dir = join(root, "whole");
  const store = open(dir);
  const half = await draftOf(store);
  const forgotten: string[] = [];
  const forget = async (id: string): Promise<void> => {
    await Promise.resolve();
    forgotten.push(id);
  };
  expect(store.list()).toEqual([]);
  await store.commit(await draftOf(store), about("snap-00000001", "one"));
  const next = open(dir);
  // What a daemon that was killed while it made memory shareable has left.
  await mkdir(join(dir, "snap-00000001/sharing"));
  await writeFile(join(dir, "snap-00000001/sharing/state"), "half");
  expect(await next.load(forget)).toEqual([]);
  expect(forgotten.map((id) => `.new-${id}`)).toEqual([basename(half)]);
  expect(await readdir(join(dir, "snap-00000001"))).not.toContain("sharing");
  expect(next.list().map(({ id }) => id)).toEqual(["snap-00000001"]);
  expect(next.get("one").id).toBe("snap-00000001");
  expect(await readdir(dir)).toEqual(["snap-00000001"]);
  await expect(stat(half)).rejects.toThrow("ENOENT");
  await next.verify(next.get("one"));
  expect((await next.memoryOf(next.get("one"))).token).toBe("ab".repeat(16));
  await next.remove("snap-00000001", forget);
  expect(forgotten).toContain("snap-00000001");
  expect(await readdir(dir)).toEqual([]);
  expect(() => next.get("one")).toThrow(/No snapshot one/);
});

test("every part that is missing, cut, longer or (if small) changed is noticed", async () => {
  for (const [name, damage] of [
    ["state", async (path: string) => await writeFile(path, "stale")],
    ["token", async (path: string) => await rm(path)],
    ["memory", async (path: string) => await appendFile(path, "x")],
    ["memory", async (path: string) => await writeFile(path, Buffer.alloc(1))],
  ] as const) {
    const dir = await mkdtemp(join(root, "damaged-"));
    const store = open(dir);
    const record = await store.commit(await draftOf(store), about("snap-00000002"));
    await damage(join(dir, record.id, name));
    await expect(store.verify(record), name).rejects.toMatchObject({
      code: "ERR_SNAPSHOT_DAMAGED",
    });
  }
});

test("memory that was a stream is replaced by files that can be shared, at one stroke", async () => {
  const dir = join(root, "shared");
  const store = open(dir);
  const record = await store.commit(await draftOf(store), about("snap-00000003"));
  const made = join(dir, record.id, "sharing");
  await mkdir(made);
  await writeFile(memoryPaths(made).state, "new state");
  await writeFile(memoryPaths(made).memory, "new memory");
  const now = await store.replaceMemory(record.id, made);
  await store.verify(now);
  expect((await store.memoryOf(now)).files.memory).toContain("shared");
  expect((await readdir(join(dir, record.id))).toSorted()).toEqual([
    "shared",
    "snapshot.json",
    "token",
  ]);
});

test("layers: what is frozen is shared by name, not copied, and outlives every other place", async () => {
  const [vm, kept, clone] = [join(root, "vm"), join(root, "kept"), join(root, "clone")];
  for (const dir of [vm, kept, clone]) await mkdir(dir);
  const disk: DiskAttachment = { role: "upper", path: join(vm, "upper.ext4"), readonly: false };
  await writeFile(disk.path, Buffer.alloc(40 << 20, 1));
  const layered = await withLayer(disk, vm);
  expect(layered.backing).toEqual([disk.path]);
  expect(await virtualSize(layered.path)).toBe(40 << 20);
  const stored = await keepDisk(disk, 1, kept, "overlay");
  expect((await stat(join(kept, stored.path))).ino).toBe((await stat(disk.path)).ino);
  const given = await giveDisk(stored, kept, clone, true);
  await rm(vm, { recursive: true });
  await rm(kept, { recursive: true });
  const [below = ""] = given.backing ?? [];
  expect((await stat(below)).size).toBe(40 << 20);
  await writeFile(join(clone, "upper-0123abcd.qcow2"), "left over");
  await removeUnused(clone, [given]);
  expect((await readdir(clone)).length).toBe(2);
});

test("an empty layer has the header that QEMU's specification asks for", () => {
  const image = emptyQcow2(10 * 2 ** 30);
  expect(image.toString("latin1", 0, 4)).toBe("QFI\u00FB");
  expect(image.readUInt32BE(4)).toBe(3);
  expect(Number(image.readBigUInt64BE(24))).toBe(10 * 2 ** 30);
  // One entry of the first table for each 512 MiB; no file below is named.
  expect([image.readUInt32BE(36), image.readBigUInt64BE(8)]).toEqual([20, 0n]);
  expect(() => emptyQcow2(2 ** 50)).toThrow(RangeError);
});
