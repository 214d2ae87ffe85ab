/**
 * VMs as pods, by the SDK's client: an API server of the tests' own, a real `vmsan node` on the fake driver, whose
 * commands run on this host.
 */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { afterEach, beforeAll, expect, test, vi } from "vitest";
import { listStreams } from "../../src/agent/commands.ts";
import { Transport } from "../../src/client/transport.ts";
import { Vmsan } from "../../src/client/vmsan.ts";
import { tunnelTo } from "../../src/cluster/tunnel.ts";
import { KubeClient } from "../../src/kube/client.ts";
import type { Vm } from "../../src/client/vm.ts";
import { POD_ANNOTATION, VM_ID_LABEL } from "../../src/kube/pod-words.ts";
import { CLUSTER_IMAGE as IMAGE, fakeCluster } from "../fixtures/fake-cluster.ts";
import { temporary } from "../fixtures/ladder.ts";

const place = temporary();
const cluster = fakeCluster(place);
const { api, host: made } = cluster;
let vmsan: Vmsan;

beforeAll(() => {
  vmsan = new Vmsan({ cluster: { kubeconfig: cluster.kubeconfig } });
});

afterEach(async () => {
  for (const { id } of await vmsan.list()) await vmsan.remove(id, { force: true });
});
async function text(vm: Vm, ...argv: string[]): Promise<string> {
  const { stdout, stderr, exitCode } = await vm.exec(argv);
  expect([exitCode, stderr.toString()]).toEqual([0, ""]);
  return stdout.toString();
}

test("a VM is a pod: made, found, used as any other, removed", async () => {
  let id = "";
  const vm = await vmsan.create(
    {
      image: IMAGE,
      name: "web-1",
      vcpus: 2,
      memory: 256,
      env: ["COST=$5 $(HOME) $$"],
      labels: { "any key": "any value\n" },
      project: "p",
    },
    { onVm: (made) => (id = made) },
  );
  expect(vm.id).toBe(id);
  expect(vm.view).toMatchObject({
    name: "web-1",
    status: "running",
    vcpus: 2,
    memMib: 256,
    driver: "fake",
    labels: { "any key": "any value\n" },
    project: "p",
    policy: { mode: "allow-all" },
    image: { config: { env: expect.arrayContaining(["FROM=image"]) } },
  });
  expect(api.pods.get("default/web-1")?.metadata.labels?.[VM_ID_LABEL]).toBe(id);
  // Its image's variables and its own, as they were written.
  expect(await text(vm, "sh", "-c", 'echo "$FROM $COST"')).toBe("image $5 $(HOME) $$\n");
  expect((await vm.exec(["sh", "-c", "exit 7"])).exitCode).toBe(7);
  await expect(vm.exec(["/no/such"])).rejects.toMatchObject({ code: "ERR_AGENT_NOT_FOUND" });
  const bytes = randomBytes(3 << 20);
  const echoed = await vm.exec(["cat"], { input: bytes });
  expect(echoed.stdout.equals(bytes)).toBe(true);
  // What the pod is kept by is none of its commands.
  const detached = vm.spawn(["sleep", "1000"], { detach: true });
  await detached.started;
  const commands = async (): Promise<(string | undefined)[]> =>
    (await listStreams(vm.transport)).map(({ argv }) => argv[0]);
  // Those that have ended are forgotten once the guest hears that their ends were heard.
  await expect.poll(commands).toEqual(["sleep"]);
  // By its ID, by its name, in the list.
  expect((await vmsan.get(id)).view.name).toBe("web-1");
  expect((await vmsan.get("web-1")).id).toBe(id);
  expect(await vmsan.list()).toEqual([
    expect.objectContaining({ id, name: "web-1", status: "running", memMib: 256, project: "p" }),
  ]);
  const [sample] = await vmsan.stats([id]);
  expect(sample).toMatchObject({ id, name: "web-1", project: "p" });
  await expect(vmsan.create({ image: IMAGE, name: "web-1" })).rejects.toMatchObject({
    code: "ERR_VM_NAME_TAKEN",
  });
  await expect(vmsan.remove(id)).rejects.toMatchObject({ code: "ERR_VM_NOT_STOPPED" });
  await vmsan.remove(id, { force: true });
  expect(api.pods.size).toBe(0);
  await expect(vmsan.get(id)).rejects.toMatchObject({ code: "ERR_VM_NOT_FOUND" });
  await expect(vm.exec(["true"])).rejects.toMatchObject({ code: "ERR_VM_NOT_FOUND" });
});

test("files both ways, a port, and a command that outlives its connection", async () => {
  const vm = await vmsan.create({ image: IMAGE });
  const [from, inside, back] = ["from", "inside", "back"].map((name) => join(place.path, name));
  await mkdir(from ?? "");
  const bytes = randomBytes(1 << 20);
  await writeFile(join(from ?? "", "a"), bytes);
  await vm.upload([from ?? ""], inside ?? "");
  await vm.download(inside ?? "", back ?? "");
  expect((await readFile(join(back ?? "", "a"))).equals(bytes)).toBe(true);
  await vm.writeFile(`${inside}/b`, Readable.from([Buffer.from("b")]));
  expect(await text(vm, "cat", `${inside}/b`)).toBe("b");
  // What listens "in the guest" is on this host.
  const server = createServer((socket) => socket.pipe(socket)).listen(0, "127.0.0.1");
  await once(server, "listening");
  const dialled = await vm.dialLocal((server.address() as AddressInfo).port);
  dialled.end(bytes);
  expect((await buffer(dialled)).equals(bytes)).toBe(true);
  server.close();
  // Lines of a command while sessions are cut again and again: none is missing, none comes twice.
  const lines: Buffer[] = [];
  const stream = vm.spawn(
    ["sh", "-c", "i=0; while [ $i -lt 60 ]; do echo $i; i=$((i+1)); sleep 0.05; done"],
    {},
    { onStdout: (chunk) => void lines.push(Buffer.from(chunk)) },
  );
  await stream.started;
  let cuts = 0;
  const cutting = setInterval(() => {
    cuts += 1;
    api.cutSessions();
  }, 500);
  const { exitCode } = await stream.exit;
  clearInterval(cutting);
  expect(exitCode).toBe(0);
  expect(cuts).toBeGreaterThan(0);
  const expected = Array.from({ length: 60 }, (_, i) => `${i}\n`).join("");
  expect(Buffer.concat(lines).toString()).toBe(expected);
});

test("a policy that is changed is in force when the call returns; nothing else of a pod changes", async () => {
  const vm = await vmsan.create({
    image: IMAGE,
    networkPolicy: "custom",
    allowedDomains: ["a.test"],
  });
  const policy = { ...vm.view.policy, allowedDomains: ["b.test", "*.c.test"], allowIcmp: true };
  await vm.setPolicy(policy);
  expect(vm.view.policy).toEqual(policy);
  const [host] = await made.vmsan.list();
  expect(host?.policy).toEqual(policy);
  await vm.setPolicy({ ...policy, mode: "deny-all", allowedDomains: [], allowIcmp: false });
  expect((await made.vmsan.list())[0]?.policy.mode).toBe("deny-all");
  expect(api.pods.get(`default/${vm.id}`)?.metadata.annotations).not.toHaveProperty(
    POD_ANNOTATION.allowedDomains,
  );
});

test("its time: given anew, over; stopped is stopped; an ephemeral one ends without its owner", async () => {
  const vm = await vmsan.create({ image: IMAGE, timeout: "1h", onTimeout: "remove" });
  const hour = Date.parse(vm.view.timeoutAt ?? "") - Date.now();
  expect(hour).toBeGreaterThan(3_000_000);
  expect(hour).toBeLessThanOrEqual(3_600_000);
  await vm.extendTimeout(7_200_000);
  expect(Date.parse(vm.view.timeoutAt ?? "") - Date.now()).toBeGreaterThan(7_000_000);
  await vm.extendTimeout(1);
  await api.until("it is gone with its time", () => api.pods.size === 0);
  const limited = await vmsan.create({ image: IMAGE, timeout: "1h" });
  await limited.extendTimeout(1);
  await api.until("it has ended", () => {
    return api.pods.get(`default/${limited.id}`)?.status?.["phase"] === "Succeeded";
  });
  await expect(limited.exec(["true"])).rejects.toMatchObject({ code: "ERR_VM_NOT_RUNNING" });
  expect(await limited.refresh()).toMatchObject({ status: "stopped", stopReason: "time-limit" });
  await limited.remove();
  const other = await vmsan.create({ image: IMAGE });
  await other.stop();
  expect((await other.refresh()).status).toBe("stopped");
  await expect(other.exec(["true"])).rejects.toMatchObject({ code: "ERR_VM_NOT_RUNNING" });
  await expect(other.start()).rejects.toMatchObject({ code: "ERR_CLUSTER_UNSUPPORTED" });
  await vi.waitFor(async () => expect(await made.vmsan.list()).toEqual([]), { timeout: 60_000 });
  await other.remove();
  const ephemeral = await vmsan.create({ image: IMAGE, ephemeral: true });
  expect(ephemeral.view.ephemeral).toBe(true);
  ephemeral.letGo();
  await api.until("it is gone with its owner", () => api.pods.size === 0);
});

test("what pods cannot do is refused by its name, and nothing is made", async () => {
  const wishes: [object, string][] = [
    [{ ports: ["8080:80"] }, "ports"],
    [{ mounts: ["data:/data"] }, "mounts"],
    [{ init: true }, "init"],
    [{ driver: "qemu" }, "driver"],
    [{ env: ["HOME"] }, "env HOME"],
    [{ sysctls: ["net.ipv4.ip_forward=1"] }, "sysctl"],
    [{ idleTimeout: "1m" }, "idleTimeout"],
    [{ image: "oci:/tmp/dir" }, "image of this host"],
    [{ labels: { "vmsan.io/pod-uid": "x" } }, "labels"],
    [{ seccomp: false }, "isolation"],
    [{ secrets: ["KEY=env@a.test"] }, "secrets"],
  ];
  process.env["KEY"] = "value";
  for (const [wish, word] of wishes) {
    const failure = await vmsan.create({ image: IMAGE, ...wish }).catch((error: unknown) => error);
    expect(failure, word).toMatchObject({ code: "ERR_CLUSTER_UNSUPPORTED" });
    expect(String(failure)).toContain(word);
  }
  await expect(vmsan.create({ image: IMAGE, name: "a_b" })).rejects.toMatchObject({
    code: "ERR_VALIDATION_FLAGS",
  });
  expect(api.pods.size).toBe(0);
  const vm = await vmsan.create({ image: IMAGE });
  for (const call of [
    () => vm.pause(),
    () => vm.suspend(),
    () => vmsan.fork(vm.id),
    () => vm.snapshot(),
    () => vm.commit("a:1"),
    () => vmsan.volumes.list(),
    () => vmsan.images.list(),
  ]) {
    await expect(call()).rejects.toMatchObject({ code: "ERR_CLUSTER_UNSUPPORTED" });
  }
  // What there is instead.
  const instead = { fix: expect.stringContaining("vmsan.io/snapshot") as string };
  await expect(vmsan.fork(vm.id)).rejects.toMatchObject(instead);
});

test("what does not start says why, and leaves nothing", async () => {
  await expect(
    vmsan.create({ image: "registry.invalid/nothing:1", pull: "never" }),
  ).rejects.toMatchObject({ why: expect.stringContaining("nothing:1") });
  expect(api.pods.size).toBe(0);
  api.host = undefined;
  const over = new AbortController();
  const waits: string[] = [];
  const making = vmsan.create(
    { image: IMAGE },
    {
      signal: over.signal,
      onProgress: ({ message = "" }) => {
        waits.push(message);
        if (message.includes("0/1 nodes")) over.abort(new Error("enough"));
      },
    },
  );
  await expect(making).rejects.toThrow("enough");
  api.host = "host-1";
  await api.until("it is gone", () => api.pods.size === 0);
  // Who may make pods and not watch them is told so.
  api.watchable = false;
  await expect(vmsan.create({ image: IMAGE })).rejects.toMatchObject({ status: 403 });
  api.watchable = true;
  await vi.waitFor(async () => expect(await vmsan.list()).toEqual([]), { timeout: 60_000 });
});

test("pods of others: seen and used, and ended by removal alone; one made anew is another", async () => {
  api.add("theirs", {
    nodeSelector: { "vmsan.io/node": "true" },
    containers: [{ name: "c", image: IMAGE, command: ["sh", "-c", "exec sleep 1000"] }],
  });
  api.add("elsewhere", { nodeName: "other", containers: [{ name: "c", image: IMAGE }] });
  await api.until("it runs", () => api.state("theirs")?.kind === "running");
  const [view] = await vmsan.list();
  expect(view).toMatchObject({ name: "theirs", status: "running" });
  const vm = await vmsan.get(view?.id ?? "");
  expect(await text(vm, "echo", "hi")).toBe("hi\n");
  expect((await buffer(await vm.console({ follow: true }))).toString()).toBe(
    "log of theirs, ?container=c&follow=true",
  );
  await expect(vm.stop()).rejects.toMatchObject({ code: "ERR_CLUSTER_UNSUPPORTED" });
  await expect(vmsan.get("elsewhere")).rejects.toMatchObject({ code: "ERR_VM_NOT_FOUND" });
  await vm.remove();
  // By this way commands could be root's: a pod whose commands are not has none of it.
  const plain = { name: "c", image: IMAGE, command: ["sh", "-c", "exec sleep 1000"] };
  const selected = { nodeSelector: { "vmsan.io/node": "true" } };
  const users = { user: { runAsUser: process.getuid?.() === 0 ? 12_345 : process.getuid?.() } };
  api.add("humble", { ...selected, containers: [plain], securityContext: users.user });
  const none = { annotations: { [POD_ANNOTATION.command]: "none" } };
  const ruledOut = { ...users.user, runAsNonRoot: true };
  api.add("ruled-out", { ...selected, containers: [plain], securityContext: ruledOut }, none);
  for (const name of ["humble", "ruled-out"]) {
    await api.until(`${name} runs`, () => api.state(name)?.kind === "running");
    await expect(vmsan.get(name), name).rejects.toMatchObject({ code: "ERR_CLUSTER_POD" });
    await vmsan.remove(name, { force: true });
  }
  api.add("theirs", {
    nodeSelector: { "vmsan.io/node": "true" },
    containers: [{ name: "c", image: IMAGE, command: ["sh", "-c", "exec sleep 1000"] }],
  });
  await api.until("it runs again", () => api.state("theirs")?.kind === "running");
  await expect(vm.exec(["true"])).rejects.toMatchObject({ code: "ERR_VM_NOT_FOUND" });
  api.forget("elsewhere");
});

test("a session for a pod's VM reaches that VM, and of it nothing that is its author's", async () => {
  const vm = await vmsan.create({ image: IMAGE, name: "mine" });
  const other = await vmsan.create({ image: IMAGE, name: "other" });
  const pod = api.pods.get("default/mine");
  const client = new KubeClient({
    url: cluster.url(),
    tls: () => ({}),
    headers: async () => await Promise.resolve({}),
    refused: () => false,
  });
  const target = {
    namespace: "default",
    name: "mine",
    uid: pod?.metadata.uid ?? "",
    container: "main",
  };
  const host = new Transport(tunnelTo(client, target));
  const [own, theirs] = (await made.vmsan.list()).toSorted((a) =>
    a.labels["vmsan.io/pod-name"] === "mine" ? -1 : 1,
  );
  expect(await host.call("GET", "/v1/vm")).toMatchObject({ id: own?.id, status: "running" });
  const refused: [string, string][] = [
    ["PUT", "/v1/vm/policy"],
    ["DELETE", "/v1/vm"],
    ["POST", "/v1/vm"],
    ["POST", "/v1/vm/pause"],
    ["POST", "/v1/vm/stop"],
    ["GET", "/v1/vm/hold"],
    ["POST", "/v1/vm/agent/../stop"],
    ["POST", "/v1/vm/agent/%2e%2e/stop"],
    ["POST", "/v1/vm/agent/v1/../../stop"],
    ["POST", "/v1/vm/snapshots"],
    ["GET", `/v1/vms/${theirs?.id}`],
    ["GET", "/v1/vms"],
    ["POST", "/v1/shutdown"],
    ["GET", "/v1/vmsan"],
  ];
  for (const [method, path] of refused) {
    const calling = host.call(method, path, /^(GET|DELETE)$/.test(method) ? {} : { body: {} });
    await expect(calling, `${method} ${path}`).rejects.toMatchObject({
      code: "ERR_NODE_ROUTE_NOT_FOUND",
    });
  }
  await expect(host.upgrade("/v1/vm/pause")).rejects.toMatchObject({
    code: "ERR_NODE_ROUTE_NOT_FOUND",
  });
  const headers = { "vmsan-version": "0.0.0" };
  await expect(host.call("GET", "/v1/vm", { headers })).rejects.toMatchObject({
    code: "ERR_CLUSTER_VERSION",
  });
  const stale = new Transport(tunnelTo(client, { ...target, uid: "of-another" }));
  await expect(stale.call("GET", "/v1/vm")).rejects.toMatchObject({ code: "ERR_VM_NOT_FOUND" });
  const raw = await tunnelTo(client, target).open();
  raw.end("no HTTP\r\n\r\n");
  raw.resume();
  await new Promise((resolve) => raw.once("close", resolve));
  client.close();
  expect(await text(vm, "echo", "both")).toBe("both\n");
  expect(await text(other, "echo", "run")).toBe("run\n");
});
