/** The composer on the fake driver: lives of VMs without a VMM. */
import { existsSync } from "node:fs";
import { execFileSync } from "node:child_process";
import {
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  rename,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { AgentChannel } from "../agent/channel.ts";
import { startStream } from "../agent/streams.ts";
import type { CreateRequest } from "../model/api.ts";
import { closedPolicy } from "../model/policy.ts";
import type { ProcessIdentity, VmRecord } from "../model/vm.ts";
import { agentBinary } from "../util/package.ts";
import { identityOf, isAlive } from "../util/process-identity.ts";
import { VmRecords } from "./records/records.ts";
import { Volumes } from "./volumes.ts";
import { Sandboxes } from "./sandboxes.ts";
import { FakeDriver } from "../vmm/fake/driver.ts";
import { fakeStages } from "./testing.ts";
import type { Stages, Work } from "./stages.ts";

const root = await mkdtemp(join(tmpdir(), "vmsan-sandboxes-"));
const made: Sandboxes[] = [];
let vms = "";
let count = 0;
beforeEach(() => {
  vms = join(root, `vms-${(count += 1)}`);
});
afterAll(async () => {
  for (const sandboxes of made) {
    for (const { id } of sandboxes.list()) await sandboxes.remove(id, true);
  }
  await rm(root, { recursive: true, force: true });
});

const request: CreateRequest = {
  mounts: [],
  networks: [],
  kernelArgs: [],
  sysctls: {},
  vcpus: 1,
  memMib: 128,
  diskSizeBytes: 2 ** 30,
  diskMode: "overlay",
  project: "",
  labels: {},
  driver: "fake",
  env: [],
  policy: closedPolicy("none"),
  ports: [],
  isolation: { seccomp: true, pidNamespace: true, cgroup: true, networkNamespace: true },
  pull: "missing",
  warm: false,
  ephemeral: false,
};

const log = { info: (): void => undefined, error: (): void => undefined };

/** A composer on this test's directory, as a starting daemon has it. */
async function start(changes: Partial<Stages> = {}): Promise<Sandboxes> {
  const sandboxes = new Sandboxes(new VmRecords(vms), fakeStages(root, changes), log);
  await sandboxes.recover();
  made.push(sandboxes);
  return sandboxes;
}

const work = (): Work => ({ signal: new AbortController().signal, progress: () => undefined });
const ignore = (): void => undefined;
const runs = async (sandboxes: Sandboxes, ref: string): Promise<number> => {
  const stream = startStream(sandboxes.channel(ref), {
    kind: "exec",
    argv: ["sh", "-c", "exit 3"],
  });
  return (await stream.exit).exitCode;
};

test("the agent of these tests has been built", () => {
  expect(existsSync(agentBinary()), "run: npm test -- unit").toBe(true);
});

test("create, exec, stop, start, remove", async () => {
  const sandboxes = await start();
  const { id } = await sandboxes.create({ ...request, name: "one" }, work(), ignore);
  expect(await runs(sandboxes, "one")).toBe(3);
  await expect(sandboxes.start(id, work())).rejects.toMatchObject({ code: "ERR_VM_NOT_STOPPED" });
  await sandboxes.stop(id);
  expect(sandboxes.get(id).status).toBe("stopped");
  await expect(sandboxes.stop(id)).rejects.toMatchObject({ code: "ERR_VM_NOT_RUNNING" });
  await sandboxes.start(id, work());
  expect(await runs(sandboxes, id)).toBe(3);
  await expect(sandboxes.remove(id, false)).rejects.toMatchObject({ code: "ERR_VM_NOT_STOPPED" });
  await sandboxes.remove(id, true);
  expect(await readdir(vms)).toEqual([]);
});

test("a guest that answers nothing is ended by force, also one whose work is held", async () => {
  const sandboxes = await start();
  const { id } = await sandboxes.create(request, work(), ignore);
  const { record, guest } = sandboxes.find(id);
  record.held = true;
  if (guest === undefined) throw new Error("no guest");
  guest.channel.request = async () => await new Promise<never>(ignore);
  await sandboxes.stop(id, 50);
  expect(sandboxes.get(id).status).toBe("stopped");
  expect(record.held).toBeUndefined();
});

test("a guest that does not go on keeps no daemon from starting, and goes on when it can", async () => {
  const first = await start();
  const { id } = await first.create(request, work(), ignore);
  const { record } = first.find(id);
  record.held = true;
  await first.records.save(record);
  await first.letGo();
  const answers = Promise.withResolvers<void>();
  const stages = fakeStages(root);
  const second = await start({
    openChannel: (running, token) => {
      const channel = stages.openChannel(running, token);
      const ask = channel.request.bind(channel);
      channel.request = async (...call) => {
        await answers.promise;
        return await ask(...call);
      };
      return channel;
    },
  });
  expect(second.find(id).record.held).toBe(true);
  answers.resolve();
  await second.exclusively(id, async ({ record: now }) => {
    expect(now.held).toBeUndefined();
    await Promise.resolve();
  });
  expect(await runs(second, id)).toBe(3);
});

test("of several creations with one name, one wins and the others leave nothing", async () => {
  const sandboxes = await start();
  const results = await Promise.allSettled(
    [1, 2, 3].map(() => sandboxes.create({ ...request, name: "same" }, work(), ignore)),
  );
  expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  for (const result of results) {
    if (result.status === "rejected")
      expect(result.reason).toMatchObject({ code: "ERR_VM_NAME_TAKEN" });
  }
  expect(await readdir(vms)).toHaveLength(1);
});

describe("a directory of VMs that was copied", () => {
  /** Copy this test's directory as `cp -a` does and go on in the copy. */
  const copy = (): void => {
    const from = vms;
    vms = `${from}-copy`;
    execFileSync("cp", ["-a", from, vms]);
  };

  test("has stopped VMs; the original's run on, whatever becomes of the copies", async () => {
    const original = await start();
    const { id, pid } = await original.create({ ...request, name: "one" }, work(), ignore);
    const { id: paused } = await original.create(request, work(), ignore);
    await original.pause(paused);
    copy();
    const forgotten: string[] = [];
    const networks = {
      ...fakeStages(root).networks,
      forget: async (vm: string) => forgotten.push(vm),
    };
    const copied = await start({ networks: networks as unknown as Stages["networks"] });
    expect(copied.list().map(({ status }) => status)).toEqual(["stopped", "stopped"]);
    expect(forgotten.toSorted()).toEqual([id, paused].toSorted());
    expect(original.get(id)).toMatchObject({ status: "running", pid });
    // Both can run, each with its own files and names.
    await copied.start("one", work());
    expect(copied.get(id).pid).not.toBe(pid);
    const record = JSON.parse(await readFile(join(vms, id, "vm.json"), "utf8")) as VmRecord;
    expect(record.spec).toMatchObject({
      dir: join(vms, id),
      hostId: expect.stringMatching(`^${id}-[0-9a-f]{8}$`) as string,
    });
    expect(record.spec.disks.map(({ path }) => path)).toEqual([
      join(root, "base.ext4"),
      join(vms, id, "upper.ext4"),
    ]);
    expect(await runs(copied, "one")).toBe(3);
    await copied.remove(id, true);
    await copied.remove(paused, true);
    expect(await readdir(vms)).toEqual([]);
    await original.resume(paused);
    for (const each of [id, paused]) expect(await runs(original, each)).toBe(3);
  });

  test("keeps no half-made and no ephemeral VM, and takes neither from the original", async () => {
    let boots = 0;
    const reached = Promise.withResolvers<void>();
    const held = Promise.withResolvers<void>();
    const original = await start({
      bootFiles: async () => {
        boots += 1;
        if (boots === 2) {
          reached.resolve();
          await held.promise;
        }
        return { kernel: "/none", initramfs: "/none" };
      },
    });
    const { id } = await original.create({ ...request, ephemeral: true }, work(), ignore);
    const creating = original.create(request, work(), ignore);
    await reached.promise;
    copy();
    const copied = await start();
    expect(copied.list()).toEqual([]);
    expect(await readdir(vms)).toEqual([]);
    held.resolve();
    expect(await runs(original, (await creating).id)).toBe(3);
    expect(await runs(original, id)).toBe(3);
  });

  test("is the same directory by way of a link", async () => {
    const first = await start();
    const { id, pid } = await first.create(request, work(), ignore);
    await first.letGo();
    await symlink(vms, `${vms}-link`);
    vms = `${vms}-link`;
    const second = await start();
    expect(second.get(id)).toMatchObject({ status: "running", pid });
    expect(await runs(second, id)).toBe(3);
  });

  test("of one that was moved the VMs are ended and stopped: no two write to one disk", async () => {
    const first = await start();
    const { id, pid } = await first.create(request, work(), ignore);
    await first.letGo();
    made.pop();
    await rename(vms, `${vms}-moved`);
    vms = `${vms}-moved`;
    const second = await start();
    expect(second.get(id).status).toBe("stopped");
    expect(identityOf(pid ?? 0)).toBeUndefined();
    await second.start(id, work());
    expect(await runs(second, id)).toBe(3);
  });

  test("put in the place of the original, which was moved away, touches none of its VMs", async () => {
    const first = await start();
    const { id, pid } = await first.create(request, work(), ignore);
    await first.letGo();
    const place = vms;
    await rename(place, `${place}-moved`);
    vms = `${place}-moved`;
    copy();
    await rename(vms, place);
    vms = place;
    const second = await start();
    expect(second.get(id).status).toBe("stopped");
    await second.remove(id, true);
    expect(identityOf(pid ?? 0)?.pid).toBe(pid);
    process.kill(pid ?? 0, "SIGKILL");
  });
});

test("another daemon finds a running VM, and one that died in between", async () => {
  const first = await start();
  const kept = await first.create(request, work(), ignore);
  const died = await first.create(request, work(), ignore);
  await first.letGo();
  process.kill(died.pid ?? 0, "SIGKILL");
  // The kernel ends it in its own time.
  await expect.poll(() => identityOf(died.pid ?? 0)).toBeUndefined();
  const second = await start();
  expect(await runs(second, kept.id)).toBe(3);
  expect(second.get(kept.id).pid).toBe(kept.pid);
  expect(second.get(died.id).status).toBe("stopped");
  await second.start(died.id, work());
  expect(await runs(second, died.id)).toBe(3);
});

test("a VM whose VMM dies is stopped, not running", async () => {
  const sandboxes = await start();
  const { id, pid } = await sandboxes.create(request, work(), ignore);
  process.kill(pid ?? 0, "SIGKILL");
  await expect.poll(() => sandboxes.get(id).status).toBe("stopped");
});

test("a VM that is said to be stopped can be removed and started, also while it is cleaned up", async () => {
  let cleanedUp = Promise.withResolvers<void>();
  const sandboxes = await start({
    networks: {
      ...fakeStages(root).networks,
      detach: async () => {
        await cleanedUp.promise;
        return { removed: [], failed: [] };
      },
    },
  });
  for (const next of ["start", "remove"] as const) {
    cleanedUp = Promise.withResolvers();
    const { id, pid } = await sandboxes.create(request, work(), ignore);
    process.kill(pid ?? 0, "SIGKILL");
    await expect.poll(() => sandboxes.get(id).status).toBe("stopped");
    const done = next === "start" ? sandboxes.start(id, work()) : sandboxes.remove(id, false);
    cleanedUp.resolve();
    await done;
    const left = sandboxes.list().filter((vm) => vm.id === id);
    expect(left.map(({ status }) => status)).toEqual(next === "start" ? ["running"] : []);
  }
  expect(await readdir(vms)).toHaveLength(1);
});

test("an interrupted creation leaves nothing, wherever it is interrupted", async () => {
  for (const stage of ["prepareBase", "bootFiles", "createUpper"] as const) {
    const abort = new AbortController();
    const sandboxes = await start({
      [stage]: async () => {
        abort.abort();
        abort.signal.throwIfAborted();
      },
    });
    const creation = sandboxes.create(request, { ...work(), signal: abort.signal }, ignore);
    await expect(creation, stage).rejects.toMatchObject({ code: "ERR_VM_INTERRUPTED" });
    expect(await readdir(vms), stage).toEqual([]);
  }
});

test("what a killed daemon left half made is removed by the next", async () => {
  const records = new VmRecords(vms);
  await records.claim("vm-00000001");
  await records.claim("vm-00000002");
  const sandboxes = await start();
  const { id } = await sandboxes.create(request, work(), ignore);
  const text = JSON.stringify({ ...JSON.parse(await readRecord(id)), status: "creating" });
  await sandboxes.letGo();
  await writeFile(join(vms, id, "vm.json"), text);
  const next = await start();
  expect(next.list()).toEqual([]);
  expect(await readdir(vms)).toEqual([]);
});

async function readRecord(id: string): Promise<string> {
  const { readFile } = await import("node:fs/promises");
  return await readFile(join(vms, id, "vm.json"), "utf8");
}

test("a record that cannot be read is kept, and does not hide the others", async () => {
  const sandboxes = await start();
  const { id } = await sandboxes.create(request, work(), ignore);
  await new VmRecords(vms).claim("vm-0000dead");
  await writeFile(join(vms, "vm-0000dead", "vm.json"), "{ half a docum");
  await sandboxes.letGo();
  const next = await start();
  expect(next.list().map((vm) => vm.id)).toEqual([id]);
  expect(await readdir(vms)).toContain("vm-0000dead");
});

test("an ephemeral VM goes with its last holder", async () => {
  const sandboxes = await start();
  let release: (() => Promise<void>) | undefined;
  const { id } = await sandboxes.create({ ...request, ephemeral: true }, work(), (made) => {
    release = sandboxes.hold(made);
  });
  const second = sandboxes.hold(id);
  await release?.();
  expect(sandboxes.get(id).status).toBe("running");
  await second();
  expect(sandboxes.list()).toEqual([]);
});

test("a time limit says why commands ended, can be put off, and starts anew with the VM", async () => {
  const sandboxes = await start();
  const { id } = await sandboxes.create({ ...request, timeoutMs: 1200 }, work(), ignore);
  const { startedAt = "", timeoutAt: first = "" } = sandboxes.get(id);
  expect(Date.parse(first) - Date.parse(startedAt)).toBe(1200);
  await new Promise((resolve) => setTimeout(resolve, 300));
  const extended = await sandboxes.extendTimeout(id);
  expect(Date.parse(extended.timeoutAt ?? "")).toBeGreaterThan(Date.parse(first));
  const stream = startStream(sandboxes.channel(id), { kind: "exec", argv: ["sleep", "100"] });
  const exit = await stream.exit;
  // Known by now, although the VM may still be on its way down.
  expect(sandboxes.get(id).stopReason).toBe("time-limit");
  expect(exit.exitCode).toBe(143);
  expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(extended.timeoutAt ?? ""));
  await expect.poll(() => sandboxes.get(id).status, { timeout: 10_000 }).toBe("stopped");
  for (const call of [
    async () => sandboxes.channel(id),
    () => sandboxes.extendTimeout(id),
    () => sandboxes.stop(id),
  ]) {
    await expect(call()).rejects.toMatchObject({
      code: "ERR_VM_NOT_RUNNING",
      why: expect.stringMatching(/time limit of 1s .*has passed/),
    });
  }
  // The next one is said before it runs: the old one is not to end it again.
  expect((await sandboxes.extendTimeout(id, 90_000)).timeoutAt).toBeUndefined();
  await sandboxes.start(id, work());
  const started = sandboxes.get(id);
  expect(started.stopReason).toBeUndefined();
  expect(Date.parse(started.timeoutAt ?? "") - Date.parse(started.startedAt ?? "")).toBe(90_000);
  const { timeoutMs, timeoutAt } = await sandboxes.extendTimeout(id, 3_600_000);
  expect(timeoutMs).toBe(3_600_000);
  // Another limit is told, the putting off was not.
  const updates = [...sandboxes.events.kept(0)].filter(({ type }) => type === "vm.updated");
  expect(updates.map(({ data }) => data)).toEqual([{ timeoutMs, timeoutAt }]);
});

test.each([
  ["garbage", "garbage"],
  ["an empty object", "{}"],
  ["zeros", "\0\0\0\0"],
  ["another version's", '{"schema":99}'],
  ["a directory", undefined],
])(
  "a record that is damaged (%s) is shown, refused in words, and removed by force",
  async (_, text) => {
    const first = await start();
    const hurt = await first.create(request, work(), ignore);
    const whole = await first.create(request, work(), ignore);
    await first.letGo();
    const file = join(vms, hurt.id, "vm.json");
    await rm(file);
    await (text === undefined ? mkdir(file) : writeFile(file, text));
    const second = await start();
    expect(second.list().map(({ id }) => id)).toEqual([whole.id]);
    expect(second.listDamaged()).toMatchObject([{ id: hurt.id }]);
    expect(identityOf(hurt.pid ?? 0)).toBeDefined();
    for (const call of [
      () => second.remove(hurt.id, false),
      () => second.start(hurt.id, work()),
      () => second.stop(hurt.id),
      async () => second.get(hurt.id),
    ]) {
      await expect(call()).rejects.toMatchObject({
        code: "ERR_VM_STATE",
        fix: expect.stringContaining(`vmsan rm -f ${hurt.id}`),
      });
    }
    await second.remove(hurt.id, true);
    // Its VMM is gone although nobody knew of it; the other one was not touched.
    await expect.poll(() => identityOf(hurt.pid ?? 0)).toBeUndefined();
    expect(await readdir(vms)).toEqual([whole.id]);
    expect(await runs(second, whole.id)).toBe(3);
    expect(second.listDamaged()).toEqual([]);
    await second.remove(whole.id, true);
    // In one process the first composer sees these ends too.
    for (const { id } of [hurt, whole]) {
      await expect.poll(() => first.get(id).status).toBe("stopped");
    }
  },
);

test("calls at once on one VM: each succeeds or says what came first, and nothing is left", async () => {
  const sandboxes = await start();
  const { id } = await sandboxes.create(request, work(), ignore);
  const running = startStream(sandboxes.channel(id), { kind: "exec", argv: ["sleep", "100"] });
  await running.started;
  await Promise.all([
    expect(running.exit).rejects.toMatchObject({
      code: expect.stringMatching(/^ERR_(VM_NOT_RUNNING|AGENT_CLOSED)$/),
    }),
    sandboxes.stop(id, 0),
  ]);
  const starts = await Promise.allSettled([1, 2, 3].map(() => sandboxes.start(id, work())));
  expect(starts.map(({ status }) => status).toSorted()).toEqual([
    "fulfilled",
    "rejected",
    "rejected",
  ]);
  await sandboxes.stop(id, 0);
  const calls = await Promise.allSettled<unknown>([
    sandboxes.start(id, work()),
    sandboxes.remove(id, true),
    sandboxes.stop(id, 0),
    sandboxes.start(id, work()),
    sandboxes.updatePolicy(id, request.policy),
    sandboxes.pause(id),
    sandboxes.remove(id, true),
  ]);
  for (const call of calls) {
    if (call.status === "fulfilled") continue;
    expect((call.reason as { code: string }).code).toMatch(
      /^ERR_VM_(INTERRUPTED|NOT_RUNNING|NOT_FOUND|NOT_STOPPED)$/,
    );
  }
  expect(sandboxes.list()).toEqual([]);
  expect(await readdir(vms)).toEqual([]);
});

test("the caller's own limit for a boot counts, at creation and at a start", async () => {
  const asked: (object | undefined)[] = [];
  const own = fakeStages(root);
  let isDeaf = true;
  const sandboxes = await start({
    openChannel: (running, token) => {
      const never = async (): Promise<never> => await new Promise(() => undefined);
      if (!isDeaf) return own.openChannel(running, token);
      return new AgentChannel({ open: never, token, build: "test" });
    },
    chooseDriver: async (requested, host) => {
      asked.push(host);
      return await own.chooseDriver(requested);
    },
  });
  const late = { code: "ERR_TIMEOUT_AGENT" };
  const hurried = { ...request, host: { bootTimeoutMs: 1 } };
  await expect(sandboxes.create(hurried, work(), ignore)).rejects.toMatchObject(late);
  isDeaf = false;
  const { id } = await sandboxes.create(request, work(), ignore);
  await sandboxes.stop(id, 0);
  isDeaf = true;
  const again = sandboxes.start(id, { ...work(), host: { bootTimeoutMs: 1 } });
  await expect(again).rejects.toMatchObject(late);
  expect(asked).toEqual([{ bootTimeoutMs: 1 }, undefined, { bootTimeoutMs: 1 }]);
  await sandboxes.remove(id, true);
});

test("a guest that answers and is never done with its configuration is ended by the limit", async () => {
  let ends = false;
  const own = fakeStages(root);
  const configuring: ProcessIdentity[] = [];
  const sandboxes = await start({
    openChannel: (running, token) => {
      const channel = own.openChannel(running, token);
      // As an agent that waits for a mount: it takes the call and says nothing.
      channel.configure = async () => {
        configuring.push(running.process);
        if (ends) await running.kill();
        return await new Promise<never>(() => undefined);
      };
      return channel;
    },
  });
  const hurried = { ...request, host: { bootTimeoutMs: 3000 } };
  await expect(sandboxes.create(hurried, work(), ignore)).rejects.toMatchObject({
    code: "ERR_TIMEOUT_AGENT",
    why: expect.stringMatching(/answered, but was not done with its configuration within 3 s/),
  });
  ends = true;
  await expect(sandboxes.create(request, work(), ignore)).rejects.toMatchObject({
    code: "ERR_VM_BOOT",
    why: expect.stringMatching(/^The VMM ended with .+ before the guest was configured/),
  });
  expect(configuring.map((one) => isAlive(one))).toEqual([false, false]);
  expect(sandboxes.list()).toEqual([]);
});

test("what cannot be mounted is refused before anything is made", async () => {
  const sandboxes = await start();
  const mounts = [{ kind: "bind", source: "/srv", target: "/work", readonly: false } as const];
  // The fake driver has no port for them.
  await writeFile(join(root, "base.ext4"), "");
  await expect(sandboxes.create({ ...request, mounts }, work(), ignore)).rejects.toMatchObject({
    code: "ERR_DRIVER_UNSUPPORTED",
  });
  expect(sandboxes.list()).toEqual([]);
});

test("a volume has one writer or many readers, and whoever holds it is known to the next daemon", async () => {
  await writeFile(join(root, "base.ext4"), "");
  const first = await start();
  const { volumes } = first.stages;
  const mounting = (readonly: boolean, name = "shared"): CreateRequest => ({
    ...request,
    mounts: [{ kind: "volume", name, target: "/data", readonly, nocopy: false }],
  });
  const refused = { code: "ERR_VOLUME_IN_USE" };
  const make = (sandboxes: Sandboxes, readonly: boolean) =>
    sandboxes.create(mounting(readonly), work(), ignore);
  // Of several at once one wins.
  const racing = await Promise.allSettled([1, 2, 3].map(async () => await make(first, false)));
  const won = racing.filter((outcome) => outcome.status === "fulfilled");
  expect(won).toHaveLength(1);
  for (const outcome of racing) {
    if (outcome.status === "rejected") expect(outcome.reason).toMatchObject(refused);
  }
  const writer = won[0]?.value.id ?? "";
  expect(await volumes.has("shared")).toBe(true);
  await first.letGo();
  const second = await start({ volumes });
  const face = new Volumes(second);
  expect(await face.get("shared")).toMatchObject({ state: "written", usedBy: [writer] });
  await expect(make(second, true)).rejects.toMatchObject(refused);
  const { signal } = work();
  await expect(face.grow("shared", 2 ** 34, signal)).rejects.toMatchObject({
    code: "ERR_DRIVER_UNSUPPORTED",
  });
  await expect(face.export("shared")).rejects.toMatchObject(refused);
  await second.stop(writer);
  const readers = await Promise.all([make(second, true), make(second, true)]);
  expect(await face.get("shared")).toMatchObject({ state: "read" });
  await expect(second.start(writer, work())).rejects.toMatchObject(refused);
  expect(second.get(writer).status).toBe("stopped");
  for (const { id } of readers) await second.remove(id, true);
  await expect(face.remove("shared")).rejects.toMatchObject(refused);
  expect(await face.prune()).toMatchObject({ volumes: [] });
  await second.start(writer, work());
  await second.remove(writer, true);
  await face.create({
    name: "a-projects",
    sizeBytes: 2 ** 30,
    labels: { "vmsan.project": "web" },
  });
  expect(await face.prune()).toMatchObject({ volumes: ["shared"] });
});

describe("a booted machine and a template that a VM cannot start from", () => {
  /** A composer that finds both, of which its driver can load none; what was dropped. */
  const withMachine = async (
    changes: Partial<Stages> = {},
  ): Promise<{ sandboxes: Sandboxes; dropped: unknown[] }> => {
    const sandboxes = await start(changes);
    const dropped: unknown[] = [];
    sandboxes.warm = {
      take: async () => await Promise.resolve(undefined),
      start: async () =>
        await Promise.resolve({
          drop: async () => await Promise.resolve(void dropped.push("template")),
        }),
      next: ignore,
      makeRoom: async () => await Promise.resolve(),
      findMachine: async () =>
        await Promise.resolve({
          files: { memory: "/none", state: "/none" },
          drop: async (why) => await Promise.resolve(void dropped.push(why)),
        }),
      wanted: async () => await Promise.reject(new Error("nothing can be kept")),
      ahead: async () => await Promise.resolve(undefined),
    };
    return { sandboxes, dropped };
  };

  test("are dropped once the VM has booted; that nothing can be kept for the next one ends none", async () => {
    const { sandboxes, dropped } = await withMachine();
    const { id } = await sandboxes.create({ ...request, warm: true }, work(), ignore);
    expect(await runs(sandboxes, id)).toBe(3);
    expect(dropped).toEqual([expect.anything(), "template"]);
    await sandboxes.stop(id);
    await sandboxes.start(id, work());
    expect(sandboxes.get(id).status).toBe("running");
    expect(dropped).toHaveLength(3);
  });

  test("stay where the VM does not boot either: they are everybody's", async () => {
    const driver = new FakeDriver("/no/agent");
    const { sandboxes, dropped } = await withMachine({
      driver: () => driver,
      chooseDriver: async () =>
        await Promise.resolve({ driver, accelerator: "none", reason: "a test" }),
    });
    await expect(
      sandboxes.create({ ...request, warm: true }, work(), ignore),
    ).rejects.toBeDefined();
    expect(dropped).toEqual([]);
  });
});

test("who waits for a VM's change and gives up is forgotten: a client may ask for as long as it sleeps", async () => {
  const sandboxes = await start();
  const { id } = await sandboxes.create(request, work(), ignore);
  const entry = sandboxes.find(id);
  for (let i = 0; i < 3; i += 1) {
    const gone = new AbortController();
    const waiting = sandboxes.change(entry, gone.signal);
    expect(entry.watchers.size).toBe(1);
    gone.abort(new Error("gone"));
    await expect(waiting).rejects.toThrow("gone");
    expect(entry.watchers.size).toBe(0);
    await expect(sandboxes.change(entry, gone.signal)).rejects.toThrow("gone");
  }
  const waiting = sandboxes.change(entry, new AbortController().signal);
  sandboxes.changed(entry);
  await waiting;
  expect(entry.watchers.size).toBe(0);
});
