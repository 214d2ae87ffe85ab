import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Mount } from "../../model/mount.ts";
import type { SnapshotRecord } from "../../model/snapshot.ts";
import type { VmRecord } from "../../model/vm.ts";
import { withStamp } from "../../snapshots/disks.ts";
import { fakeStages } from "../testing.ts";
import { checkOutside, keptMounts, requireNoShares, requireNoWrittenVolume } from "./outside.ts";

let dir = "";
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "vmsan-outside-"));
  await mkdir(join(dir, "shared"));
});
afterAll(async () => await rm(dir, { recursive: true, force: true }));

const bind = (): Mount => ({
  kind: "bind",
  source: join(dir, "shared"),
  target: "/work",
  readonly: false,
});
const volume = (name: string, readonly: boolean): Mount & { kind: "volume" } => ({
  kind: "volume",
  name,
  target: `/${name}`,
  readonly,
  nocopy: false,
});
const anonymous: Mount = { kind: "anonymous", target: "/own" };
const vm = (...mounts: Mount[]): VmRecord => ({ id: "vm-00000001", mounts }) as VmRecord;
const snapshot = (mounts: Mount[], disks: SnapshotRecord["disks"] = []): SnapshotRecord =>
  ({ id: "snap-00000001", vm: { id: "vm-00000001" }, mounts, disks }) as unknown as SnapshotRecord;

test("what a VM writes to is a copy in its snapshot; a disk alone knows of its own only", () => {
  const copy: Mount = { ...volume("copied", false), copy: true as const };
  const record = vm(bind(), volume("written", false), volume("read", true), anonymous, copy);
  expect(keptMounts(record, true).mounts).toEqual([
    bind(),
    { ...volume("written", false), copy: true },
    volume("read", true),
    anonymous,
    copy,
  ]);
  expect(keptMounts(record, false).mounts).toEqual([anonymous, copy]);
  expect(keptMounts(vm(bind()), false)).toEqual({});
});

test("a directory that is gone, and a volume that is gone or was written to, are refused", async () => {
  const stages = fakeStages(join(dir, "own"));
  await mkdir(join(dir, "own"));
  await expect(
    checkOutside(snapshot([{ ...bind(), source: join(dir, "gone") } as Mount]), true, stages),
  ).rejects.toMatchObject({ code: "ERR_MOUNT_SOURCE" });
  await expect(checkOutside(snapshot([volume("none", true)]), true, stages)).rejects.toMatchObject({
    code: "ERR_VOLUME_NOT_FOUND",
  });
  await stages.volumes.create({ name: "read", sizeBytes: 2 ** 30, labels: {} });
  const { path, label } = await stages.volumes.disk("read", true);
  const disk = await withStamp({
    role: "data",
    path,
    readonly: true,
    volume: { name: "read", label },
  });
  const taken = snapshot([bind(), volume("read", true)], [disk]);
  await checkOutside(taken, true, stages);
  await writeFile(path, "x", { flag: "r+" });
  await expect(checkOutside(taken, true, stages)).rejects.toMatchObject({
    code: "ERR_SNAPSHOT_VOLUME",
    why: expect.stringMatching(/read, which has been written to/) as string,
  });
  // A boot reads it anew.
  await checkOutside(taken, false, stages);
});

test("a VM that writes to a volume does not go back, one that reads or has a copy may", () => {
  requireNoWrittenVolume("box", vm(volume("a", true), bind()), "snap-00000001");
  requireNoWrittenVolume(
    "box",
    vm({ ...volume("a", false), copy: true as const }),
    "snap-00000001",
  );
  expect(() => requireNoWrittenVolume("box", vm(volume("a", false)), "snap-00000001")).toThrow(
    "Cannot take box back",
  );
});

test("directories of this host go to no other one", () => {
  requireNoShares(snapshot([anonymous]));
  expect(() => requireNoShares(snapshot([bind()]))).toThrow("Cannot export snap-00000001");
});
