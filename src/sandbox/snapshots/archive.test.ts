import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { SnapshotRecord } from "../../model/snapshot.ts";
import { parseSnapshotRecord } from "../../schema/state.ts";
import { SnapshotStore } from "../../snapshots/store.ts";
import { packSparse } from "../../util/packing/sparse-tar.ts";
import { importSnapshot } from "./archive.ts";

let dir = "";
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "vmsan-archive-"));
});
afterAll(async () => await rm(dir, { recursive: true, force: true }));

const record: SnapshotRecord = {
  schema: 1,
  id: "snap-00000001",
  createdAt: "2026-01-01T00:00:00.000Z",
  vm: { id: "vm-00000001" },
  memory: true,
  driver: "qemu",
  machine: { vmm: "QEMU 7.2.22", accelerator: "tcg", cpu: "max" },
  kernel: { path: "/kernel" },
  initramfs: "/initramfs",
  kernelArgs: [],
  vcpus: 1,
  memMib: 128,
  diskSizeBytes: 2 ** 30,
  disks: [],
  card: false,
  defaults: { env: [] },
  policy: {
    mode: "none",
    allowedDomains: [],
    allowedCidrs: [],
    deniedCidrs: [],
    allowedPorts: [],
    allowHostPorts: [],
    allowIcmp: false,
    allowUdp: false,
  },
  files: [],
  pauseMs: 0,
};

/** Take in an archive of a snapshot that says so of itself. */
async function take(about: Partial<SnapshotRecord>): Promise<SnapshotRecord> {
  const from = await mkdtemp(join(dir, "from-"));
  await writeFile(join(from, "snapshot.json"), JSON.stringify({ ...record, ...about }));
  const root = join(dir, "snapshots");
  await mkdir(root, { recursive: true });
  const store = new SnapshotStore(root, parseSnapshotRecord);
  const archive = packSparse(from, ["snapshot.json"]);
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
