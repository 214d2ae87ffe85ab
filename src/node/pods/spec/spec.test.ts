import { expect, test } from "vitest";
import { podSchema } from "../../../schema/pod.ts";
import type { Pod } from "../../../schema/pod.ts";
import { VmsanError } from "../../../model/errors.ts";
import { ApiError } from "../../../kube/api-server.ts";
import type { ApiServer } from "../../../kube/api-server.ts";
import { Conditions, statusOf } from "../life/state.ts";
import type { PodState } from "../life/state.ts";
import { wishesOf } from "./annotations.ts";
import { expand } from "./env.ts";
import { startFailure } from "./failure.ts";
import { refusedFields } from "./offered.ts";
import { withGroups } from "../../../containers/user.ts";
import { planPod } from "./plan.ts";
import { isFor } from "./pull.ts";
import { parseQuantity } from "./quantity.ts";
import { References } from "../files/references.ts";
import { Tokens } from "../files/tokens.ts";
import { toleratedSeconds } from "./tolerations.ts";

const host = {
  address: "10.0.0.1",
  hostPaths: [{ path: "/srv/data", readonly: true }],
  driver: "fake" as const,
};

/** An API server that has a ConfigMap whose keys are paths. */
const api: ApiServer = {
  url: "",
  request: async () => await Promise.resolve({ data: { "a.conf": "x" } }),
  watch: () => {
    throw new Error("nothing is watched here");
  },
};

function pod(spec: object, container: object = {}, metadata: object = {}): Pod {
  return podSchema.parse({
    metadata: { name: "a", namespace: "team", uid: "0-1", ...metadata },
    spec: { containers: [{ name: "main", image: "alpine", ...container }], ...spec },
  });
}

test("quantities", () => {
  const read = ["100m", "1.5", "2", "512Mi", "1e3", "1E3", "2G", ".5", "+1"].map(parseQuantity);
  expect(read).toEqual([0.1, 1.5, 2, 2 ** 29, 1000, 1000, 2e9, 0.5, 1]);
  expect(["", "-1", "1 Gi", "Gi", "1Xi", "1m5", "e3"].map(parseQuantity)).toEqual(
    Array.from({ length: 7 }, () => undefined),
  );
});

test("names in parentheses are replaced, unknown ones and escaped ones stay", () => {
  const known = new Map([["A", "1"]]);
  expect(expand("$(A)-$$(A)-$(B)-$A-$$$(A)-$(A", known)).toBe("1-$(A)-$(B)-$A-$1-$(A");
});

test("what the API server writes by itself is offered", () => {
  const defaults = pod(
    {
      dnsPolicy: "ClusterFirst",
      enableServiceLinks: true,
      preemptionPolicy: "PreemptLowerPriority",
      priority: 0,
      restartPolicy: "Always",
      schedulerName: "default-scheduler",
      securityContext: { seLinuxOptions: { level: "s0" } },
      serviceAccount: "default",
      serviceAccountName: "default",
      terminationGracePeriodSeconds: 30,
      tolerations: [{ key: "a", operator: "Exists" }],
      hostNetwork: false,
      initContainers: [],
    },
    {
      resources: {},
      terminationMessagePath: "/dev/termination-log",
      terminationMessagePolicy: "File",
      imagePullPolicy: "IfNotPresent",
      ports: [{ containerPort: 80, protocol: "TCP" }],
      volumeMounts: [{ name: "t", mountPath: "/t", readOnly: true, recursiveReadOnly: "Disabled" }],
    },
  );
  expect(refusedFields(defaults)).toEqual([]);
});

test("each field that is not offered is named", () => {
  const wrong = pod(
    {
      initContainers: [{ name: "i" }],
      hostPID: true,
      fieldOfTomorrow: { a: 1 },
      dnsPolicy: "None",
      volumes: [
        { name: "m", emptyDir: { medium: "HugePages" } },
        { name: "s", emptyDir: { sizeLimit: "1Gi" } },
        { name: "n", nfs: { server: "a", path: "/" } },
        { name: "h", hostPath: { path: "/srv/data" } },
      ],
      securityContext: { supplementalGroupsPolicy: "Strict" },
    },
    {
      lifecycle: { preStop: { exec: { command: ["a"] } }, stopSignal: "SIGUSR1" },
      securityContext: { privileged: true },
      resources: { limits: { "nvidia.com/gpu": "1" } },
      livenessProbe: { grpc: { port: 1, mode: "TLS" } },
      volumeMounts: [
        { name: "h", mountPath: "/s", subPath: "x" },
        { name: "h", mountPath: "/t", subPathExpr: "$(X)" },
      ],
    },
    { annotations: { "vmsan.io/warm-start": "true", "vmsan.io/hot-start": "true", other: "x" } },
  );
  expect(refusedFields(wrong).toSorted()).toEqual(
    [
      "spec.initContainers",
      "spec.hostPID",
      "spec.fieldOfTomorrow",
      'spec.dnsPolicy: "None"',
      'spec.volumes[0].emptyDir.medium: "HugePages"',
      "spec.volumes[1].emptyDir.sizeLimit",
      "spec.volumes[2].nfs",
      'spec.securityContext.supplementalGroupsPolicy: "Strict"',
      "spec.containers[0].lifecycle.stopSignal",
      "spec.containers[0].securityContext.privileged",
      "spec.containers[0].resources.limits.nvidia.com/gpu",
      "spec.containers[0].livenessProbe.grpc.mode",
      "spec.containers[0].volumeMounts[0].subPath",
      "spec.containers[0].volumeMounts[1].subPathExpr",
      "metadata.annotations[vmsan.io/hot-start]",
    ].toSorted(),
  );
});

/** Something of every kind that a node reads of a pod. */
function rich(): { spec: object; container: object } {
  const content = { name: "c", items: [{ key: "a", path: "b" }] };
  const items = [
    { path: "a", fieldRef: { fieldPath: "metadata.name" } },
    { path: "b", resourceFieldRef: { resource: "limits.cpu" } },
  ];
  const act = { httpGet: { port: 1, httpHeaders: [{ name: "a", value: "b" }] } };
  const probe = { ...act, periodSeconds: 1 };
  return {
    spec: {
      volumes: [
        { name: "c", configMap: content },
        { name: "s", secret: { secretName: "s", items: content.items } },
        { name: "d", downwardAPI: { items } },
        {
          name: "p",
          projected: {
            sources: [
              { configMap: content },
              { secret: content },
              { downwardAPI: { items } },
              { serviceAccountToken: { path: "token" } },
            ],
          },
        },
        { name: "e", emptyDir: { medium: "Memory" } },
        { name: "h", hostPath: { path: "/srv/data" } },
      ],
      imagePullSecrets: [{ name: "a" }],
      hostAliases: [{ ip: "10.0.0.1", hostnames: ["a"] }],
      os: { name: "linux" },
      securityContext: {
        seccompProfile: { type: "RuntimeDefault" },
        sysctls: [{ name: "kernel.sem", value: "1" }],
      },
    },
    container: {
      env: [
        { name: "a", value: "b" },
        { name: "c", valueFrom: { fieldRef: { fieldPath: "metadata.uid" } } },
        { name: "d", valueFrom: { resourceFieldRef: { resource: "limits.cpu" } } },
        { name: "e", valueFrom: { configMapKeyRef: { name: "a", key: "b" } } },
        { name: "f", valueFrom: { secretKeyRef: { name: "a", key: "b" } } },
      ],
      envFrom: [{ configMapRef: { name: "a" } }, { secretRef: { name: "a" } }],
      ports: [{ containerPort: 1 }],
      resources: { limits: { cpu: "1" }, requests: { memory: "1Gi" } },
      volumeMounts: [{ name: "e", mountPath: "/e" }],
      lifecycle: { postStart: { exec: { command: ["a"] } }, preStop: { sleep: { seconds: 1 } } },
      livenessProbe: probe,
      readinessProbe: { tcpSocket: { port: 1 } },
      startupProbe: { grpc: { port: 1 } },
      securityContext: {
        capabilities: { add: ["NET_BIND_SERVICE"], drop: ["ALL"] },
        appArmorProfile: { type: "Unconfined" },
      },
    },
  };
}

test("a field of tomorrow is refused wherever it stands", () => {
  const { spec, container } = rich();
  expect(refusedFields(pod(spec, container))).toEqual([]);
  // By way of JSON: nothing is in it twice.
  const { containers, ...rest } = JSON.parse(
    JSON.stringify({ ...spec, containers: [{ name: "main", image: "alpine", ...container }] }),
  ) as { containers: object[] };
  const wanted: string[] = [];
  const add = (value: unknown, path: string): void => {
    if (typeof value !== "object" || value === null) return;
    for (const [key, inner] of Object.entries(value)) {
      add(inner, Array.isArray(value) ? `${path}[${key}]` : `${path}.${key}`);
    }
    if (Array.isArray(value)) return;
    // What quantities a container asks for is a map; another name in it is another resource.
    Object.assign(value, { tomorrow: /\.(limits|requests)$/.test(path) ? "1" : { a: 1 } });
    wanted.push(`${path}.tomorrow`);
  };
  add(rest, "spec");
  add(containers, "spec.containers");
  expect(wanted.length).toBeGreaterThan(60);
  expect(refusedFields(pod(rest, containers[0])).toSorted()).toEqual(wanted.toSorted());
});

test("a pod of another runtime is not run here, and one whose class is not there waits", async () => {
  const classes: ApiServer = {
    ...api,
    request: async (_method, path) => {
      const name = path.replace("/apis/node.k8s.io/v1/runtimeclasses/", "");
      if (name === "none") throw new ApiError(404, "NotFound", path, "");
      return await Promise.resolve({ handler: name === "ours" ? "vmsan" : "runsc" });
    },
  };
  const plan = async (runtimeClassName: string): Promise<unknown> =>
    await planPod(pod({ runtimeClassName, hostUsers: false }), host, classes, new Tokens());
  await expect(plan("ours")).resolves.toMatchObject({ sealed: false });
  await expect(plan("gvisor")).rejects.toThrow('spec.runtimeClassName: "gvisor"');
  await expect(plan("none")).rejects.toMatchObject({ code: "ERR_NODE_POD_WAITS" });
});

test("who has a token is told where the API server is", async () => {
  const token = { projected: { sources: [{ serviceAccountToken: { path: "token" } }] } };
  const spec = { volumes: [{ name: "t", ...token }] };
  const known = { ...host, apiServer: "https://[fd00::1]:6443" };
  const status = { token: "x", expirationTimestamp: new Date().toISOString() };
  const tokens = { ...api, request: async () => await Promise.resolve({ status }) };
  const mounted = { volumeMounts: [{ name: "t", mountPath: "/t" }] };
  const variables = async (container: object, of = known): Promise<unknown> =>
    (await planPod(pod(spec, container), of, tokens, new Tokens())).vm.env;
  expect(await variables(mounted)).toEqual([
    "HOSTNAME=a",
    "KUBERNETES_SERVICE_HOST=fd00::1",
    "KUBERNETES_SERVICE_PORT=6443",
    "KUBERNETES_SERVICE_PORT_HTTPS=6443",
  ]);
  expect(await variables({})).toEqual(["HOSTNAME=a"]);
  expect(await variables({ env: [{ name: "HOSTNAME", value: "b" }] })).toEqual(["HOSTNAME=b"]);
  const own = { ...mounted, env: [{ name: "KUBERNETES_SERVICE_HOST", value: "mine" }] };
  expect(await variables(own)).toContain("KUBERNETES_SERVICE_HOST=mine");
});

test("sizes, names and volumes of a VM are the pod's", async () => {
  const plan = await planPod(
    pod(
      {
        volumes: [
          { name: "e", emptyDir: {} },
          { name: "m", emptyDir: { medium: "Memory", sizeLimit: "64Mi" } },
          { name: "h", hostPath: { path: "/srv/data/" } },
        ],
        securityContext: { runAsUser: 1000, runAsGroup: 100 },
      },
      {
        resources: { limits: { cpu: "1500m", memory: "100Mi", "ephemeral-storage": "3G" } },
        volumeMounts: [
          { name: "e", mountPath: "/scratch" },
          { name: "m", mountPath: "/memory" },
          { name: "h", mountPath: "/data" },
        ],
        ports: [{ containerPort: 80, hostPort: 8080 }, { containerPort: 81 }],
      },
      { annotations: { "vmsan.io/volumes": "db:/db, cache:/cache:ro" } },
    ),
    host,
    api,
    new Tokens(),
  );
  expect(plan.vm).toMatchObject({
    vcpus: 2,
    memory: 128,
    disk: 3,
    user: "1000:100",
    ports: ["0.0.0.0:8080:80"],
    mounts: [
      { kind: "anonymous", target: "/scratch", empty: true },
      { kind: "tmpfs", target: "/memory", mode: 0o777, sizeBytes: 64 * 2 ** 20 },
      { kind: "bind", source: "/srv/data", target: "/data", readonly: true },
      { kind: "volume", name: "team.db", target: "/db", readonly: false, nocopy: false },
      { kind: "volume", name: "team.cache", target: "/cache", readonly: true, nocopy: false },
    ],
  });
  expect(plan.volumes).toEqual(["team.db", "team.cache"]);
  for (const word of ["/etc:/x", "/x", "db", "a/b:/x"]) {
    expect(() => wishesOf({ "vmsan.io/volumes": word }, "team"), word).toThrow("team.");
  }
});

test("parts of a volume are named by the container's variables, and never lead out of it", async () => {
  const plan = async (variable: string, expression: string, volume = "e"): Promise<unknown> => {
    const volumes = [
      { name: "e", emptyDir: {} },
      { name: "m", emptyDir: { medium: "Memory" } },
      { name: "c", configMap: { name: "c" } },
    ];
    const made = pod(
      { volumes },
      {
        env: [{ name: "PART", value: variable }],
        volumeMounts: [
          { name: volume, mountPath: "/whole", readOnly: true },
          { name: volume, mountPath: "/part", subPathExpr: expression },
        ],
      },
    );
    expect(refusedFields(made)).toEqual([]);
    const { vm, files } = await planPod(made, host, api, new Tokens());
    return volume === "c" ? files.places : vm.mounts;
  };
  const own = (volume: string, part: object): object[] => {
    const common =
      volume === "e" ? { kind: "anonymous", empty: true } : { kind: "tmpfs", mode: 0o777 };
    return [
      { ...common, target: "/whole", name: volume, readonly: true },
      { ...common, target: "/part", name: volume, ...part },
    ];
  };
  expect(await plan("b/./c//d", "a$(PART)/")).toEqual(own("e", { part: "ab/c/d" }));
  expect(await plan("", "$(PART)", "m")).toEqual(own("m", {}));
  expect(await plan("x", "$$(PART)")).toEqual(own("e", { part: "$(PART)" }));
  expect(await plan("a.conf", "$(PART)", "c")).toMatchObject([
    { target: "/whole", shape: "volume" },
    { target: "/part", shape: "file", files: [{ path: "a.conf" }] },
  ]);
  for (const [variable, expression] of [
    ["..", "$(PART)"],
    ["/tmp", "$(PART)"],
    ["", "$(PART)/x"],
    ["a/../../b", "$(PART)"],
    ["x", "$(OTHER)"],
    ["a\0b", "$(PART)"],
  ] as const) {
    await expect(plan(variable, expression), variable).rejects.toMatchObject({
      reason: "CreateContainerConfigError",
    });
  }
});

test("nothing is mounted below files, which hide what was there and are read-only", async () => {
  const volumes = [
    { name: "e", emptyDir: {} },
    { name: "c", configMap: { name: "c" } },
  ];
  const places = async (...at: [string, string][]): Promise<string[]> => {
    const volumeMounts = at.map(([name, mountPath]) => ({ name, mountPath }));
    const plan = await planPod(pod({ volumes }, { volumeMounts }), host, api, new Tokens());
    return plan.files.places.map(({ target }) => target);
  };
  expect(await places(["c", "/a/b/c"], ["e", "/a"], ["c", "/ab"])).toEqual(["/ab", "/a/b/c"]);
  for (const name of ["e", "c"]) {
    await expect(places([name, "/a/b"], ["c", "/a"])).rejects.toMatchObject({
      message: expect.stringContaining("/a/b is below /a") as string,
    });
  }
});

test("the group of volumes has their files, and the processes are in it", async () => {
  const spec = {
    securityContext: { fsGroup: 2000, supplementalGroups: [5, 2000] },
    volumes: [
      { name: "e", emptyDir: {} },
      { name: "m", emptyDir: { medium: "Memory" } },
      { name: "c", configMap: { name: "c", defaultMode: 0o400 } },
    ],
  };
  const volumeMounts = ["e", "m", "c"].map((name) => ({ name, mountPath: `/${name}` }));
  const plan = await planPod(pod(spec, { volumeMounts }), host, api, new Tokens());
  expect(plan.vm.mounts).toEqual([
    { kind: "anonymous", target: "/e", empty: true, gid: 2000, mode: 0o2777 },
    { kind: "tmpfs", target: "/m", gid: 2000, mode: 0o2777 },
  ]);
  expect(plan.files.places).toMatchObject([
    { target: "/c", gid: 2000, files: [{ path: "a.conf", gid: 2000, mode: 0o440 }] },
  ]);
  expect(plan.groups).toEqual([5, 2000]);
  const users = ["", "app", "1000:100", "1000", ":7"];
  expect(users.map((user) => withGroups(user, plan.groups))).toEqual([
    "0:,5,2000",
    "app:,5,2000",
    "1000:100,5,2000",
    "1000:,5,2000",
    "0:7,5,2000",
  ]);
  expect(withGroups("app", [])).toBe("app");
});

test("variables come of text; a Secret that holds none is told of by the variable's name", async () => {
  const objects: Record<string, object> = {
    configmaps: { data: { A: "1" }, binaryData: { B: "AAE=" } },
    secrets: { data: { PASS: Buffer.from("canary\0").toString("base64") } },
  };
  const having: ApiServer = {
    ...api,
    request: async (_method, path) =>
      await Promise.resolve(objects[path.split("/").at(-2) ?? ""] ?? {}),
  };
  const plan = async (container: object): Promise<string[] | undefined> =>
    (await planPod(pod({}, container), host, having, new Tokens())).vm.env;
  const configMapRef = { name: "c" };
  expect(await plan({ envFrom: [{ configMapRef }] })).toEqual(["HOSTNAME=a", "A=1"]);
  const binary = { name: "X", valueFrom: { configMapKeyRef: { name: "c", key: "B" } } };
  await expect(plan({ env: [binary] })).rejects.toThrow("couldn't find key B");
  const long = async (length: number): Promise<unknown> =>
    await plan({ env: [{ name: "LONG", value: "x".repeat(length) }] });
  await expect(long(131_066)).resolves.toHaveLength(2);
  await expect(long(131_067)).rejects.toThrow("LONG is longer than 131066 bytes");
  const failure: unknown = await plan({ envFrom: [{ secretRef: { name: "s" } }] }).catch(
    (error: unknown) => error,
  );
  // It may be changed: the next attempt finds another.
  expect(startFailure(failure)).toMatchObject({
    reason: "CreateContainerConfigError",
    lasting: false,
  });
  expect(startFailure(failure).message).toContain("PASS");
  expect(startFailure(failure).message).not.toContain("canary");
});

test("settings of the kernel are those that a VM has for itself, and names of hosts are lines", async () => {
  const sysctls = [
    { name: "net.ipv4.ip_local_port_range", value: "1024 65000" },
    { name: "kernel/shm_rmid_forced", value: "1" },
    { name: "vm.max_map_count", value: "262144" },
  ];
  const hostAliases = [
    { ip: "10.0.0.7", hostnames: ["foo", "bar.example"] },
    { ip: "10.0.0.8", hostnames: [] },
  ];
  const made = pod(
    { hostAliases, securityContext: { sysctls } },
    { securityContext: { readOnlyRootFilesystem: true }, terminationMessagePath: "/var/end" },
  );
  expect(refusedFields(made)).toEqual([]);
  const plan = await planPod(made, host, api, new Tokens());
  expect(plan.vm.sysctls).toEqual([
    "kernel.hostname=a",
    "net.ipv4.ip_local_port_range=1024 65000",
    "kernel/shm_rmid_forced=1",
    "vm.max_map_count=262144",
  ]);
  expect(plan.hostname).toBe("a");
  expect(plan.vm.env).toEqual(["HOSTNAME=a"]);
  expect(plan.hosts).toEqual(["# Entries added by HostAliases.", "10.0.0.7\tfoo\tbar.example"]);
  expect(plan.sealed).toBe(true);
  const names = ["kernel.hostname", "kernel.core_pattern", "fs.file-max", "kernel.modprobe", "net"];
  const refused = refusedFields(
    pod({ securityContext: { sysctls: names.map((name) => ({ name, value: "1" })) } }),
  );
  expect(refused).toEqual(
    names.map((name, at) => `spec.securityContext.sysctls[${at}].name: "${name}"`),
  );
  const unknown = new VmsanError({ code: "ERR_AGENT_SYSCTL", message: "net.none cannot be set" });
  expect(startFailure(unknown)).toMatchObject({ reason: "SysctlForbidden", lasting: true });
  const snapshot = { annotations: { "vmsan.io/snapshot": "s" } };
  const restored = pod({ securityContext: { sysctls } }, {}, snapshot);
  await expect(planPod(restored, host, api, new Tokens())).rejects.toThrow("sysctls");
});

test.each([
  [
    "a directory below an allowed one",
    { volumes: [{ name: "v", hostPath: { path: "/srv/data/x" } }] },
  ],
  [
    "an allowed one by a detour",
    { volumes: [{ name: "v", hostPath: { path: "/srv/x/../data" } }] },
  ],
  [
    "a file outside of its volume",
    {
      volumes: [{ name: "v", configMap: { name: "c", items: [{ key: "a.conf", path: "../x" }] } }],
    },
  ],
  [
    "an absolute file",
    {
      volumes: [
        { name: "v", configMap: { name: "c", items: [{ key: "a.conf", path: "/etc/x" }] } },
      ],
    },
  ],
])("%s is refused", async (_what, spec) => {
  const made = pod(spec, { volumeMounts: [{ name: "v", mountPath: "/v" }] });
  await expect(planPod(made, host, api, new Tokens())).rejects.toMatchObject({
    code: "ERR_NODE_POD_REFUSED",
  });
});

test("more than a VM can have is refused", async () => {
  for (const limits of [{ cpu: "33" }, { memory: "1Ti" }, { cpu: "many" }]) {
    const made = pod({}, { resources: { limits } });
    await expect(planPod(made, host, api, new Tokens())).rejects.toMatchObject({
      code: "ERR_NODE_POD_REFUSED",
    });
  }
});

test.each(["oci:/srv/a", "docker-archive:/srv/a.tar", "docker-daemon:a", "rootfs:/srv/a.tar"])(
  "an image that is the host's own is refused: %s",
  async (image) => {
    await expect(planPod(pod({}, { image }), host, api, new Tokens())).rejects.toMatchObject({
      reason: "InvalidImageName",
    });
  },
);

test("credentials are shown to the registry alone that they are for", () => {
  expect(isFor("https://index.docker.io/v1/", "alpine")).toBe(true);
  expect(isFor("https://index.docker.io/v1/", "ghcr.io/a/b")).toBe(false);
  expect(isFor("ghcr.io", "ghcr.io/a/b:1")).toBe(true);
  expect(isFor("https://ghcr.io/a", "ghcr.io/a/b")).toBe(true);
  expect(isFor("ghcr.io/a", "ghcr.io/ab/c")).toBe(false);
  expect(isFor("*.example.com", "one.example.com/a")).toBe(true);
  expect(isFor("*.example.com", "one.two.example.com/a")).toBe(false);
  expect(isFor("host:5000", "host/a/b")).toBe(false);
  expect(isFor("host:5000", "host:5000/a")).toBe(true);
});

test("how long a pod stays bound to a node that is silent", () => {
  const seconds = (...tolerations: object[]): number | undefined =>
    toleratedSeconds(pod({ tolerations }));
  const both = ["unreachable", "not-ready"].map((name) => `node.kubernetes.io/${name}`);
  const usual = both.map((key) => ({
    key,
    operator: "Exists",
    effect: "NoExecute",
    tolerationSeconds: 300,
  }));
  expect(seconds()).toBe(0);
  expect(seconds(...usual)).toBe(300);
  expect(seconds(usual[0] ?? {})).toBe(0);
  expect(seconds({ operator: "Exists" })).toBeUndefined();
  expect(seconds({ operator: "Exists", effect: "NoSchedule" })).toBe(0);
  expect(seconds({ operator: "Exists" }, ...usual)).toBe(300);
});

test("a pod has its host's address when it says so, and while it runs", () => {
  const told = (annotation: string | undefined, running: boolean): unknown => {
    const annotations = annotation === undefined ? {} : { "vmsan.io/pod-ip": annotation };
    const given = pod({}, {}, { annotations });
    const state: PodState = {
      phase: "Running",
      startTime: "",
      ...(running ? { running: { startedAt: "" } } : { waiting: { reason: "CrashLoopBackOff" } }),
      restarts: 0,
      started: running,
      ready: running,
      imageID: "",
    };
    return (statusOf(given, state, new Conditions(), host) as { podIP?: string }).podIP;
  };
  expect([told("host", true), told("host", false), told(undefined, true)]).toEqual([
    "10.0.0.1",
    undefined,
    undefined,
  ]);
  expect(refusedFields(pod({}, {}, { annotations: { "vmsan.io/pod-ip": "host" } }))).toEqual([]);
  const other = pod({}, {}, { annotations: { "vmsan.io/pod-ip": "10.0.0.9" } });
  expect(refusedFields(other)).toEqual([
    "metadata.annotations[vmsan.io/pod-ip]: host is the one value",
  ]);
});

test("the account of a pod is known by its object, and where nodes may not read that by what a token of it says", async () => {
  const claims = (uid: unknown): string =>
    Buffer.from(JSON.stringify({ "kubernetes.io": { serviceaccount: { uid } } })).toString(
      "base64url",
    );
  const asked: unknown[] = [];
  let status = 403;
  const projected = { sources: [{ serviceAccountToken: { path: "token", audience: "vault" } }] };
  const of = async (token: string, volumes: object[] = []): Promise<string> => {
    const request: ApiServer["request"] = async (method, path, options) => {
      if (method === "GET") {
        if (status !== 200) throw new ApiError(status, "", "GET", "no");
        return await Promise.resolve({ metadata: { uid: `of ${path}` } });
      }
      asked.push([method, path, options?.body]);
      return await Promise.resolve({ status: { token } });
    };
    const named = pod({ serviceAccountName: "agent", volumes });
    return await new References({ ...api, request }, named).accountUid();
  };
  expect(await of(`head.${claims("1-2")}.signature`)).toBe("1-2");
  expect(asked).toEqual([
    [
      "POST",
      "/api/v1/namespaces/team/serviceaccounts/agent/token",
      // For nothing else than to be read.
      expect.objectContaining({
        spec: {
          audiences: [],
          expirationSeconds: 600,
          boundObjectRef: { apiVersion: "v1", kind: "Pod", name: "a", uid: "0-1" },
        },
      }),
    ],
  ]);
  await of(`head.${claims("1-2")}.signature`, [{ name: "v", projected }]);
  expect(asked[1]).toMatchObject([{}, {}, { spec: { audiences: ["vault"] } }]);
  status = 404;
  await expect(of("none")).rejects.toMatchObject({ status: 404 });
  status = 200;
  expect(await of("none")).toBe("of /api/v1/namespaces/team/serviceaccounts/agent");
  status = 403;
  await expect(of("opaque")).rejects.toThrow();
  await expect(of(`head.${claims(1)}.signature`)).rejects.toMatchObject({
    code: "ERR_NODE_OBJECT",
  });
});
