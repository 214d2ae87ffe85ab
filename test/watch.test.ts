/** Events and figures of VMs, as clients see them: a daemon with VMs of the fake driver. */
import { rm } from "node:fs/promises";
import { afterEach, describe, expect, test, vi } from "vitest";
import { fakeDaemon } from "../src/daemon/testing.ts";
import type { FakeDaemon } from "../src/daemon/testing.ts";
import { Keys } from "../src/gateway/access/keys.ts";
import type { NewKey } from "../src/gateway/access/keys.ts";
import { startGateway } from "../src/gateway/gateway.ts";
import { layoutOf } from "../src/util/paths.ts";
import { ratesOf, Vmsan } from "../src/index.ts";
import type { EventOptions, Vm, VmsanEvent, VmSample } from "../src/index.ts";

let daemon: FakeDaemon | undefined;
afterEach(async () => {
  await daemon?.close();
  daemon = undefined;
});

async function start(): Promise<{ daemon: FakeDaemon; vmsan: Vmsan }> {
  daemon = await fakeDaemon();
  return { daemon, vmsan: new Vmsan({ dir: daemon.dir, start: false }) };
}

/** A gateway of a daemon, and clients with keys of it. */
async function gatewayOf(
  host: FakeDaemon,
): Promise<
  AsyncDisposable & { client: (key: NewKey) => Promise<Vmsan>; restart: () => Promise<void> }
> {
  let gateway = await startGateway({ dir: host.dir, listen: "127.0.0.1:0" });
  const keys = new Keys(layoutOf(host.dir).gateway);
  return {
    client: async (wish) => {
      const { text } = await keys.create(wish);
      return new Vmsan({ remote: { url: gateway.url, key: `vmsan_${text}` } });
    },
    restart: async () => {
      const { port } = gateway;
      await gateway.close();
      gateway = await startGateway({ dir: host.dir, listen: `127.0.0.1:${port}` });
    },
    [Symbol.asyncDispose]: async () => await gateway.close(),
  };
}

const create = async (vmsan: Vmsan, name: string, project = "one"): Promise<Vm> =>
  await vmsan.create({ name, project, networkPolicy: "none", driver: "fake" });

/** Events as they come; `until` gives those up to the first of a type. */
class Watch implements AsyncDisposable {
  private readonly end = new AbortController();
  private readonly events: AsyncGenerator<VmsanEvent>;

  /** From the first event that is kept on, unless told otherwise; with `since: undefined` from now on. */
  constructor(
    vmsan: Vmsan,
    options: Omit<EventOptions, "since"> & { since?: number | undefined } = {},
  ) {
    const { since = "since" in options ? undefined : 0, ...rest } = options;
    const from = since === undefined ? {} : { since };
    this.events = vmsan.events({ ...rest, ...from, signal: this.end.signal });
  }

  async until(type: string): Promise<VmsanEvent[]> {
    const seen: VmsanEvent[] = [];
    for (;;) {
      const next = await this.events.next();
      if (next.done === true) return seen;
      seen.push(next.value);
      if (next.value.type === type) return seen;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.end.abort();
    await this.events.return(undefined);
  }
}

async function kept(vmsan: Vmsan, options: EventOptions = {}): Promise<VmsanEvent[]> {
  const events: VmsanEvent[] = [];
  for await (const event of vmsan.events({ follow: false, ...options })) events.push(event);
  return events;
}

describe("events", () => {
  test("a VM's life with a command, in order and numbered without gaps", async () => {
    const { vmsan } = await start();
    await using watch = new Watch(vmsan);
    const vm = await create(vmsan, "web");
    await vm.exec(["sh", "-c", "exit 3"], { label: "three" });
    await vm.pause();
    await vm.resume();
    await vm.stop();
    await vm.start();
    await vm.remove();
    const seen = await watch.until("vm.removed");
    expect(seen.map(({ type }) => type)).toEqual([
      "vm.created",
      "vm.started",
      "exec.started",
      "exec.ended",
      "vm.paused",
      "vm.resumed",
      "vm.stopped",
      "vm.started",
      "vm.removed",
    ]);
    expect(new Set(seen.map(({ seq }, index) => seq - index)).size).toBe(1);
    for (const event of seen) {
      expect(event).toMatchObject({ vm: { id: vm.id, name: "web" }, project: "one" });
    }
    expect(seen[2]?.data).toMatchObject({ program: "sh", label: "three" });
    expect(seen[3]?.data).toMatchObject({ exec: seen[2]?.data["exec"], exitCode: 3 });
    // Arguments may be secrets.
    expect(JSON.stringify(seen)).not.toContain("exit 3");
  });

  test("a command that is left by its client is told of at its end", async () => {
    const { vmsan } = await start();
    const vm = await create(vmsan, "web");
    await using watch = new Watch(vmsan, { types: ["exec"] });
    const stream = vm.spawn(["cat"], { detach: true });
    await stream.started;
    await watch.until("exec.started");
    stream.detach();
    const again = vm.attach(stream.id);
    again.stdin.end("x");
    await again.exit;
    const [ended] = await watch.until("exec.ended");
    expect(ended?.data).toMatchObject({ exec: stream.id, exitCode: 0 });
  });

  test("files that are read are no commands", async () => {
    const { vmsan } = await start();
    const vm = await create(vmsan, "web");
    await vm.readFile("/etc/hostname", () => undefined);
    await vm.exec(["true"]);
    const types = (await kept(vmsan, { types: ["exec"] })).map(({ type }) => type);
    expect(types).toEqual(["exec.started", "exec.ended"]);
  });

  test("filters by type, VM and project", async () => {
    const { vmsan } = await start();
    const a = await create(vmsan, "a", "one");
    await create(vmsan, "b", "two");
    const names = async (options: EventOptions): Promise<string[]> =>
      (await kept(vmsan, options)).map(({ type, vm }) => `${type} ${vm?.name}`);
    expect(await names({ project: "two" })).toEqual(["vm.created b", "vm.started b"]);
    expect(await names({ types: ["vm.started"] })).toEqual(["vm.started a", "vm.started b"]);
    expect(await names({ vms: [a.id] })).toEqual(["vm.created a", "vm.started a"]);
    expect(await names({ vms: ["b"], types: ["exec"] })).toEqual([]);
    expect(await names({ since: new Date(Date.now() + 60_000) })).toEqual([]);
    await expect(names({ types: [""] })).rejects.toMatchObject({ code: "ERR_VALIDATION_FLAGS" });
  });

  test("a reader resumes without loss, also from the next daemon", async () => {
    const { daemon: host, vmsan } = await start();
    const vm = await create(vmsan, "web");
    const [created, started] = await kept(vmsan);
    expect(await kept(vmsan, { since: created?.seq ?? 0 })).toEqual([started]);
    await using watch = new Watch(vmsan, { since: started?.seq ?? 0 });
    await vm.exec(["true"]);
    expect((await watch.until("exec.ended")).map(({ type }) => type)).toEqual([
      "exec.started",
      "exec.ended",
    ]);
    await host.restart();
    await vm.stop();
    const [stopped] = await watch.until("vm.stopped");
    expect(stopped?.seq).toBe((started?.seq ?? 0) + 3);
    // Whoever comes later has all of them too.
    const types = (await kept(vmsan)).map(({ type }) => type);
    expect(types).toEqual(["vm.created", "vm.started", "exec.started", "exec.ended", "vm.stopped"]);
  });

  test("who follows through a gateway misses nothing of either's restart, and sees each event once", async () => {
    const { daemon: host, vmsan } = await start();
    await using gateway = await gatewayOf(host);
    const client = await gateway.client({ project: "one" });
    await create(vmsan, "before");
    // From now on, and nothing seen yet: the place is kept all the same.
    const begun = Promise.withResolvers<number>();
    const { seq = 0 } = (await kept(vmsan)).at(-1) ?? {};
    await using watch = new Watch(client, { since: undefined, onBegin: begun.resolve });
    const first = watch.until("vm.removed");
    expect(await begun.promise).toBe(seq);
    await host.restart();
    await gateway.restart();
    const vm = await create(vmsan, "web");
    await host.restart();
    await vm.remove();
    const types = (await first).map(({ type }) => type);
    expect(types).toEqual(["vm.created", "vm.started", "vm.removed"]);
  });

  test("without its journal a reader is told that others may be missing", async () => {
    const { daemon: host, vmsan } = await start();
    const vm = await create(vmsan, "web");
    await using watch = new Watch(vmsan);
    await watch.until("vm.started");
    await host.restart(async () => await rm(layoutOf(host.dir).eventJournal));
    const [missed] = await watch.until("missed");
    await vm.stop();
    const [stopped] = await watch.until("vm.stopped");
    expect(stopped?.seq).toBe((missed?.seq ?? 0) + 1);
  });

  test("of a guest that is refused all the time only some refusals are told, and the rest counted", async () => {
    const { daemon: host, vmsan } = await start();
    const vm = await create(vmsan, "web");
    const refusal = { verdict: "denied", protocol: "tcp", address: "10.0.0.1", port: 25 } as const;
    for (let n = 0; n < 5_000; n += 1) host.decide(vm.id, { ...refusal, rule: "default-deny" });
    host.decide(vm.id, { verdict: "allowed", protocol: "dns", name: "a.example", rule: "x" });
    const denied = await kept(vmsan, { types: ["network"] });
    expect(denied.length).toBeGreaterThanOrEqual(20);
    expect(denied.length).toBeLessThan(100);
    expect(denied[0]?.data).toEqual({
      protocol: "tcp",
      address: "10.0.0.1",
      port: 25,
      rule: "default-deny",
    });
    // What came before is still there.
    expect((await kept(vmsan, { types: ["vm.created"] })).length).toBe(1);
  });
});

describe("through a gateway", () => {
  test("a key learns of its own project alone, an admin key of all", async () => {
    const { daemon: host, vmsan } = await start();
    await using gateway = await gatewayOf(host);
    const [one, two, admin] = await Promise.all([
      gateway.client({ project: "one" }),
      gateway.client({ project: "two" }),
      gateway.client({ project: "one", admin: true }),
    ]);
    await using watch = new Watch(two);
    await vmsan.volumes.create("data");
    const a = await create(vmsan, "a", "one");
    const b = await create(vmsan, "b", "two");
    expect((await watch.until("vm.started")).map(({ vm }) => vm?.name)).toEqual(["b", "b"]);
    expect((await kept(one)).map(({ type }) => type)).toEqual(["vm.created", "vm.started"]);
    expect((await kept(one, { vms: [b.id] })).length).toBe(0);
    expect((await kept(admin)).map(({ type }) => type)).toContain("volume.created");
    expect((await one.stats()).map(({ name }) => name)).toEqual(["a"]);
    expect((await admin.stats()).map(({ name }) => name)).toEqual(["a", "b"]);
    expect((await one.stats([a.id])).length).toBe(1);
    await expect(one.stats([b.id])).rejects.toMatchObject({ code: "ERR_VM_NOT_FOUND" });
  });
});

describe("stats", () => {
  /** A sample with the guest's part, which a host with too much to do may not give in time. */
  const answered = async (vmsan: Vmsan, ref: string): Promise<VmSample> =>
    await vi.waitFor(
      async () => {
        const [sample] = await vmsan.stats([ref]);
        if (sample?.guest === undefined) throw new Error("no answer from the guest");
        return sample;
      },
      { timeout: 50_000 },
    );

  test("what host and guest say of a VM that works", async () => {
    const { vmsan } = await start();
    const vm = await create(vmsan, "web");
    await create(vmsan, "idle", "two");
    const before = await answered(vmsan, "web");
    await vm.exec(["sh", "-c", "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done"]);
    const after = await answered(vmsan, vm.id);
    expect(after).toMatchObject({ id: vm.id, name: "web", status: "running", memMib: 512 });
    expect(after.host?.residentBytes).toBeGreaterThan(1 << 20);
    expect(after.guest?.memTotalBytes).toBeGreaterThan(1 << 28);
    expect(after.guest?.diskTotalBytes).toBeGreaterThan(after.guest?.diskFreeBytes ?? 0);
    const rates = ratesOf(before, after);
    expect(rates.guestCpuPercent).toBeGreaterThan(0);
    expect((await vmsan.stats([], { project: "two" })).map(({ name }) => name)).toEqual(["idle"]);
    expect((await vmsan.stats()).length).toBe(2);
    await expect(vmsan.stats(["nobody"])).rejects.toMatchObject({ code: "ERR_VM_NOT_FOUND" });
  });

  test("a VM that is stopped or does not answer is told as far as is known", async () => {
    const { vmsan } = await start();
    const vm = await create(vmsan, "web");
    await vm.pause();
    const [paused] = await vmsan.stats();
    expect(paused?.guest).toBeUndefined();
    expect(paused?.host?.cpuMs).toBeGreaterThanOrEqual(0);
    await vm.resume();
    await vm.stop();
    const [stopped] = await vmsan.stats();
    expect(stopped).toMatchObject({ status: "stopped" });
    expect(stopped?.host ?? stopped?.guest).toBeUndefined();
    expect(ratesOf(paused as VmSample, stopped as VmSample)).toEqual({});
  });
});
