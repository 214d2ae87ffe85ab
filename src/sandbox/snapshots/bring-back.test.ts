import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { createRequest } from "../../client/options.ts";
import { closedPolicy } from "../../model/policy.ts";
import type { ProgressEvent } from "../../model/progress.ts";
import type { LiveGuest } from "../starting/await-guest.ts";
import { layoutOf } from "../../util/paths.ts";
import { FakeDriver } from "../../vmm/fake/driver.ts";
import { VmRecords } from "../records/records.ts";
import { Sandboxes } from "../sandboxes.ts";
import { newRecord } from "../starting/new-vm.ts";
import { fakeStages, quietLog } from "../testing.ts";
import { bringBack, goOn } from "./bring-back.ts";

const root = await mkdtemp(join(tmpdir(), "vmsan-bring-back-"));
afterAll(async () => await rm(root, { recursive: true, force: true }));
const work = { signal: new AbortController().signal, progress: () => undefined };

test("what the file server knew of a memory is there before the memory is loaded", async () => {
  const known: string[] = [];
  const vm = await mkdtemp(join(root, "vm-"));
  const driver = new FakeDriver("/no/agent");
  driver.restore = async () => {
    for (const name of await readdir(vm)) known.push(await readFile(join(vm, name), "utf8"));
    throw new Error("so far");
  };
  const stages = fakeStages(root, { driver: () => driver });
  const shares = join(root, "shares");
  await writeFile(shares, "of that time");
  const choice = await stages.chooseDriver("auto");
  const record = newRecord(
    "vm-00000001",
    vm,
    createRequest({ mounts: ["/etc:/etc/host"] }),
    choice,
  );
  const image = { files: { state: "/state", memory: "/memory" }, token: "", shares };
  await expect(
    bringBack({
      record,
      token: "",
      image: async () => await Promise.resolve(image),
      attached: true,
      stages,
      work,
      log: quietLog,
      save: async () => await Promise.resolve(),
    }),
  ).rejects.toMatchObject({ code: "ERR_VM_RESTORE" });
  expect(known).toEqual(["of that time"]);
});

test("whoever asks for a clone is told of a hook that has failed", async () => {
  const stages = fakeStages(root);
  const choice = await stages.chooseDriver("auto");
  const record = newRecord("vm-00000002", join(root, "told"), createRequest({}), choice);
  record.mending = "clone";
  const warnings = ["The hook /etc/vmsan/restored.d/10-keys failed: it had not ended within 10s."];
  const channel = {
    configure: async () => await Promise.resolve({ timings: {}, warnings }),
    request: async () => await Promise.resolve({}),
  };
  const running = {
    resume: async () => await Promise.resolve(),
    exited: new Promise(() => undefined),
  };
  const told: unknown[] = [];
  const telling = { ...work, progress: (event: ProgressEvent) => void told.push(event) };
  const guest = { running, channel } as unknown as LiveGuest;
  await goOn({ record, token: "", stages, work: telling, log: quietLog }, guest);
  expect(told).toContainEqual({ phase: "mend", message: warnings[0] });
  expect(record.mending).toBeUndefined();
});

test("the record of a clone that waits is there for as long as the clone runs", async () => {
  const records = new VmRecords(layoutOf(root).vms);
  const stages = fakeStages(root);
  const sandboxes = new Sandboxes(records, stages, quietLog);
  const choice = await stages.chooseDriver("auto");
  const id = await sandboxes.claimId();
  const request = createRequest({});
  const record = newRecord(id, records.dir(id), request, choice);
  await records.save(record);
  const maker = {
    name: undefined,
    networks: [{ network: "nowhere", aliases: [] }],
    secrets: { requests: [] },
    ready: { record, key: "", guest: undefined as never, end: async () => await Promise.resolve() },
    record: () => record,
    bringUp: async () => await Promise.reject(new Error("not reached")),
  };
  await expect(sandboxes.make(maker, work, () => undefined)).rejects.toThrow(/nowhere/);
  expect(await readdir(records.dir(id))).not.toEqual([]);
});

test("a memory that cannot be had ends the making of the network before that is taken away", async () => {
  const order: string[] = [];
  const { networks } = fakeStages(root);
  const stages = fakeStages(root, {
    networks: {
      ...networks,
      attach: async (_id, _policy, _ports, signal) => {
        order.push("attach");
        await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
        // Others take their turns before it is undone.
        await new Promise(setImmediate);
        order.push("attach has ended");
        throw signal.reason;
      },
      detach: async () => {
        order.push("detach");
        return await Promise.resolve({ removed: [], failed: [] });
      },
    },
  });
  const choice = await stages.chooseDriver("auto");
  const record = newRecord("vm-00000003", join(root, "late"), createRequest({}), choice);
  record.policy = closedPolicy("deny-all");
  await expect(
    bringBack({
      record,
      token: "",
      image: async () => await Promise.reject(new Error("no memory")),
      stages,
      work,
      log: quietLog,
      save: async () => await Promise.resolve(),
    }),
  ).rejects.toMatchObject({ code: "ERR_VM_RESTORE", why: "no memory" });
  expect(order).toEqual(["attach", "attach has ended", "detach"]);
});
