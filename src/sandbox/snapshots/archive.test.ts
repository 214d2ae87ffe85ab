import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { SnapshotRecord } from "../../model/snapshot.ts";
import { parseSnapshotRecord } from "../../schema/state.ts";
import { emptyQcow2 } from "../../snapshots/qcow2.ts";
import { SnapshotStore } from "../../snapshots/store.ts";
import { packSparse } from "../../util/packing/sparse-tar.ts";
import { bareSnapshot } from "../testing.ts";
import { importSnapshot } from "./archive.ts";

let dir = "";
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "vmsan-archive-"));
});
afterAll(async () => await rm(dir, { recursive: true, force: true }));

/** Take in an archive of a snapshot that says so of itself. */
async function take(
  about: object,
  files: Readonly<Record<string, Buffer>> = {},
): Promise<SnapshotRecord> {
  const from = await mkdtemp(join(dir, "from-"));
  for (const [name, bytes] of Object.entries(files)) await writeFile(join(from, name), bytes);
  await writeFile(join(from, "snapshot.json"), JSON.stringify({ ...bareSnapshot, ...about }));
  const root = await mkdtemp(join(dir, "snapshots-"));
  const store = new SnapshotStore(root, parseSnapshotRecord);
  const archive = packSparse(from, ["snapshot.json", ...Object.keys(files)]);
  return await importSnapshot(store, archive, new AbortController().signal, (read) => read);
}

test("an archive shares nothing of this host", async () => {
  const target = "/etc";
  for (const mounts of [
    [{ kind: "bind", source: "/etc", target, readonly: true }],
    [{ kind: "volume", name: "data", target, readonly: true, nocopy: false }],
  ] as SnapshotRecord["mounts"][]) {
    await expect(take({ ...(mounts && { mounts }) })).rejects.toMatchObject({
      code: "ERR_SNAPSHOT_ARCHIVE",
      why: expect.stringMatching(/shares directories or volumes/) as string,
    });
  }
  const copy = {
    kind: "volume",
    name: "data",
    target,
    readonly: false,
    nocopy: false,
    copy: true,
  } as const;
  expect((await take({ mounts: [copy] })).mounts).toEqual([copy]);
});

test("disks of an archive have a VMM open nothing that is not in it", async () => {
  const bottom = Buffer.alloc(4096);
  const disk = { role: "upper", path: "disk0-1.qcow2", readonly: false, backing: ["disk0-0.ext4"] };
  const layered = async (layer: Buffer): Promise<SnapshotRecord> =>
    await take({ disks: [disk] }, { "disk0-0.ext4": bottom, "disk0-1.qcow2": layer });
  expect((await layered(emptyQcow2(1 << 20))).disks).toEqual([disk]);
  const changed = (change: (header: Buffer) => void): Buffer => {
    const image = emptyQcow2(1 << 20);
    change(image);
    return image;
  };
  for (const wrong of [
    // Its data in a file that it names.
    changed((header) => header.writeBigUInt64BE(4n, 72)),
    changed((header) => header.writeBigUInt64BE(512n, 8)),
    changed((header) => header.writeUInt32BE(2, 32)),
    changed((header) => header.writeUInt32BE(2, 4)),
    bottom,
    Buffer.alloc(0),
  ]) {
    await expect(layered(wrong)).rejects.toMatchObject({ code: "ERR_SNAPSHOT_ARCHIVE" });
  }
  const layer = { "disk0.qcow2": emptyQcow2(1 << 20) };
  for (const disks of [
    [{ role: "base", path: "disk0.qcow2", readonly: true, backing: ["/etc/shadow"] }],
    [{ role: "base", path: "disk0.qcow2", readonly: true, backing: ["disk0.qcow2"] }],
    [{ role: "data", path: "disk0.qcow2", readonly: true }],
    [{ role: "data", path: "disk0.qcow2", readonly: true, volume: { name: 1, label: [] } }],
    [{ role: "base", path: "/etc/shadow", readonly: true }],
    [{ ...disk, path: "not-there.qcow2" }],
  ]) {
    await expect(take({ disks }, layer)).rejects.toMatchObject({ code: "ERR_SNAPSHOT_ARCHIVE" });
  }
});
