import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type { CloneRequest } from "../../model/api.ts";
import type { SnapshotRecord } from "../../model/snapshot.ts";
import { parseSnapshotRecord } from "../../schema/state.ts";
import { SnapshotStore, memoryPaths, writeToken } from "../../snapshots/store.ts";
import { agentBinary } from "../../util/package.ts";
import { layoutOf } from "../../util/paths.ts";
import { FakeDriver } from "../../vmm/fake/driver.ts";
import type { Driver, RunningVm } from "../../vmm/driver.ts";
import { VmRecords } from "../records/records.ts";
import { Sandboxes } from "../sandboxes.ts";
import { bareSnapshot, fakeStages, quietLog } from "../testing.ts";
import { Snapshots } from "./snapshots.ts";

const root = await mkdtemp(join(tmpdir(), "vmsan-clones-"));
afterAll(async () => await rm(root, { recursive: true, force: true }));
const work = { signal: new AbortController().signal, progress: () => undefined };
const machine = { vmm: "fake", accelerator: "none", cpu: "none" } as const;

const record: SnapshotRecord = { ...bareSnapshot, machine };

/** A driver that "loads" memory by starting an agent, and notes what it was given. */
function loading(loaded: string[]): Driver {
  const driver: Driver = new FakeDriver(agentBinary());
  driver.machine = async () => await Promise.resolve(machine);
  driver.restore = async (spec, files, signal): Promise<RunningVm> => {
    // As a VMM does: a file that has gone is a failure.
    const [state, memory] = await Promise.all([readFile(files.state), readFile(files.memory)]);
    loaded.push(`${state.toString()}, ${memory.length === 0 ? "stream" : memory.toString()}`);
    const running = await driver.start(spec, signal);
    running.snapshot = async (to) => {
      await writeFile(to.state, "state again", { flag: "wx" });
      await writeFile(to.memory, "file", { flag: "wx" });
    };
    return running;
  };
  return driver;
}

/** A stored snapshot whose memory is a stream, as that of a clone is, and all around it. */
async function stored(
  driver: Driver,
  about: Partial<SnapshotRecord> = {},
): Promise<{ sandboxes: Sandboxes; snapshots: Snapshots; dir: string }> {
  const home = await mkdtemp(join(root, "home-"));
  const dir = join(home, "snapshots");
  const store = new SnapshotStore(dir, parseSnapshotRecord);
  const { draft } = await store.begin();
  await writeFile(memoryPaths(draft).state, "state");
  await writeFile(memoryPaths(draft).memory, "");
  await writeToken(draft, "ab".repeat(16));
  await store.commit(draft, { ...record, ...about });
  const stages = fakeStages(home, { driver: () => driver });
  await mkdir(layoutOf(home).vms);
  const sandboxes = new Sandboxes(new VmRecords(layoutOf(home).vms), stages, quietLog);
  const snapshots = new Snapshots(sandboxes, dir);
  await snapshots.recover();
  return { sandboxes, snapshots, dir };
}

const isolation = { seccomp: true, pidNamespace: true, cgroup: true, networkNamespace: true };
const request = (count: number): CloneRequest => ({
  count,
  labels: {},
  ports: [],
  cold: false,
  ephemeral: false,
  isolation,
});

test("several who clone a stream at once, and one who removes it, are in nobody's way", async () => {
  const loaded: string[] = [];
  const { sandboxes, snapshots, dir } = await stored(loading(loaded));
  const clone = async (count: number): Promise<string[]> =>
    (await snapshots.clone(record.id, request(count), work, () => undefined)).map(({ id }) => id);
  const clones = [clone(2), clone(1), clone(3)];
  // Asked for while VMs are being made of it: it goes when they are there.
  const removed = snapshots.remove(record.id);
  const made = (await Promise.all(clones)).flat();
  await removed;
  expect(new Set(made).size).toBe(6);
  // One has read the stream and made a file of it; all others have the file.
  expect(loaded).toEqual([
    "state, stream",
    ...Array.from({ length: 5 }, () => "state again, file"),
  ]);
  expect(await readdir(dir)).toEqual([]);
  await expect(clone(1)).rejects.toMatchObject({ code: "ERR_VM_SNAPSHOT_NOT_FOUND" });
  for (const id of made) await sandboxes.remove(id, true);
}, 120_000);

test("what is being cloned is not pruned, and what is not is", async () => {
  const { sandboxes, snapshots, dir } = await stored(loading([]));
  const cloning = snapshots.clone(record.id, request(2), work, () => undefined);
  expect(await snapshots.prune(true)).toMatchObject({ snapshots: [] });
  for (const { id } of await cloning) await sandboxes.remove(id, true);
  expect(await snapshots.prune(true)).toMatchObject({ snapshots: [record.id] });
  expect(await readdir(dir)).toEqual([]);
}, 120_000);

test("a VM that has lost its card since does not go back to where it had one, and is as it was", async () => {
  const { sandboxes, snapshots, dir } = await stored(loading([]), { card: true });
  const made = (await snapshots.clone(record.id, request(1), work, () => undefined))[0];
  const id = made?.id ?? "";
  await expect(snapshots.restore(id, record.id, work)).rejects.toMatchObject({
    code: "ERR_SNAPSHOT_FIXED",
    why: expect.stringContaining("had a network card") as string,
  });
  expect(sandboxes.find(id).record.status).toBe("running");
  await sandboxes.remove(id, true);
  expect(await readdir(dir)).toEqual([record.id]);
}, 120_000);

test("a VM whose host offers no networks goes back to where it had no card either", async () => {
  const { sandboxes, snapshots } = await stored(loading([]));
  const id = (await snapshots.clone(record.id, request(1), work, () => undefined))[0]?.id ?? "";
  const { record: own } = sandboxes.find(id);
  own.policy = { ...own.policy, mode: "allow-all" };
  expect(own.spec.network).toBeUndefined();
  expect((await snapshots.restore(id, record.id, work)).status).toBe("running");
  await sandboxes.remove(id, true);
}, 120_000);
