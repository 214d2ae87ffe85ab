/** Files of pods in a real agent's guest, which is a directory here, made of objects that an API server in memory has. */
import * as fs from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { fakeGuest } from "../../../../test/exec-cases/fake-guest.ts";
import type { FakeGuest } from "../../../../test/exec-cases/fake-guest.ts";
import { fill } from "../../../agent/copy.ts";
import type { FillOptions } from "../../../agent/copy.ts";
import { watchFiles } from "../../../agent/files.ts";
import type { Vm } from "../../../client/vm.ts";
import { ApiError } from "../../../kube/api-server.ts";
import type { ApiServer } from "../../../kube/api-server.ts";
import { podSchema } from "../../../schema/pod.ts";
import type { Pod, PodRecord } from "../../../schema/pod.ts";
import { LiveFiles } from "./live.ts";
import { SharedObjects } from "./objects.ts";
import { References } from "./references.ts";
import { volumesOf } from "./volumes.ts";
import type { VolumeFile } from "./volumes.ts";
import { fillPlaces } from "./writer.ts";

let guest: FakeGuest;
let vm: Vm;
let dir: string;
beforeAll(async () => {
  guest = await fakeGuest();
  vm = {
    fill: async (archive: AsyncIterable<Buffer>, path: string, options: FillOptions) =>
      await fill(guest.channel, archive, path, options),
  } as unknown as Vm;
});
afterAll(async () => await guest.close());
beforeEach(() => {
  dir = fs.mkdtempSync(join(guest.dir, "v-"));
});
afterEach(() => void vi.useRealTimers());

const file = (path: string, text: string, mode = 0o644): VolumeFile => ({
  path,
  mode,
  bytes: Buffer.from(text),
});
const read = (path: string): string => fs.readFileSync(join(dir, path), "utf8");
const names = (): string[] => fs.readdirSync(dir).toSorted();

test("a volume is changed at one instant, by a link that is exchanged", async () => {
  const [target, shape] = [dir, "volume" as const];
  fs.writeFileSync(join(dir, "image"), "its own");
  await fillPlaces(vm, [
    { target, shape, files: [file("a", "1"), file("sub/b", "2", 0o400), file("gone", "3")] },
  ]);
  const [state = ""] = names();
  expect(state).toMatch(/^\.\.\d{4}_\d\d_\d\d_\d\d_\d\d_\d\d\.\d{10}$/);
  expect(names()).toEqual([state, "..data", "a", "gone", "image", "sub"]);
  expect(fs.readlinkSync(join(dir, "..data"))).toBe(state);
  expect(fs.readlinkSync(join(dir, "sub"))).toBe("..data/sub");
  expect([read("a"), read("sub/b"), read("image")]).toEqual(["1", "2", "its own"]);
  expect(fs.statSync(join(dir, "sub/b")).mode & 0o7777).toBe(0o400);
  // Who has a file open goes on with it; who watches the directory is told.
  const open = fs.openSync(join(dir, "a"), "r");
  const watching = new AbortController();
  const ready = Promise.withResolvers<void>();
  const exchanged = (async () => {
    const options = { onReady: () => ready.resolve(), signal: watching.signal };
    for await (const { event, path } of watchFiles(guest.channel, dir, options)) {
      if (event === "create" && path.toString() === join(dir, "..data")) return true;
    }
    return false;
  })();
  await ready.promise;
  await fillPlaces(vm, [{ target, shape, files: [file("a", "one"), file("sub/c", "3")] }]);
  expect(await exchanged).toBe(true);
  expect(fs.readFileSync(open, "utf8")).toBe("1");
  fs.closeSync(open);
  const [next = ""] = names();
  expect(next).not.toBe(state);
  expect(names()).toEqual([next, "..data", "a", "image", "sub"]);
  expect([read("a"), fs.readdirSync(join(dir, "sub"))]).toEqual(["one", ["c"]]);
  // One that was cut off has left a state that nothing leads to, and a link that is not in its place.
  fs.mkdirSync(join(dir, "..2026_01_01_00_00_00.1234567890"));
  fs.symlinkSync("nowhere", join(dir, "..data_tmp"));
  await fillPlaces(vm, [{ target, shape, files: [] }]);
  expect(names()).toEqual([fs.readlinkSync(join(dir, "..data")), "..data", "image"]);
  await fillPlaces(vm, [{ target: join(dir, "new/place"), shape, files: [] }]);
  expect(fs.readdirSync(join(dir, "new/place"))).toHaveLength(2);
});

test("a part of a volume is what it was, as a file or a directory", async () => {
  const single = { target: join(dir, "etc/app.conf"), shape: "file" } as const;
  await fillPlaces(vm, [{ ...single, files: [file("app.conf", "a=1", 0o400)] }]);
  const { ino } = fs.statSync(join(dir, "etc/app.conf"));
  await fillPlaces(vm, [{ ...single, files: [file("app.conf", "a=2", 0o440)] }]);
  expect(read("etc/app.conf")).toBe("a=2");
  expect(fs.statSync(join(dir, "etc/app.conf"))).toMatchObject({ ino, mode: 0o100440 });
  const tree = { target: join(dir, "tree"), shape: "tree" } as const;
  await fillPlaces(vm, [{ ...tree, files: [file("a", "1"), file("d/b", "2")] }]);
  await fillPlaces(vm, [{ ...tree, files: [file("a", "3")] }]);
  expect([fs.readdirSync(join(dir, "tree")), read("tree/a")]).toEqual([["a"], "3"]);
});

test.runIf(process.geteuid?.() === 0)(
  "files of a group are its own, with what is made there",
  async () => {
    const files = [file("sub/b", "2", 0o440), file("a", "1", 0o440)].map((one) => ({
      ...one,
      gid: 2000,
    }));
    await fillPlaces(vm, [{ target: dir, shape: "volume", files, gid: 2000 }]);
    const [state = ""] = names();
    const what = ["a", "sub", "sub/b", state].map((name) => {
      const { gid, mode } = fs.statSync(join(dir, name));
      return [gid, mode & 0o7777];
    });
    expect(what).toEqual([
      [2000, 0o440],
      [2000, 0o2755],
      [2000, 0o440],
      [2000, 0o2755],
    ]);
  },
);

/** An API server with objects by `kind/name`, all of namespace team. */
class Objects implements ApiServer {
  readonly url = "";
  readonly asked: string[] = [];
  readonly held = new Map<string, { data?: object; immutable?: boolean; version: number }>();
  tokens = 0;
  private versions = 0;

  set(key: string, data: object, immutable = false): void {
    this.versions += 1;
    this.held.set(key, { data, immutable, version: this.versions });
  }

  async request(method: string, path: string, options: { accept?: string } = {}): Promise<unknown> {
    await Promise.resolve();
    const [, key = "", query] = /^\/api\/v1\/namespaces\/team\/(.*?)(\?.*)?$/.exec(path) ?? [];
    this.asked.push(`${method} ${key}${query === undefined ? "" : " version"}`);
    if (method === "POST") {
      this.tokens += 1;
      const expirationTimestamp = new Date(Date.now() + 3_600_000).toISOString();
      return { status: { token: `token ${this.tokens}`, expirationTimestamp } };
    }
    const object = this.held.get(key);
    if (object === undefined) throw new ApiError(404, "NotFound", path, "");
    const metadata = { resourceVersion: String(object.version) };
    if (options.accept?.includes("PartialObjectMetadata")) return { metadata };
    return { metadata, data: object.data, immutable: object.immutable };
  }

  watch(): never {
    throw new Error("nothing is watched here");
  }
}

const host = { address: "10.0.0.1", hostPaths: [], driver: "fake" as const };

/** A pod with those volumes, each mounted below the directory at its name. */
function podWith(volumes: object[], labels = {}, mounts: object[] = []): Pod {
  const mounted = (volumes as { name: string }[]).map(({ name }) => ({
    name,
    mountPath: join(dir, name),
  }));
  const container = { name: "main", image: "a", volumeMounts: [...mounted, ...mounts] };
  return podSchema.parse({
    metadata: { name: "a", namespace: "team", uid: "u-1", labels },
    spec: { containers: [container], volumes },
  });
}

/** Its files, written as at a start. */
async function started(
  api: Objects,
  pod: Pod,
): Promise<{
  live: LiveFiles;
  record: PodRecord;
  state: { pod: Pod; vm: Vm | undefined };
  said: unknown[];
}> {
  const record: PodRecord = { uid: "u-1", namespace: "team", name: "a", restarts: 0 };
  const state: { pod: Pod; vm: Vm | undefined } = { pod, vm };
  const said: unknown[] = [];
  const live = new LiveFiles({
    context: { api, host, objects: new SharedObjects(api) },
    pod: () => state.pod,
    guest: () => state.vm,
    record,
    save: () => said.push("saved"),
    complain: (error) => said.push(error),
  });
  const [container] = pod.spec.containers;
  if (container === undefined) throw new Error("no container");
  const files = await volumesOf(pod, container, new References(api, pod), host, {
    tokens: live.tokens,
  });
  await fillPlaces(vm, files.places);
  live.wrote(files);
  return { live, record, state, said };
}

/** Half a minute, and what is done then. */
async function round(done: () => boolean): Promise<void> {
  await vi.advanceTimersByTimeAsync(31_000);
  await vi.waitFor(() => expect(done()).toBe(true), { timeout: 20_000 });
}

beforeEach(() =>
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance", "Date"] }),
);

test("who has files of an earlier object is told when another pod comes with later ones", () => {
  const shared = new SharedObjects(new Objects());
  const told: string[] = [];
  const follow = (uid: string) => ({
    changed: () => void told.push(uid),
    failed: () => void told.push(`${uid} failed`),
  });
  const object = { kind: "configmaps", name: "c", immutable: false } as const;
  shared.use("one", "team", [{ ...object, version: "1" }], follow("one"));
  shared.use("two", "team", [{ ...object, version: "2" }], follow("two"));
  expect(told).toEqual(["one"]);
  shared.use("one", "team", [{ ...object, version: "2" }], follow("one"));
  expect(told).toEqual(["one"]);
  for (const owner of ["one", "two"]) shared.drop(owner);
});

test("an object that cannot be looked at for long is told of once, until it can be again", async () => {
  const api = new Objects();
  api.set("configmaps/c", { a: "1" });
  const shared = new SharedObjects(api);
  const told: unknown[] = [];
  const owner = {
    changed: () => void told.push("changed"),
    failed: (error: unknown) => void told.push((error as ApiError).status),
  };
  const source = { kind: "configmaps", name: "c", immutable: false, version: "1" } as const;
  shared.use("one", "team", [source], owner);
  const request = api.request.bind(api);
  const failing = async (status: number, rounds: number): Promise<void> => {
    api.request = async (_method, path) =>
      await Promise.reject(new ApiError(status, "Forbidden", path, ""));
    await vi.advanceTimersByTimeAsync(rounds * 31_000);
    api.request = request;
  };
  await failing(403, 2);
  await vi.advanceTimersByTimeAsync(31_000);
  await failing(403, 2);
  expect(told).toEqual([]);
  await failing(403, 8);
  expect(told).toEqual([403]);
  await vi.advanceTimersByTimeAsync(31_000);
  await failing(500, 8);
  expect(told).toEqual([403, 500]);
  shared.drop("one");
});

test("files follow their objects while a pod runs, and what has them is asked for by its version alone", async () => {
  const api = new Objects();
  api.set("configmaps/c", { a: "1" });
  api.set("configmaps/fixed", { a: "1" }, true);
  api.set("secrets/s", { key: Buffer.from("one").toString("base64") });
  const part = { name: "c", mountPath: join(dir, "single"), subPath: "a" };
  const pod = podWith(
    [
      { name: "c", configMap: { name: "c" } },
      { name: "fixed", configMap: { name: "fixed" } },
      { name: "s", secret: { secretName: "s" } },
      { name: "later", configMap: { name: "later", optional: true } },
    ],
    {},
    [part],
  );
  const { live, record, said } = await started(api, pod);
  const before = record.files;
  expect(fs.readdirSync(join(dir, "later"))).toHaveLength(2);
  api.asked.length = 0;
  await vi.advanceTimersByTimeAsync(31_000);
  expect(api.asked.toSorted()).toEqual([
    "GET configmaps/c version",
    "GET configmaps/later version",
    "GET secrets/s version",
  ]);
  api.set("configmaps/c", { a: "2", b: "3" });
  api.set("configmaps/fixed", { a: "2" }, true);
  api.set("configmaps/later", { here: "yes" });
  await round(() => fs.existsSync(join(dir, "later/here")) && fs.existsSync(join(dir, "c/b")));
  expect([read("c/a"), read("fixed/a"), read("s/key")]).toEqual(["2", "2", "one"]);
  // A part is as it was at the start.
  expect(read("single")).toBe("1");
  await round(() => record.files !== before);
  expect(record.files).toMatch(/^[0-9a-f]{32}$/);
  // What has gone stays as it was, which is said once.
  api.held.delete("secrets/s");
  await round(() => said.some((word) => word instanceof Error));
  expect(read("s/key")).toBe("one");
  api.set("secrets/s", { key: Buffer.from("two").toString("base64") });
  await round(() => read("s/key") === "two");
  live.end();
  api.asked.length = 0;
  await vi.advanceTimersByTimeAsync(120_000);
  expect(api.asked).toEqual([]);
  expect(said.filter((word) => word !== "saved")).toHaveLength(1);
});

test("labels are in their file as soon as they are changed, and other changes write nothing", async () => {
  const api = new Objects();
  const items = [{ path: "labels", fieldRef: { fieldPath: "metadata.labels" } }];
  const volumes = [{ name: "d", downwardAPI: { items } }];
  const { live, state, said } = await started(api, podWith(volumes, { key: "1" }));
  const before = state.pod;
  state.pod = podWith(volumes, { key: "1", other: "2" });
  live.changed(before);
  await vi.waitFor(() => expect(read("d/labels")).toBe('key="1"\nother="2"'), { timeout: 20_000 });
  await live.idle();
  live.changed(state.pod);
  live.look();
  await live.idle();
  expect(said).toEqual(["saved"]);
  // Nothing is written while its VM stands still, and all of it afterwards.
  const [was, still] = [state.pod, state.vm];
  state.pod = podWith(volumes, {});
  state.vm = undefined;
  live.changed(was);
  await live.idle();
  expect(read("d/labels")).toContain("other");
  state.vm = still;
  live.look();
  await live.idle();
  expect(read("d/labels")).toBe("");
  live.end();
});

test("tokens stay when something else changes, and are others before they end", async () => {
  const api = new Objects();
  api.set("configmaps/c", { ca: "1" });
  const sources = [{ configMap: { name: "c" } }, { serviceAccountToken: { path: "token" } }];
  const { live, record, said } = await started(
    api,
    podWith([{ name: "p", projected: { sources } }]),
  );
  expect(read("p/token")).toBe("token 1");
  api.set("configmaps/c", { ca: "2" });
  await round(() => read("p/ca") === "2");
  expect([read("p/token"), api.tokens]).toEqual(["token 1", 1]);
  await vi.advanceTimersByTimeAsync(3_000_000);
  await vi.waitFor(() => expect(read("p/token")).toBe("token 2"), { timeout: 20_000 });
  await live.idle();
  expect(api.tokens).toBe(2);
  // A node that is started again writes nothing that is there, but for tokens whose end it does not know.
  live.end();
  expect(said.filter((word) => word !== "saved")).toEqual([]);
  expect(record.files).toMatch(/^[0-9a-f]{32}$/);
});

test("a pod that is found running is written what it does not have yet", async () => {
  const api = new Objects();
  api.set("configmaps/c", { a: "1" });
  const pod = podWith([{ name: "c", configMap: { name: "c" } }]);
  const { live: before, record } = await started(api, pod);
  before.end();
  const said: unknown[] = [];
  const next = new LiveFiles({
    context: { api, host, objects: new SharedObjects(api) },
    pod: () => pod,
    guest: () => vm,
    record,
    save: () => said.push("saved"),
    complain: (error) => said.push(error),
  });
  next.found();
  await vi.advanceTimersByTimeAsync(31_000);
  await next.idle();
  expect(said).toEqual([]);
  api.set("configmaps/c", { a: "2" });
  await round(() => read("c/a") === "2");
  await next.idle();
  expect(said).toEqual(["saved"]);
  next.end();
});
