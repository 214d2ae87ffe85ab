/** Snapshots through the native API: whose they are, and what may be made of them. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import type { Vmsan } from "../../client/vmsan.ts";
import { VmsanError } from "../../model/errors.ts";
import { fileLog } from "../../util/log.ts";
import { Gate } from "../access/gate.ts";
import { Keys } from "../access/keys.ts";
import { KEY_LABEL } from "../access/limits.ts";
import { loadTokens } from "../access/tokens.ts";
import { Hosts } from "../http/hosts.ts";
import { listen } from "../http/server.ts";
import type { ListeningGateway } from "../http/server.ts";
import { nativeFace } from "./face.ts";

let directory: string;
let gateway: ListeningGateway;
const key: Record<string, string> = {};
const keyId: Record<string, string> = {};
/** What reached the daemon. */
let asked: { method: string; path: string; body?: unknown }[] = [];

const vm = (id: string, project: string) => ({
  id,
  project,
  labels: {},
  memMib: 512,
  diskSizeBytes: 2 ** 30,
  kernel: "/host/kernels/vmlinux",
  rootfs: "/host/rootfs/base.ext4",
});
const snapshot = (id: string, project?: string) => ({
  id,
  vm: { id: "vm-0000000a" },
  ...(project === undefined ? {} : { project }),
  kernel: "/host/kernels/vmlinux",
  memMib: 512,
  diskSizeBytes: 2 ** 30,
});
const vms = [vm("vm-0000000a", "ours"), vm("vm-0000000b", "other")];
const snapshots = [
  snapshot("snap-0000000a", "ours"),
  snapshot("snap-0000000b", "other"),
  // Imported, or taken before projects were noted.
  snapshot("snap-0000000c"),
];

const missing = (code: string, ref: string): VmsanError => new VmsanError({ code, message: ref });

/** The SDK as far as these routes use it. */
const sdk = {
  list: async () => await Promise.resolve(vms),
  get: async (ref: string) => {
    const view = vms.find(({ id }) => id === ref);
    if (view === undefined) throw missing("ERR_VM_NOT_FOUND", ref);
    return await Promise.resolve({ id: view.id, view });
  },
  snapshots: {
    list: async () => await Promise.resolve(snapshots),
    get: async (ref: string) => {
      const found = snapshots.find(({ id }) => id === ref);
      if (found === undefined) throw missing("ERR_VM_SNAPSHOT_NOT_FOUND", ref);
      return await Promise.resolve(found);
    },
    remove: async (ref: string) => {
      asked.push({ method: "DELETE", path: ref });
      await Promise.resolve();
    },
    create: async (ref: string, body: object) => {
      asked.push({ method: "POST", path: ref, body });
      return await Promise.resolve(snapshots[0]);
    },
  },
  networks: {
    get: async (name: string) => {
      await Promise.resolve();
      throw missing("ERR_PRIVATE_NETWORK_NOT_FOUND", name);
    },
  },
  daemon: {
    streamed: async (method: string, path: string, { body }: { body?: unknown }) => {
      asked.push({ method, path, body });
      return await Promise.resolve(path.endsWith("/vms") || path.endsWith("/fork") ? [] : vms[0]);
    },
  },
} as unknown as Vmsan;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmsan-snapshots-"));
  const keys = new Keys(directory);
  for (const [name, wish] of Object.entries({
    ours: { project: "ours" },
    admin: { project: "ours", admin: true },
    small: { project: "ours", limits: { vms: 2 } },
  })) {
    const made = await keys.create(wish);
    key[name] = `vmsan_${made.text}`;
    keyId[name] = made.key.id;
  }
  const log = fileLog(join(directory, "audit.log"));
  const gate = new Gate(keys, await loadTokens(directory, keys), log);
  gateway = await listen({
    address: { host: "127.0.0.1", port: 0 },
    hosts: new Hosts([]),
    faces: [nativeFace(sdk, gate, "fake")],
    log,
  });
});

afterAll(async () => {
  await gateway?.close();
  await rm(directory, { recursive: true, force: true });
});

beforeEach(() => {
  asked = [];
});

async function ask(who: string, method: string, path: string, body?: object) {
  const reply = await fetch(gateway.url + path, {
    method,
    headers: { "x-api-key": key[who] ?? "" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: reply.status, text: await reply.text() };
}

test("a key sees the snapshots of its project, an admin's all, and no path of the host", async () => {
  const seen = async (who: string): Promise<string[]> => {
    const { text } = await ask(who, "GET", "/v1/snapshots");
    expect(text).not.toContain("/host");
    return (JSON.parse(text) as { snapshots: { id: string }[] }).snapshots.map(({ id }) => id);
  };
  expect(await seen("ours")).toEqual(["snap-0000000a"]);
  expect(await seen("admin")).toEqual(snapshots.map(({ id }) => id));
});

test("another project's are not there, whatever is asked of them", async () => {
  for (const id of ["snap-0000000b", "snap-0000000c", "snap-00000000"]) {
    for (const [method, path, body] of [
      ["GET", `/v1/snapshots/${id}`],
      ["DELETE", `/v1/snapshots/${id}`],
      ["POST", `/v1/snapshots/${id}/vms`, {}],
      ["POST", "/v1/vms/vm-0000000a/restore", { snapshot: id }],
    ] as const) {
      const { status, text } = await ask("ours", method, path, body);
      expect([method, path, status]).toEqual([method, path, 404]);
      expect(text).toContain("ERR_VM_SNAPSHOT_NOT_FOUND");
    }
  }
  for (const what of ["snapshots", "fork", "suspend", "restore"]) {
    const body = { snapshot: "snap-0000000a" };
    const { status } = await ask("ours", "POST", `/v1/vms/vm-0000000b/${what}`, body);
    expect([what, status]).toEqual([what, 404]);
  }
  expect(asked).toEqual([]);
});

test("what is made belongs to the key's project, and may not open the host", async () => {
  const from = "/v1/snapshots/snap-0000000a/vms";
  const { status } = await ask("ours", "POST", from, { name: "two", labels: { job: "7" } });
  expect(status).toBe(200);
  expect(asked).toMatchObject([
    {
      method: "POST",
      path: "/v1/snapshots/snap-0000000a/vms",
      body: {
        count: 1,
        name: "two",
        project: "ours",
        labels: { job: "7", [KEY_LABEL]: keyId["ours"] },
        ports: [],
        ephemeral: false,
        cold: false,
      },
    },
  ]);
  asked = [];
  const port = { protocol: "tcp", hostAddress: "127.0.0.1", hostPort: 1, guestPort: 1 };
  const isolation = { seccomp: false, pidNamespace: true, cgroup: true, networkNamespace: true };
  for (const body of [
    { ports: [port] },
    { isolation },
    { kernel: "/etc/passwd" },
    { project: "other" },
    { labels: { [KEY_LABEL]: "00000000" } },
    { policy: { allowHostPorts: [22] } },
  ]) {
    for (const path of [from, "/v1/vms/vm-0000000a/fork"]) {
      const reply = await ask("ours", "POST", path, body);
      expect([body, reply.status]).toEqual([body, 403]);
    }
  }
  expect(asked).toEqual([]);
});

test("a key's limits hold for clones and forks", async () => {
  for (const path of ["/v1/snapshots/snap-0000000a/vms", "/v1/vms/vm-0000000a/fork"]) {
    const { status, text } = await ask("small", "POST", path, { count: 3 });
    expect([path, status]).toEqual([path, 403]);
    expect(text).toContain("ERR_GATEWAY_QUOTA");
    expect((await ask("small", "POST", path, { count: 2 })).status).toBe(200);
  }
});

test("a snapshot of one's own is taken, gone back to and removed", async () => {
  expect((await ask("ours", "POST", "/v1/vms/vm-0000000a/snapshots", { name: "a" })).status).toBe(
    200,
  );
  const body = { snapshot: "snap-0000000a" };
  expect((await ask("ours", "POST", "/v1/vms/vm-0000000a/restore", body)).status).toBe(200);
  expect((await ask("ours", "POST", "/v1/vms/vm-0000000a/suspend")).status).toBe(200);
  expect((await ask("ours", "DELETE", "/v1/snapshots/snap-0000000a")).status).toBe(204);
  expect(asked.map(({ method, path }) => `${method} ${path}`)).toEqual([
    "POST vm-0000000a",
    "POST /v1/vms/vm-0000000a/restore",
    "POST /v1/vms/vm-0000000a/suspend",
    "DELETE snap-0000000a",
  ]);
  expect(asked[0]?.body).toMatchObject({ name: "a", diskOnly: false, resume: true });
});
