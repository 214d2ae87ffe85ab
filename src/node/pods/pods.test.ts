import { afterEach, expect, test, vi } from "vitest";
import type { Vmsan } from "../../client/vmsan.ts";
import { temporary } from "../../../test/fixtures/ladder.ts";
import type { Log } from "../../util/log.ts";
import type { ApiServer } from "../../kube/api-server.ts";
import { KeptMemory } from "./kept/kept-memory.ts";
import { Container } from "./life/container.ts";
import { PodStore } from "./life/store.ts";
import { PodVolumes } from "./starting/volumes.ts";
import { Pods } from "./pods.ts";
import { POD_LABEL } from "./spec/plan.ts";

const place = temporary();
let pods: Pods | undefined;
afterEach(async () => await pods?.release());

/** The pods of a host, which keeps nobody's memory. */
function podsOf(vmsan: Vmsan, api: ApiServer): Pods {
  const log = { info: () => undefined, error: () => undefined } as unknown as Log;
  return new Pods({
    api,
    node: "host-1",
    log,
    vmsan,
    store: new PodStore(place.path),
    volumes: new PodVolumes(vmsan, 0),
    kept: new KeptMemory({
      vmsan,
      most: 0,
      log,
      isGone: async () => await Promise.resolve(false),
      accountOf: async () => await Promise.resolve(""),
    }),
    host: { address: "10.0.0.1", hostPaths: [], driver: "fake" },
  });
}

/** Nothing is ever watched. */
const unwatched: ApiServer["watch"] = () => ({
  [Symbol.asyncIterator]: () => ({ next: async () => await Promise.reject() }),
});

/** An API server that takes everything; `seen` is told of each request's method and body. */
function apiThat(seen: (method: string, body: unknown) => void): ApiServer {
  return {
    url: "",
    request: async (method, _path, options) => {
      seen(method, options?.body);
      return await Promise.resolve({});
    },
    watch: unwatched,
  };
}

/** A pod of this node with one container. */
function podOf(phase: string): object {
  const container = { name: "main", image: "a", imagePullPolicy: "Never", command: ["b"] };
  return {
    metadata: { name: "a", namespace: "default", uid: "uid-1" },
    spec: { restartPolicy: "Never", containers: [container] },
    status: { phase },
  };
}

/** A daemon with that pod's VM; `calls` are answered in other ways. */
function vmsanWith(status: string, calls: object): Vmsan {
  const view = { id: "vm-1", status, labels: { [POD_LABEL]: "uid-1" } };
  return {
    vms: async () => await Promise.resolve([{ id: view.id, view }]),
    list: async () => await Promise.resolve([]),
    remove: async () => await Promise.resolve(),
    ...calls,
  } as unknown as Vmsan;
}

/** How often a VM is made, and what is told of a pod that has one already as its node begins. */
async function takenUp(status: string, phase: string): Promise<{ made: boolean; told: string }> {
  const acted = Promise.withResolvers<{ made: boolean }>();
  const told: unknown[] = [];
  const vmsan = vmsanWith(status, {
    create: async () => {
      acted.resolve({ made: true });
      // Never done: what is told comes of what was found.
      await new Promise(() => undefined);
    },
  });
  const api = apiThat((method, body) => {
    if (method !== "PATCH") return;
    told.push(body);
    acted.resolve({ made: false });
  });
  pods = podsOf(vmsan, api);
  await pods.take({ kind: "all", objects: [podOf(phase)] });
  const { made } = await acted.promise;
  return { made, told: JSON.stringify(told) };
}

test("a VM in which nothing has run yet says nothing of its pod's end; one that has stopped does", async () => {
  expect(await takenUp("creating", "Pending")).toEqual({ made: true, told: "[]" });
  expect(await takenUp("stopped", "Pending")).toEqual({ made: true, told: "[]" });
  const { made, told } = await takenUp("stopped", "Running");
  expect(made).toBe(false);
  expect(told).toContain('"phase":"Failed"');
});

test("a pod whose command cannot be ended goes all the same, with its VM", async () => {
  const stop = vi.spyOn(Container.prototype, "stop").mockRejectedValue(new Error("no answer"));
  const removed: string[] = [];
  const vmsan = vmsanWith("stopped", {
    remove: async (id: string) => {
      removed.push(id);
      await Promise.resolve();
    },
  });
  const deleted = Promise.withResolvers<unknown>();
  const api = apiThat((method, body) => {
    if (method === "DELETE") deleted.resolve(body);
  });
  pods = podsOf(vmsan, api);
  const metadata = {
    name: "a",
    namespace: "default",
    uid: "uid-1",
    deletionTimestamp: "2026-01-01T00:00:00Z",
    deletionGracePeriodSeconds: 5,
  };
  const spec = { containers: [{ name: "main", image: "a", command: ["b"] }] };
  await pods.take({ kind: "all", objects: [{ metadata, spec, status: { phase: "Running" } }] });
  expect(await deleted.promise).toMatchObject({
    gracePeriodSeconds: 0,
    preconditions: { uid: "uid-1" },
  });
  expect(removed).toEqual(["vm-1"]);
  stop.mockRestore();
});

test("a daemon that does not answer yet costs no pod the VM that it has", async () => {
  let asked = 0;
  let made = 0;
  const told = Promise.withResolvers<unknown>();
  const known = vmsanWith("stopped", {});
  const vmsan = vmsanWith("stopped", {
    vms: async () => {
      asked += 1;
      if (asked === 1) throw new Error("no answer");
      return await known.vms();
    },
    create: async () => {
      made += 1;
      told.resolve("a VM was made");
      await new Promise(() => undefined);
    },
  });
  const api = apiThat((method, body) => {
    if (method === "PATCH") told.resolve(body);
  });
  pods = podsOf(vmsan, api);
  const all = { kind: "all" as const, objects: [podOf("Running")] };
  await expect(pods.take(all)).rejects.toThrow("no answer");
  await pods.take(all);
  // What it finds is that its VM has ended; without that VM it would begin anew.
  expect(JSON.stringify(await told.promise)).toContain('"phase":"Failed"');
  expect(made).toBe(0);
});
