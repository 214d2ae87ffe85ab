import { expect, test } from "vitest";
import type { Vm } from "../../../client/vm.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import type { Pod } from "../../../schema/pod.ts";
import { podSchema } from "../../../schema/pod.ts";
import type { Log } from "../../../util/log.ts";
import { podLabels } from "../spec/plan.ts";
import { memoryKey } from "./key.ts";
import { KeptMemory } from "./kept-memory.ts";

const log = { info: () => undefined, error: () => undefined } as unknown as Log;

/** A pod as an API server has it. */
function pod(
  name: string,
  change: { spec?: object; container?: object; metadata?: object } = {},
): Pod {
  const { metadata = {}, spec = {}, container = {} } = change;
  return podSchema.parse({
    metadata: {
      name,
      namespace: "team",
      uid: `uid-${Math.random().toString(36).slice(2)}`,
      annotations: { "vmsan.io/suspend": "memory" },
      ...metadata,
    },
    spec: { containers: [{ name: "main", image: "a", ...container }], ...spec },
  });
}

/** A host whose VMs fall asleep when they are asked to. */
class Host {
  readonly views = new Map<
    string,
    { id: string; status: string; labels: Record<string, string> }
  >();
  /** When those fall asleep that are asked to. */
  asleep: Promise<void> = Promise.resolve();
  private count = 0;
  private readonly of = (id: string): Vm => {
    const view = this.views.get(id);
    if (view === undefined) throw new Error(`no ${id}`);
    return {
      id,
      view,
      suspend: async () => {
        await this.asleep;
        view.status = "suspended";
      },
      update: async ({ labels }: { labels: Record<string, string> }) => {
        await Promise.resolve();
        view.labels = labels;
      },
    } as unknown as Vm;
  };
  readonly vmsan = {
    list: async () => await Promise.resolve([...this.views.values()]),
    get: async (id: string) => await Promise.resolve(this.of(id)),
    remove: async (id: string) => {
      await Promise.resolve();
      this.views.delete(id);
    },
  } as unknown as Vmsan;

  run(of: Pod): Vm {
    const id = `vm-${(this.count += 1)}`;
    this.views.set(id, { id, status: "running", labels: podLabels(of) });
    return this.of(id);
  }
}

const ofNamespace = async ({ metadata }: Pod): Promise<string> =>
  await Promise.resolve(`account of ${metadata.namespace}`);
const room = async (): Promise<boolean> => await Promise.resolve(true);
const silent = (): void => undefined;

/** One whose sandboxes are all there, unless they are among those. */
function keptBy(
  host: Host,
  most: number,
  more: {
    hasRoom?: () => Promise<boolean>;
    gone?: Set<string>;
    account?: (pod: Pod) => Promise<string>;
  } = {},
): KeptMemory {
  const { hasRoom = room, gone = new Set(), account = ofNamespace } = more;
  const isGone = async (path: string, uid: string): Promise<boolean> =>
    await Promise.resolve(gone.has(`${path} ${uid}`));
  return new KeptMemory({ vmsan: host.vmsan, most, log, isGone, accountOf: account, hasRoom });
}

test("what a pod leaves, the next of its name goes on in, once, if it is the same", async () => {
  const host = new Host();
  const kept = keptBy(host, 4);
  const first = pod("a");
  const vm = host.run(first);
  await kept.keep(first, vm, 1);
  // Nothing looks like a pod's VM any more, which would be ended as nobody's.
  expect(host.views.get(vm.id)?.labels["vmsan.io/pod-uid"]).toBeUndefined();
  expect(await kept.take(pod("b"), silent)).toBeUndefined();
  const next = pod("a");
  expect((await kept.take(next, silent))?.id).toBe(vm.id);
  expect(host.views.get(vm.id)?.labels).toEqual(podLabels(next));
  expect(await kept.take(pod("a"), silent)).toBeUndefined();
  // Of another specification: it is told, and what was kept goes.
  await kept.keep(next, vm, 1);
  const told: string[] = [];
  expect(await kept.take(pod("a", { container: { image: "b" } }), (why) => told.push(why))).toBe(
    undefined,
  );
  expect(told).toEqual(["what is kept is of a pod with another specification or account"]);
  expect(host.views.size).toBe(0);
});

test("a namespace that is made anew has nothing of the one before, whatever its pods say; one that goes leaves nothing", async () => {
  const host = new Host();
  let account: string | undefined = "account-1";
  const kept = keptBy(host, 4, {
    account: async () =>
      account === undefined
        ? await Promise.reject(new Error("no such account"))
        : await Promise.resolve(account),
  });
  const owned = { ownerReferences: [{ kind: "Sandbox", name: "a", uid: "u-1", controller: true }] };
  for (const metadata of [{}, owned]) {
    account = "account-1";
    const first = pod("a", { metadata });
    await kept.keep(first, host.run(first), 1);
    account = "account-2";
    expect(await kept.take(pod("a", { metadata }), silent)).toBeUndefined();
    expect(host.views.size).toBe(0);
  }
  account = undefined;
  const last = pod("a");
  const vm = host.run(last);
  await expect(kept.keep(last, vm, 1)).rejects.toThrow("no such account");
  expect(host.views.get(vm.id)?.status).toBe("running");
});

test("a namespace makes room with its own oldest alone; a host is full; what wakes by itself goes", async () => {
  const host = new Host();
  const kept = keptBy(host, 4);
  const keep = async (name: string, namespace: string): Promise<string> => {
    const one = pod(name, { metadata: { namespace, annotations: {} } });
    const vm = host.run(one);
    await kept.keep(one, vm, 1);
    return vm.id;
  };
  const a = await keep("a", "one");
  const b = await keep("b", "one");
  const c = await keep("c", "one");
  expect([...host.views.keys()]).toEqual([b, c]);
  expect(host.views.has(a)).toBe(false);
  const d = await keep("d", "two");
  const e = await keep("e", "two");
  await expect(keep("f", "three")).rejects.toMatchObject({ code: "ERR_NODE_NOT_KEPT" });
  // Of one pod there is one memory.
  const again = await keep("c", "one");
  expect(host.views.has(c)).toBe(false);
  const running = host.views.get(b);
  if (running !== undefined) running.status = "running";
  const old = host.views.get(d);
  if (old !== undefined) old.labels["vmsan.io/asleep-since"] = "2020-01-01T00:00:00.000Z";
  await kept.sweep();
  expect([...host.views.values()].filter(({ status }) => status === "suspended")).toEqual(
    [e, again].map((id) => host.views.get(id)),
  );
});

test("nothing is kept where that is switched off, the disk is full, or a port of the host would wake it", async () => {
  const host = new Host();
  const one = pod("a");
  const vm = host.run(one);
  const off = keptBy(host, 0);
  await expect(off.keep(one, vm, 1)).rejects.toMatchObject({ code: "ERR_NODE_NOT_KEPT" });
  const full = keptBy(host, 4, { hasRoom: async () => !(await room()) });
  await expect(full.keep(one, vm, 1)).rejects.toMatchObject({ code: "ERR_NODE_NOT_KEPT" });
  const published = pod("a", { container: { ports: [{ containerPort: 80, hostPort: 80 }] } });
  const kept = keptBy(host, 4);
  await expect(kept.keep(published, vm, 1)).rejects.toMatchObject({ code: "ERR_NODE_NOT_KEPT" });
  expect(host.views.get(vm.id)?.status).toBe("running");
});

test("memory goes with the sandbox that it belongs to, and several at once find no more room than there is", async () => {
  const host = new Host();
  const gone = new Set<string>();
  const kept = keptBy(host, 4, { gone });
  const apiVersion = "agents.x-k8s.io/v1beta1";
  const owner = { apiVersion, kind: "Sandbox", name: "box", uid: "u-1", controller: true };
  const one = pod("box", { metadata: { ownerReferences: [owner] } });
  await kept.keep(one, host.run(one), 1);
  await kept.sweep();
  expect(host.views.size).toBe(1);
  gone.add(`/apis/${apiVersion}/namespaces/team/sandboxes/box u-1`);
  await kept.sweep();
  expect(host.views.size).toBe(0);
  const all = Promise.withResolvers<void>();
  host.asleep = all.promise;
  const keeping = ["a", "b", "c"].map(async (name) => {
    const each = pod(name);
    await kept.keep(each, host.run(each), 1);
  });
  await expect(keeping[2]).rejects.toMatchObject({ code: "ERR_NODE_NOT_KEPT" });
  all.resolve();
  await Promise.all(keeping.slice(0, 2));
});

test("which pods are the same: what runs and whose it is counts, where it is placed and names by chance do not", () => {
  const token = (name: string): object => ({
    volumes: [{ name, projected: { sources: [{ serviceAccountToken: { path: "token" } }] } }],
  });
  const mounted = (name: string): object => ({
    spec: token(name),
    container: { volumeMounts: [{ name, mountPath: "/token" }] },
  });
  const memory = (one: Pod): string => memoryKey(one, "account");
  const key = memory(pod("a", mounted("kube-api-access-1")));
  expect(key).toMatch(/^[0-9a-f]{32}$/);
  const same = pod("a", mounted("kube-api-access-2"));
  same.spec.nodeName = "host-2";
  same.spec.tolerations = [{ key: "x" }];
  same.metadata.annotations = { ...same.metadata.annotations, other: "y" };
  expect(memory(same)).toBe(key);
  expect(memoryKey(same, "another")).not.toBe(key);
  const owner = { ownerReferences: [{ uid: "1", controller: true }] };
  for (const other of [
    pod("a", { ...mounted("x"), metadata: owner }),
    pod("a", { spec: token("x"), container: { args: ["x"] } }),
    pod("a"),
  ]) {
    expect(memory(other)).not.toBe(key);
  }
  const network = pod("a", mounted("x"));
  network.metadata.annotations = {
    ...network.metadata.annotations,
    "vmsan.io/network-policy": "none",
  };
  expect(memory(network)).not.toBe(key);
});
