/** A node of a cluster, on the fake driver: commands "in a pod" run on this host. The API server is one of our own. */
import { mkdir, readFile, symlink } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { startNode } from "../../src/node/node.ts";
import type { NodeOptions, RunningNode } from "../../src/node/node.ts";
import { selfSigned } from "../../src/node/join/certificates.ts";
import { POD_LABEL } from "../../src/node/pods/spec/plan.ts";
import { runOk } from "../../src/util/run.ts";
import { FakeApiServer } from "../fixtures/api-server.ts";
import { installation, temporary } from "../fixtures/ladder.ts";
import { loadSmallImage } from "../fixtures/small-image.ts";

const place = temporary();
const made = installation("nothing");
const serving = selfSigned({ commonName: "host-1", hosts: ["127.0.0.1"] });
let api: FakeApiServer;
let url: string;
let node: RunningNode | undefined;

const IMAGE = "docker.io/library/alpine:latest";

beforeAll(async () => await loadSmallImage(made, IMAGE, join(place.path, "image")));

beforeEach(async () => {
  api = new FakeApiServer();
  url = await api.start();
});

afterEach(async () => {
  await node?.close();
  node = undefined;
  for (const { id } of await made.vmsan.list()) await made.vmsan.remove(id, { force: true });
  await api.stop();
});

async function start(options: Partial<NodeOptions> = {}): Promise<RunningNode> {
  node = await startNode({
    identity: {
      url,
      tls: () => ({ ca: serving.cert }),
      headers: async () => await Promise.resolve({}),
      refused: () => false,
    },
    dir: made.dir,
    name: "host-1",
    address: "127.0.0.1",
    port: 0,
    driver: "fake",
    serving,
    ...options,
  });
  return node;
}

/** A pod of one container that runs a script. */
function pod(script: string, more: object = {}, spec: object = {}): Record<string, unknown> {
  const container = { name: "main", image: IMAGE, command: ["sh", "-c", script], ...more };
  return { containers: [container], ...spec };
}

/** VMs by the UID of their pods. */
async function vms(): Promise<Map<string, string>> {
  const views = await made.vmsan.list();
  return new Map(views.map(({ id, labels }) => [labels[POD_LABEL] ?? "", id]));
}

test("a host registers, and a pod runs, is told of, and is removed with its VM", async () => {
  await start();
  const object = api.objects.get("/api/v1/nodes/host-1");
  expect(object.spec.taints).toEqual([
    { key: "vmsan.io/node", value: "true", effect: "NoSchedule" },
  ]);
  expect(object.status.conditions).toContainEqual(
    expect.objectContaining({ type: "Ready", status: "True" }),
  );
  expect(object.status.daemonEndpoints.kubeletEndpoint.Port).toBe(node?.port);
  await api.until("a lease", () =>
    api.objects.get("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/host-1"),
  );
  const script = "echo out; echo err >&2; exec sleep 1000";
  const one = api.add("one", pod(script));
  await api.until("it runs", () => api.state("one")?.kind === "running");
  api.change("one", { ephemeralContainers: [{ name: "debug", image: IMAGE }] });
  await api.until("what was added is refused", () =>
    api.events.some(({ message }) => message.includes("spec.ephemeralContainers")),
  );
  api.change("one", pod(script, { resources: { limits: { memory: "2Gi" } } }));
  await api.until("another size is refused", () =>
    api.events.some(({ message }) => message.includes("resources of a pod that is bound")),
  );
  const observed = (): unknown => api.pods.get("default/one")?.status?.["observedGeneration"];
  await api.until("both were seen", () => observed() === 3);
  const status = api.pods.get("default/one")?.status;
  expect(status).toMatchObject({ phase: "Running", hostIP: "127.0.0.1" });
  expect(status?.["conditions"]).toContainEqual(
    expect.objectContaining({ type: "Ready", status: "True" }),
  );
  const uid = one.metadata.uid ?? "";
  expect([...(await vms()).keys()]).toEqual([uid]);
  await api.until("its event", () => api.events.some(({ reason }) => reason === "Started"));
  api.remove("one", 1);
  await api.until("it is gone", () => !api.pods.has("default/one"));
  await vi.waitFor(async () => expect(await vms()).toEqual(new Map()), { timeout: 30_000 });
  // Two more events and statuses than usual, for what was added and changed.
  expect(api.writes("one").length).toBeLessThanOrEqual(9);
});

test("restart policies, exit codes and what a container says at its end", async () => {
  await start();
  const said = join(place.path, "said");
  api.add("job", pod("exit 0", {}, { restartPolicy: "Never" }));
  api.add(
    "fails",
    pod(
      `echo because > ${said}; exit 3`,
      { terminationMessagePath: said },
      { restartPolicy: "Never" },
    ),
  );
  api.add(
    "logged",
    pod(
      "echo the last line; exit 4",
      {
        terminationMessagePath: join(place.path, "nothing"),
        terminationMessagePolicy: "FallbackToLogsOnError",
      },
      { restartPolicy: "Never" },
    ),
  );
  api.add("missing", pod("", { command: ["/no/such/program"] }, { restartPolicy: "Never" }));
  const counted = join(place.path, "count");
  api.add(
    "again",
    pod(
      `echo x >> ${counted}; [ $(wc -l < ${counted}) -ge 2 ] || { echo first > ${said}-first; exit 1; }`,
      { terminationMessagePath: `${said}-first` },
      { restartPolicy: "OnFailure" },
    ),
  );
  const phase = (name: string): unknown => api.pods.get(`default/${name}`)?.status?.["phase"];
  await api.until("the job succeeds", () => phase("job") === "Succeeded");
  await api.until("it fails", () => phase("fails") === "Failed");
  expect(api.state("fails")?.details).toMatchObject({
    exitCode: 3,
    reason: "Error",
    message: "because\n",
  });
  await api.until("it fails with its log", () => phase("logged") === "Failed");
  expect(api.state("logged")?.details).toMatchObject({ exitCode: 4, message: "the last line\n" });
  await api.until("it cannot start", () => phase("missing") === "Failed");
  expect(api.state("missing")?.details).toMatchObject({ exitCode: 127, reason: "StartError" });
  await api.until("it succeeds the second time", () => phase("again") === "Succeeded");
  expect(api.state("again")?.restarts).toBe(1);
  // What the run before has said is not said of this one.
  expect(api.state("again")?.details).not.toHaveProperty("message");
  await vi.waitFor(async () => expect(await vms()).toEqual(new Map()), { timeout: 30_000 });
});

test("what is not offered is refused by its name, and nothing is made", async () => {
  await start();
  api.add("two", {
    containers: [
      { name: "a", image: IMAGE },
      { name: "b", image: IMAGE },
    ],
    hostNetwork: true,
    volumes: [{ name: "v", persistentVolumeClaim: { claimName: "c" } }],
  });
  api.add("note", pod("true"), { annotations: { "vmsan.io/colour": "red" } });
  api.add(
    "place",
    pod(
      "true",
      { volumeMounts: [{ name: "h", mountPath: "/h" }] },
      {
        volumes: [{ name: "h", hostPath: { path: "/etc" } }],
      },
    ),
  );
  for (const name of ["two", "note", "place"]) {
    await api.until(
      `${name} fails`,
      () => api.pods.get(`default/${name}`)?.status?.["phase"] === "Failed",
    );
  }
  const message = (name: string): string => api.pods.get(`default/${name}`)?.status?.["message"];
  expect(message("two")).toContain("spec.containers[1]");
  expect(message("two")).toContain("spec.hostNetwork");
  expect(message("two")).toContain("spec.volumes[0].persistentVolumeClaim");
  expect(message("note")).toContain("vmsan.io/colour");
  expect(message("place")).toContain("/etc");
  expect(api.events.filter(({ type }) => type === "Warning").map(({ pod: of }) => of)).toEqual(
    expect.arrayContaining(["two", "note", "place"]),
  );
  expect(await vms()).toEqual(new Map());
});

test("variables, files and tokens come from the cluster", async () => {
  await start();
  const dir = join(place.path, "files");
  await mkdir(dir);
  await symlink(dir, `${dir}-link`);
  const out = join(place.path, "out");
  api.objects.set("/api/v1/namespaces/default/configmaps/settings", {
    data: { colour: "blue", "app.conf": "a=1\n" },
  });
  api.objects.set("/api/v1/namespaces/default/secrets/keys", {
    data: { password: Buffer.from("s3cret").toString("base64") },
  });
  const script = `echo "$GREETING $COLOUR $PASSWORD $NAME $CPUS $0" > ${out}; cat ${dir}/conf/app.conf ${dir}/token/token ${dir}/one >> ${out}; exec sleep 1000`;
  api.add(
    "full",
    pod(
      "",
      {
        command: ["sh", "-c", script, "$(WHO)-$$(WHO)-$(NOBODY)"],
        env: [
          { name: "WHO", value: "you" },
          { name: "GREETING", value: "hello $(WHO)" },
          { name: "COLOUR", valueFrom: { configMapKeyRef: { name: "settings", key: "colour" } } },
          { name: "PASSWORD", valueFrom: { secretKeyRef: { name: "keys", key: "password" } } },
          { name: "NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
          { name: "CPUS", valueFrom: { resourceFieldRef: { resource: "limits.cpu" } } },
        ],
        resources: { limits: { cpu: "2", memory: "256Mi" } },
        volumeMounts: [
          { name: "conf", mountPath: `${dir}/conf` },
          { name: "conf", mountPath: `${dir}/one`, subPath: "app.conf" },
          // By a link, as /var/run of most images is one.
          { name: "token", mountPath: `${dir}-link/token` },
        ],
      },
      {
        volumes: [
          { name: "conf", configMap: { name: "settings" } },
          { name: "token", projected: { sources: [{ serviceAccountToken: { path: "token" } }] } },
        ],
      },
    ),
  );
  await api.until("it runs", () => api.state("full")?.kind === "running");
  await vi.waitFor(
    async () =>
      expect(await readFile(out, "utf8")).toBe(
        `hello you blue s3cret full 2 you-$(WHO)-$(NOBODY)\na=1\n${api.token}a=1\n`,
      ),
    { timeout: 30_000 },
  );
  const [view] = await made.vmsan.list();
  expect(view).toMatchObject({ vcpus: 2, memMib: 256 });
  // One that is not there yet is waited for.
  api.add("waits", pod("exec sleep 1000", { envFrom: [{ configMapRef: { name: "later" } }] }));
  await api.until(
    "it waits",
    () => api.state("waits")?.details.reason === "CreateContainerConfigError",
  );
  api.objects.set("/api/v1/namespaces/default/configmaps/later", { data: { A: "1" } });
  await api.until("it runs", () => api.state("waits")?.kind === "running");
});

test("a node that is started again finds its pods, and removes what nobody wants any more", async () => {
  const first = await start();
  const marks = join(place.path, "marks");
  for (const name of ["stays", "ends", "goes"]) {
    api.add(
      name,
      pod(
        `echo ${name} >> ${marks}; while [ ! -e ${place.path}/end-$0 ]; do sleep 0.1; done`,
        {
          command: [
            "sh",
            "-c",
            `echo ${name} >> ${marks}; while [ ! -e ${place.path}/end-${name} ]; do sleep 0.1; done; echo bye; exit 4`,
          ],
        },
        { restartPolicy: "Never" },
      ),
    );
  }
  for (const name of ["stays", "ends", "goes"]) {
    await api.until(`${name} runs`, () => api.state(name)?.kind === "running");
  }
  const before = await vms();
  // As by `kubectl debug`: not offered, and no reason to end what runs.
  api.change("stays", { ephemeralContainers: [{ name: "debug", image: IMAGE }] });
  await first.close();
  node = undefined;
  api.forget("goes", true);
  await runOk("touch", [join(place.path, "end-ends")], "ERR_TEST_TOOL");
  await (
    await start()
  ).adopted;
  await api.until("its end is told", () => api.state("ends")?.kind === "terminated");
  expect(api.state("ends")?.details).toMatchObject({ exitCode: 4 });
  const stays = api.pods.get("default/stays")?.metadata.uid ?? "";
  await vi.waitFor(async () => expect(await vms()).toEqual(new Map([[stays, before.get(stays)]])), {
    timeout: 30_000,
  });
  expect(api.state("stays")?.kind).toBe("running");
  // Nothing was started twice.
  expect((await readFile(marks, "utf8")).split("\n").toSorted()).toEqual([
    "",
    "ends",
    "goes",
    "stays",
  ]);
});

test("probes: ready only when it says so, started again when it does not answer", async () => {
  await start();
  const flag = join(place.path, "flag");
  const look = { exec: { command: ["test", "-e", flag] }, periodSeconds: 1, failureThreshold: 1 };
  api.add(
    "probed",
    pod(`trap 'exit 9' TERM; while :; do sleep 0.1; done`, {
      readinessProbe: look,
      livenessProbe: { ...look, exec: { command: ["sh", "-c", `[ ! -e ${flag}-dead ]`] } },
    }),
  );
  await api.until("it runs", () => api.state("probed")?.kind === "running");
  const ready = (): unknown =>
    api.pods.get("default/probed")?.status?.["containerStatuses"][0].ready;
  expect(ready()).toBe(false);
  await runOk("touch", [flag], "ERR_TEST_TOOL");
  await api.until("it is ready", () => ready() === true);
  await runOk("touch", [`${flag}-dead`], "ERR_TEST_TOOL");
  await api.until("it is started again", () => (api.state("probed")?.restarts ?? 0) > 0);
  await runOk("rm", [`${flag}-dead`], "ERR_TEST_TOOL");
  expect(api.events.some(({ reason }) => reason === "Unhealthy")).toBe(true);
  expect(
    api.pods.get("default/probed")?.status?.["containerStatuses"][0].lastState.terminated.exitCode,
  ).toBe(9);
});

test("watches that are cut go on, and a VM that is gone is made again", async () => {
  await start();
  api.add("a", pod("exec sleep 1000"));
  await api.until("it runs", () => api.state("a")?.kind === "running");
  api.cutWatches();
  api.add("b", pod("exec sleep 1000"));
  await api.until("the other one runs", () => api.state("b")?.kind === "running");
  api.overrule("b");
  await api.until("it is ready all the same", () => api.isReady("b"));
  const uid = api.pods.get("default/a")?.metadata.uid ?? "";
  const id = (await vms()).get(uid) ?? "";
  await made.vmsan.remove(id, { force: true });
  await api.until("it runs again", () => {
    const state = api.state("a");
    return state?.kind === "running" && state.restarts === 1;
  });
  expect((await vms()).get(uid)).not.toBe(id);
  // Meanwhile it was not said to run.
  const states = api.writes("a").map(({ body }) => body?.status?.containerStatuses?.[0]?.state);
  expect(states).toContainEqual({ terminated: expect.objectContaining({ exitCode: 137 }) });
});

test("VMs of a node that falls silent stand still, and go on when they are still wanted", async () => {
  await start({ gracePeriod: 4 });
  api.add("brief", pod("exec sleep 1000"));
  api.add(
    "patient",
    pod(
      "exec sleep 1000",
      {},
      {
        tolerations: [{ operator: "Exists", tolerationSeconds: 300 }],
      },
    ),
  );
  for (const name of ["brief", "patient"]) {
    await api.until(`${name} runs`, () => api.state(name)?.kind === "running");
  }
  const status = async (name: string): Promise<unknown> => {
    const uid = api.pods.get(`default/${name}`)?.metadata.uid ?? "";
    const id = (await vms()).get(uid);
    return id === undefined ? "none" : (await made.vmsan.get(id)).view.status;
  };
  api.silent = true;
  api.cutWatches();
  await vi.waitFor(async () => expect(await status("brief")).toBe("paused"), { timeout: 60_000 });
  expect(await status("patient")).toBe("running");
  api.silent = false;
  await vi.waitFor(async () => expect(await status("brief")).toBe("running"), { timeout: 60_000 });
  api.silent = true;
  await vi.waitFor(async () => expect(await status("brief")).toBe("paused"), { timeout: 60_000 });
  // Replaced elsewhere: it never goes on.
  api.forget("brief", true);
  api.silent = false;
  await vi.waitFor(async () => expect((await vms()).size).toBe(1), { timeout: 60_000 });
  // What may change of a pod that runs: how long it stays with a silent node, and when it has to end.
  api.change("patient", { tolerations: [] });
  await api.until(
    "that was seen",
    () => api.pods.get("default/patient")?.status?.["observedGeneration"] === 2,
  );
  api.silent = true;
  api.cutWatches();
  await vi.waitFor(async () => expect(await status("patient")).toBe("paused"), { timeout: 60_000 });
  api.silent = false;
  await vi.waitFor(async () => expect(await status("patient")).toBe("running"), {
    timeout: 60_000,
  });
  api.change("patient", { activeDeadlineSeconds: 1, terminationGracePeriodSeconds: 0 });
  await api.until("its time is over", () => {
    const now = api.pods.get("default/patient")?.status;
    return now?.["phase"] === "Failed" && now["reason"] === "DeadlineExceeded";
  });
});

test("a node that is started while nobody answers has VMs stand still whose time is over", async () => {
  const first = await start({ gracePeriod: 8 });
  api.add("brief", pod("exec sleep 1000"));
  await api.until("it runs", () => api.state("brief")?.kind === "running");
  await first.close();
  node = undefined;
  api.silent = true;
  const starting = start({ gracePeriod: 8 });
  const status = async (): Promise<unknown> => (await made.vmsan.list())[0]?.status;
  await vi.waitFor(async () => expect(await status()).toBe("paused"), { timeout: 60_000 });
  api.silent = false;
  await starting;
  await vi.waitFor(async () => expect(await status()).toBe("running"), { timeout: 60_000 });
  expect(api.state("brief")).toMatchObject({ kind: "running", restarts: 0 });
});

test("what is to be done after the start and before the end is done, in time; a failure ends the command", async () => {
  await start();
  const said = join(place.path, "hooks");
  const does = (text: string): object => ({
    exec: { command: ["sh", "-c", `echo ${text} >> ${said}`] },
  });
  const script = `trap 'echo term >> ${said}; exit 0' TERM; touch ${said}-set; while :; do sleep 0.1; done`;
  const lifecycle = { postStart: does("started"), preStop: does("stopping") };
  api.add("hooked", pod(script, { lifecycle }));
  await api.until("it runs", () => api.state("hooked")?.kind === "running");
  expect(await readFile(said, "utf8")).toBe("started\n");
  await vi.waitFor(async () => await readFile(`${said}-set`), { timeout: 60_000 });
  api.remove("hooked", 60);
  await api.until("it is gone", () => !api.pods.has("default/hooked"));
  expect(await readFile(said, "utf8")).toBe("started\nstopping\nterm\n");
  // One that never ends has no more time than the pod.
  const endless = { preStop: { sleep: { seconds: 1000 } } };
  api.add("endless", pod(script, { lifecycle: endless }));
  await api.until("it runs", () => api.state("endless")?.kind === "running");
  api.remove("endless", 1);
  await api.until("it is gone", () => !api.pods.has("default/endless"));
  const failing = { postStart: { exec: { command: ["sh", "-c", "echo broken >&2; exit 3"] } } };
  api.add("failing", pod(script, { lifecycle: failing }, { restartPolicy: "Never" }));
  // Its end may be the command's own, or that of a shell that was not that far.
  const over = (): boolean =>
    /^(Succeeded|Failed)$/.test(String(api.pods.get("default/failing")?.status?.["phase"]));
  await api.until("it is over", over);
  await api.until("why is told", () =>
    api.events.some(
      ({ pod: of, reason, message }) =>
        of === "failing" && reason === "FailedPostStartHook" && message.includes("broken"),
    ),
  );
});

test("memory that cannot be kept is told, and the pod ends as ever", async () => {
  await start();
  const annotations = { "vmsan.io/suspend": "memory" };
  api.add("awake", pod("exec sleep 1000"), { annotations });
  await api.until("it runs", () => api.state("awake")?.kind === "running");
  api.remove("awake", 1);
  await api.until("it is gone", () => !api.pods.has("default/awake"));
  // The fake driver keeps none; the disk of this machine may have no room for it either.
  await api.until("that is told", () =>
    api.events.some(({ pod: of, reason }) => of === "awake" && reason === "NotSuspended"),
  );
  await vi.waitFor(async () => expect(await vms()).toEqual(new Map()), { timeout: 30_000 });
});
