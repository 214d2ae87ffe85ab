import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, expect, test, vi } from "vitest";
import { createRequest } from "../../client/options.ts";
import type { CreateOptions } from "../../client/options.ts";
import type { CreateRequest } from "../../model/api.ts";
import { layoutOf } from "../../util/paths.ts";
import { newRecord } from "../starting/new-vm.ts";
import type { LiveGuest } from "../starting/await-guest.ts";
import { VmRecords } from "../records/records.ts";
import { VmTable } from "../table.ts";
import { fakeStages, quietLog } from "../testing.ts";
import { ReadyClones } from "./ready.ts";
import { takeOver } from "./warm-plan.ts";

const root = await mkdtemp(join(tmpdir(), "vmsan-ready-"));
afterAll(async () => await rm(root, { recursive: true, force: true }));
const made: ReadyClones[] = [];
afterEach(async () => {
  delete process.env["VMSAN_READY_CLONES"];
  await Promise.all(made.splice(0).map(async (clones) => await clones.close()));
  expect(await left()).toEqual([]);
});

const stages = fakeStages(root);
const table = new VmTable(new VmRecords(layoutOf(root).vms), stages, quietLog);
const choice = await stages.chooseDriver("auto");
const plan = { base: "/base", flat: false };
const PATIENT = { timeout: 60_000 };
const never = new AbortController().signal;
// ENOENT until the first one is made.
const left = async (): Promise<string[]> => await readdir(layoutOf(root).vms).catch(() => []);
const asked = (options: CreateOptions = {}): CreateRequest => createRequest(options);

/** Clones without guests. @returns them, those who make some, what waits until so many are made, and what ends the VMM of the last one */
function clones(limit?: number): {
  ready: ReadyClones;
  requests: CreateRequest[];
  whenMade: (many: number) => Promise<void>;
  hold: (until: Promise<void>) => void;
  crash: () => void;
} {
  const requests: CreateRequest[] = [];
  let count = 0;
  let until = Promise.resolve();
  let crash = (): void => undefined;
  const ready = new ReadyClones(
    table,
    async (request) => {
      requests.push(request);
      await until;
      const id = await table.claimId();
      const record = newRecord(id, table.records.dir(id), request, choice);
      await table.records.save(record);
      const exited = new Promise<void>((resolve) => (crash = resolve));
      const running = { exited, kill: async () => undefined };
      const guest = { running, channel: { close: () => undefined } } as unknown as LiveGuest;
      count += 1;
      return { record, guest, key: "key" };
    },
    limit,
  );
  made.push(ready);
  return {
    ready,
    requests,
    // A clone whose directory is there need not be made yet.
    whenMade: async (many) => await vi.waitFor(() => expect(count).toBe(many), PATIENT),
    hold: (other) => void (until = other),
    crash: () => crash(),
  };
}

/** Whether one waits for such a request; it is put to an end. */
async function waits(ready: ReadyClones, options?: CreateOptions): Promise<boolean> {
  const one = await ready.take(asked(options), choice, never);
  await one?.end();
  return one !== undefined;
}

test("none without the switch, and as many as it says", async () => {
  const off = clones();
  off.ready.next(asked(), choice, plan);
  expect(await waits(off.ready)).toBe(false);
  process.env["VMSAN_READY_CLONES"] = "2";
  const on = clones();
  for (const [before, memory] of [128, 256].entries()) {
    on.ready.next(asked({ memory }), choice, plan);
    await on.whenMade(before + 1);
  }
  expect(await left()).toHaveLength(2);
  on.ready.next(asked({ memory: 512 }), choice, plan);
  // Waits for the one that is being made, before which the oldest has to go.
  expect(await waits(on.ready, { memory: 512 })).toBe(true);
  expect(await waits(on.ready, { memory: 128 })).toBe(false);
  expect(await waits(on.ready, { memory: 256 })).toBe(true);
});

test("one is for everybody who asks for the same machine, and for nobody twice", async () => {
  const { ready, requests } = clones(1);
  const who = { name: "a", env: ["SECRET=1"], user: "me", labels: { a: "b" }, project: "p" };
  // A limit that no clone could keep would let none wait for others either.
  const first = { ...who, bootTimeout: 1, timeout: 7, onTimeout: "remove" as const };
  ready.next(asked(first), choice, plan);
  ready.next(asked(), choice, plan);
  expect(await waits(ready, { name: "b", env: ["B=1"], workdir: "/w", timeout: 5 })).toBe(true);
  expect(await waits(ready)).toBe(false);
  // What was the first one's alone is not in it.
  expect(JSON.stringify(requests)).not.toMatch(/SECRET|"me"|"a"|"p"|imeout/);
  expect(requests).toHaveLength(1);
});

test.each<[string, CreateOptions]>([
  ["memory", { memory: 256 }],
  ["another image", { image: "other" }],
  ["a policy", { networkPolicy: "deny-all" }],
  ["a port", { ports: ["8080"] }],
  ["a private network", { networks: ["net"] }],
  ["a volume", { mounts: ["data:/data"] }],
  ["a newer image, if there is one", { pull: "always" }],
  ["isolation", { seccomp: false }],
  ["a setting of the kernel", { sysctls: ["net.ipv4.ip_forward=1"] }],
])("none for who asks for %s", async (_name, options) => {
  const { ready } = clones(1);
  ready.next(asked(), choice, plan);
  expect(await waits(ready, options)).toBe(false);
  expect(await waits(ready)).toBe(true);
});

test("one that is being made is waited for by one request, and not beyond its end", async () => {
  const { ready, hold, whenMade } = clones(1);
  let go = (): void => undefined;
  hold(new Promise((resolve) => (go = resolve)));
  ready.next(asked(), choice, plan);
  const gone = new AbortController();
  const one = ready.take(asked(), choice, gone.signal);
  expect(await waits(ready)).toBe(false);
  gone.abort(new Error("gone"));
  await expect(one).rejects.toThrow("gone");
  go();
  await whenMade(1);
});

test("one whose VMM ends is removed", async () => {
  const { ready, crash, whenMade } = clones(1);
  ready.next(asked(), choice, plan);
  await whenMade(1);
  crash();
  await vi.waitFor(async () => expect(await left()).toEqual([]), PATIENT);
  expect(await waits(ready)).toBe(false);
});

test("all go where the disk is full, and another one may wait later", async () => {
  const { ready, whenMade } = clones(1);
  ready.next(asked(), choice, plan);
  await whenMade(1);
  await ready.giveUp();
  expect(await left()).toEqual([]);
  expect(await waits(ready)).toBe(false);
  ready.next(asked(), choice, plan);
  expect(await waits(ready)).toBe(true);
});

test("one that nobody asks for goes after five minutes", async () => {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "Date"] });
  try {
    const { ready, whenMade } = clones(1);
    ready.next(asked(), choice, plan);
    await whenMade(1);
    await vi.advanceTimersByTimeAsync(290_000);
    expect(await left()).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(20_000);
    await vi.waitFor(async () => expect(await left()).toEqual([]), PATIENT);
  } finally {
    vi.useRealTimers();
  }
});

test("the VM that one becomes has what was made of it, and its own of everything else", async () => {
  const { ready, whenMade } = clones(1);
  ready.next(asked(), choice, plan);
  await whenMade(1);
  const one = await ready.take(asked(), choice, never);
  if (one === undefined) throw new Error("none waits");
  const { id, spec } = one.record;
  one.record.process = { pid: 1, startTime: 2, bootId: "boot" };
  one.record.spec = { ...spec, disks: [{ role: "upper", path: "/disk", readonly: false }] };
  const record = newRecord(id, spec.dir, asked({ name: "mine", env: ["A=1"] }), choice);
  const became = takeOver(record, one);
  expect(became).toMatchObject({ name: "mine", defaults: { env: ["A=1"] }, process: { pid: 1 } });
  expect(became.spec.disks).toEqual(one.record.spec.disks);
  expect(takeOver(record, undefined)).toBe(record);
  delete one.record.process;
  await one.end();
  await one.end();
});
