/**
 * vmsan hosts as nodes of a real Kubernetes: its own control plane, three hosts in network namespaces, two kubectl.
 * Two hosts have the fake driver, for all that goes on around guests; pods on the third boot.
 */
import { randomBytes } from "node:crypto";
import { readFile, readdir, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { Cluster } from "../../cluster/cluster.ts";
import type { CallOptions, Ended } from "../../cluster/cluster.ts";
import { ClusterGateway } from "../../cluster/gateway.ts";
import { Host } from "../../cluster/host.ts";
import { killRounds } from "../../cluster/kills.ts";
import { REAL, deployment, pod, podSpec } from "../../cluster/objects.ts";
import type { PodList } from "../../cluster/objects.ts";
import { IMAGE, toolsArchive } from "../../cluster/tools-image.ts";
import { temporary } from "../../fixtures/ladder.ts";
import { vmsanBin } from "../support.ts";

// Many pods share two cores with whatever else the machine does.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 1_800_000 });

const place = temporary();
const examples = resolve(import.meta.dirname, "../../../examples/cluster");
let cluster: Cluster;
let hosts: Host[] = [];
/** Archives of the hosts' images. */
let images: string[] = [];

beforeAll(async () => {
  // Without the control plane this fails: there is nothing to be skipped.
  cluster = await Cluster.start();
  const made = [await toolsArchive(place.path, "1"), await toolsArchive(place.path, "2")];
  images = made.map(({ path }) => path);
  const fake = { driver: "fake", archives: images } as const;
  // One host is known by a ServiceAccount, with no more rights than the example gives.
  for (const file of ["service-account.yaml", "peers.yaml"]) {
    await cluster.ok(["apply", "-f", join(examples, file)]);
  }
  hosts = await Promise.all([
    Host.start(cluster, "host-1", { ...fake, words: ["--peers"] }),
    Host.start(cluster, "host-2", { ...fake, account: "kube-system:vmsan-node" }),
    Host.start(cluster, "host-3", { driver: "auto", archives: images, words: ["--peers"] }),
  ]);
  await cluster.ok(["wait", "--for=condition=Ready", "node", "--all", "--timeout=120s"]);
});

afterAll(async () => await cluster?.close());

/** Wait until a pod is ready. */
async function ready(name: string): Promise<void> {
  await cluster.ok(["wait", "--for=condition=Ready", `pod/${name}`, "--timeout=240s"], {
    timeoutMs: 300_000,
  });
}

test("the hosts are nodes, to the oldest kubectl and the newest", async () => {
  for (const version of ["oldest", "newest"] as const) {
    const text = await cluster.ok(["get", "nodes", "--no-headers"], { version });
    expect(text.match(/^host-\d +Ready /gm)).toHaveLength(3);
  }
  for (const { name } of hosts) {
    expect(await cluster.ok(["get", "--raw", `/api/v1/nodes/${name}/proxy/healthz`])).toBe("ok");
  }
});

test("layers of images: for other nodes alone, who see which others there are", async () => {
  const [host] = hosts;
  const [layer] = (await host?.vmsan.images.inspect(`${IMAGE}:1`))?.layers ?? [];
  const { newest } = cluster.programs.kubectl;
  const as = async (who: string, ...words: string[]): Promise<Ended> =>
    await cluster.inHub([
      newest,
      `--kubeconfig=${join(cluster.dir, `${who}.kubeconfig`)}`,
      ...words,
    ]);
  const nodes = JSON.parse(
    (
      await as("host-3", "get", "nodes", "-l", "vmsan.io/node=true", "-o", "json")
    ).stdout.toString(),
  ) as { items: { metadata: { name: string }; status: { addresses: { address: string }[] } }[] };
  const found = nodes.items.find(({ metadata }) => metadata.name === "host-1");
  const raw = ["get", "--raw", `/v2/node/blobs/${layer?.digest}`];
  const server = `--server=https://${found?.status.addresses[0]?.address}:10250`;
  const got = await as("host-3", server, ...raw);
  expect(`sha256:${Host.digest(got.stdout)}`).toBe(layer?.digest);
  expect((await as("admin", server, ...raw)).stderr).toContain("may not get nodes/blobs");
});

test("a deployment is spread over the hosts; logs of each", async () => {
  const script = "echo here; while true; do sleep 1000; done";
  await cluster.apply({
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name: "spread" },
    spec: {
      replicas: 3,
      selector: { matchLabels: { app: "spread" } },
      template: {
        metadata: { labels: { app: "spread" } },
        spec: {
          ...podSpec({ container: { command: ["sh", "-c", script] } }, {}),
          topologySpreadConstraints: [
            {
              maxSkew: 1,
              topologyKey: "kubernetes.io/hostname",
              whenUnsatisfiable: "DoNotSchedule",
              labelSelector: { matchLabels: { app: "spread" } },
            },
          ],
        },
      },
    },
  });
  await cluster.ok(["rollout", "status", "deployment/spread", "--timeout=240s"], {
    timeoutMs: 300_000,
  });
  const { items } = await cluster.json<PodList>(["get", "pods", "-l", "app=spread"]);
  expect(items.map(({ spec }) => spec.nodeName ?? "").sort()).toEqual([
    "host-1",
    "host-2",
    "host-3",
  ]);
  for (const { metadata } of items) {
    for (const version of ["oldest", "newest"] as const) {
      // A pod runs before its command has printed anything.
      await cluster.until(`the log of ${metadata.name} is there`, async () => {
        return (await cluster.ok(["logs", metadata.name], { version })) === "here\n";
      });
    }
  }
});

test("in a guest: commands, 3 MB through their input, a terminal, files, a port, figures", async () => {
  await cluster.apply(
    pod(
      "web",
      {
        hostname: "front",
        container: { command: ["busybox", "httpd", "-f", "-p", "8080", "-h", "/www"] },
      },
      REAL,
    ),
  );
  await ready("web");
  // Its name, wherever programs look for it.
  const look =
    "cat /proc/sys/kernel/hostname /etc/hostname; echo $HOSTNAME; grep -c front /etc/hosts";
  expect(await cluster.ok(["exec", "web", "--", "sh", "-c", look])).toBe(
    "front\nfront\nfront\n1\n",
  );
  const data = randomBytes(3 << 20);
  for (const version of ["oldest", "newest"] as const) {
    const failed = await cluster.call(
      ["exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7"],
      {
        version,
      },
    );
    expect([failed.code, failed.stdout.toString()]).toEqual([7, "out\n"]);
    expect(failed.stderr).toMatch(/^err\n/);
    const sum = await cluster.ok(["exec", "-i", "web", "--", "sha256sum"], {
      version,
      input: data,
    });
    expect(sum).toBe(`${Host.digest(data)}  -\n`);
    // Files, both ways.
    const [from, back] = [join(place.path, `from-${version}`), join(place.path, `back-${version}`)];
    await writeFile(from, data);
    await cluster.ok(["cp", from, "web:/tmp/file"], { version });
    await cluster.ok(["cp", "web:/tmp/file", back], { version });
    expect(Host.digest(await readFile(back))).toBe(Host.digest(data));
    // A terminal, of a size, which kubectl tells beside the command: it may come after its start.
    const kubectl = cluster.programs.kubectl[version];
    const inside = `${kubectl} --kubeconfig=${cluster.admin} exec -it web -- sh -c 'tty; until stty size | grep "33 111"; do :; done; read x; echo got $x; exit 3'`;
    const terminal = await cluster.inHub(
      ["script", "-qec", `stty rows 33 cols 111; ${inside}`, "/dev/null"],
      { input: "word\n" },
    );
    expect(terminal.code).toBe(3);
    // What is typed is echoed whenever it comes, also between a line and its end (findings/tty-echo-inside-line.sh).
    expect(terminal.stdout.toString()).toMatch(/\/dev\/pts\/\d+[^]*33 111[^]*got word\r\n/);
  }
  for (const version of ["oldest", "newest"] as const) {
    const words = ["port-forward", "pod/web", "18080:8080"];
    await forwarded(async (options) => await cluster.call(words, { version, ...options }));
  }
  type Summary = { pods: { podRef: { name: string }; memory: { workingSetBytes: number } }[] };
  const summary = JSON.parse(
    await cluster.ok(["get", "--raw", "/api/v1/nodes/host-3/proxy/stats/summary"]),
  ) as Summary;
  const found = summary.pods.find(({ podRef }) => podRef.name === "web");
  expect(found?.memory.workingSetBytes).toBeGreaterThan(1 << 20);
  const text = await cluster.ok(["get", "--raw", "/api/v1/nodes/host-3/proxy/metrics/resource"]);
  expect(text).toMatch(
    /^container_cpu_usage_seconds_total\{container="main",namespace="default",pod="web"\} /m,
  );
});

/** A port of a guest at the hub's port 18080, by a program that forwards it until it is interrupted. */
async function forwarded(forward: (options: CallOptions) => Promise<unknown>): Promise<void> {
  const stop = Promise.withResolvers<() => void>();
  const ended = forward({ onProcess: (child) => stop.resolve(() => child.kill("SIGINT")) });
  const fetch =
    "fetch('http://127.0.0.1:18080/').then(r=>r.text()).then(t=>process.stdout.write(t))";
  await cluster.until("the forwarded port answers", async () => {
    const { code, stdout } = await cluster.inHub([process.execPath, "-e", fetch]);
    return code === 0 && stdout.toString() === "from the guest\n";
  });
  (await stop.promise)();
  await ended;
}

/** Run vmsan itself where the control plane is. */
async function own(words: readonly string[], options: CallOptions = {}): Promise<Ended> {
  const argv = [vmsanBin, "--cluster", `--kubeconfig=${cluster.admin}`, ...words];
  return await cluster.inHub(argv, { timeoutMs: 300_000, ...options });
}

/** As {@link own}, which must succeed. @returns its output */
async function ownOk(words: readonly string[], options: CallOptions = {}): Promise<string> {
  const { code, stdout, stderr } = await own(words, options);
  if (code === 0) return stdout.toString();
  throw new Error(`vmsan --cluster ${words.join(" ")}: ${code}\n${stderr}${stdout.toString()}`);
}

test("vmsan's own commands on the cluster: a VM on a real host, and one for a single command", async () => {
  // Where guests boot.
  await cluster.ok(["cordon", "host-1", "host-2"]);
  await ownOk(["create", "--from-image", `${IMAGE}:1`, "--name", "own", "--memory", "256"]);
  await cluster.ok(["uncordon", "host-1", "host-2"]);
  const script = "echo out; echo err >&2; exit 7";
  const failed = await own(["exec", "own", "--", "sh", "-c", script]);
  expect([failed.code, failed.stdout.toString(), failed.stderr]).toEqual([7, "out\n", "err\n"]);
  const data = randomBytes(3 << 20);
  const sum = await ownOk(["exec", "own", "--", "sha256sum"], { input: data });
  expect(sum).toBe(`${Host.digest(data)}  -\n`);
  const [from, back] = [join(place.path, "own-from"), join(place.path, "own-back")];
  await writeFile(from, data);
  await ownOk(["cp", from, "own:/tmp/file"]);
  await ownOk(["cp", "own:/tmp/file", back]);
  expect(Host.digest(await readFile(back))).toBe(Host.digest(data));
  await ownOk(["exec", "-d", "own", "--", "busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]);
  await forwarded(async (options) => await own(["port-forward", "own", "18080:8080"], options));
  await ownOk(["network", "own", "--network-policy", "deny-all"]);
  const { vms } = JSON.parse(await ownOk(["list", "--json"])) as {
    vms: { id: string; name: string; status: string }[];
  };
  expect(vms).toContainEqual(expect.objectContaining({ name: "own", status: "running" }));
  const fork = await own(["fork", "own", "--json"]);
  expect(JSON.parse(fork.stdout.toString())).toMatchObject({
    error: { code: "ERR_CLUSTER_UNSUPPORTED" },
  });
  await ownOk(["rm", "-f", "own"]);
  expect((await cluster.call(["get", "pod", "own"])).code).not.toBe(0);
  const once = await own(["run", `${IMAGE}:1`, "--", "sh", "-c", "echo once; exit 3"]);
  expect([once.code, once.stdout.toString()]).toEqual([3, "once\n"]);
  expect(await cluster.ok(["get", "pods", "-l", "vmsan.io/vm", "-o", "name"])).toBe("");
});

test("attached to a command's input and output", async () => {
  const words = [
    "run",
    "talk",
    "-i",
    "--rm",
    "--restart=Never",
    `--image=${IMAGE}:1`,
    "--pod-running-timeout=3m",
  ];
  const overrides = JSON.stringify({
    spec: podSpec({
      container: { command: ["sh", "-c", "read x; echo got $x"], stdin: true, stdinOnce: true },
    }),
  });
  const talk = await cluster.call([...words, `--overrides=${overrides}`], { input: "word\n" });
  expect(talk.stdout.toString()).toContain("got word\n");
});

test("what a quota does not allow is refused, and what vmsan cannot do is told", async () => {
  await cluster.apply(
    { apiVersion: "v1", kind: "Namespace", metadata: { name: "small" } },
    {
      apiVersion: "v1",
      kind: "ResourceQuota",
      metadata: { name: "one", namespace: "small" },
      spec: { hard: { pods: "1" } },
    },
  );
  await cluster.until("the namespace has its account", async () => {
    return (await cluster.call(["-n", "small", "get", "serviceaccount", "default"])).code === 0;
  });
  const make = async (name: string): Promise<{ code: number | null; stderr: string }> =>
    await cluster.call(["-n", "small", "create", "-f", "-"], { input: JSON.stringify(pod(name)) });
  expect((await make("first")).code).toBe(0);
  const second = await make("second");
  expect(second.code).not.toBe(0);
  expect(second.stderr).toContain("exceeded quota");
  const kind = "RuntimeClass";
  for (const handler of ["vmsan", "runsc"]) {
    const metadata = { name: `of-${handler}` };
    await cluster.apply({ apiVersion: "node.k8s.io/v1", kind, metadata, handler });
  }
  const bundle = { clusterTrustBundle: { name: "a", path: "b", optional: true } };
  const odd = {
    hostNetwork: { hostNetwork: true },
    runtimeClassName: { runtimeClassName: "of-runsc" },
    clusterTrustBundle: { volumes: [{ name: "v", projected: { sources: [bundle] } }] },
  };
  for (const [index, [field, spec]] of Object.entries(odd).entries()) {
    const name = `odd-${index}`;
    await cluster.apply(pod(name, spec));
    await cluster.until(`an event names ${field}`, async () => {
      const of = `--field-selector=involvedObject.name=${name}`;
      return (await cluster.ok(["get", "events", of])).includes(field);
    });
    await cluster.ok(["delete", "pod", name]);
  }
  // A node by its certificate may look at classes, and so may one by its ServiceAccount.
  for (const [name, nodeName] of ["host-1", "host-2"].entries()) {
    await cluster.apply(pod(`even-${name}`, { runtimeClassName: "of-vmsan", nodeName }));
    await ready(`even-${name}`);
    await cluster.ok(["delete", "pod", `even-${name}`]);
  }
  await cluster.ok(["delete", "namespace", "small", "--wait=false"]);
});

test("probes: not ready without its file, started again when it is sick", async () => {
  const file = join(place.path, "probed");
  const probe = (path: string): object => ({
    exec: { command: ["cat", path] },
    periodSeconds: 1,
    failureThreshold: 1,
  });
  const healthy = `${file}-healthy`;
  await cluster.apply(
    pod("probed", {
      container: {
        command: ["sh", "-c", `touch ${healthy}; exec sleep 1000000`],
        readinessProbe: probe(file),
        livenessProbe: { ...probe(healthy), initialDelaySeconds: 2 },
      },
    }),
  );
  await cluster.ok(["wait", "--for=condition=Initialized", "pod/probed", "--timeout=120s"]);
  const isReady = async (): Promise<boolean> =>
    (await cluster.call(["wait", "--for=condition=Ready", "pod/probed", "--timeout=0s"])).code ===
    0;
  expect(await isReady()).toBe(false);
  await cluster.until(
    "it runs",
    async () => (await cluster.call(["exec", "probed", "--", "touch", file])).code === 0,
  );
  await ready("probed");
  await cluster.ok(["exec", "probed", "--", "rm", file]);
  await cluster.until("it is not ready any more", async () => !(await isReady()));
  await cluster.ok(["exec", "probed", "--", "rm", healthy]);
  await cluster.until("it was started again", async () => {
    const { status } = await cluster.json<PodList["items"][number]>(["get", "pod", "probed"]);
    return (status.containerStatuses?.[0]?.restartCount ?? 0) >= 1;
  });
  await cluster.ok(["delete", "pod", "probed"]);
});

test("jobs end; one that fails says so", async () => {
  const job = (name: string, command: string[], spec: object): object => ({
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: { name },
    spec: {
      ...spec,
      template: { spec: podSpec({ restartPolicy: "Never", container: { command } }) },
    },
  });
  await cluster.apply(
    job("good", ["sh", "-c", "echo done"], { completions: 3, parallelism: 3 }),
    job("bad", ["sh", "-c", "exit 3"], { backoffLimit: 0 }),
  );
  await cluster.ok(["wait", "--for=condition=Complete", "job/good", "--timeout=240s"], {
    timeoutMs: 300_000,
  });
  await cluster.ok(["wait", "--for=condition=Failed", "job/bad", "--timeout=240s"], {
    timeoutMs: 300_000,
  });
  expect(await cluster.ok(["logs", "job/good"])).toBe("done\n");
  await cluster.ok(["delete", "job", "good", "bad"]);
});

test("a rollout to another image, and a drained host", async () => {
  const words = ["deployment/spread", `main=${IMAGE}:2`];
  await cluster.ok(["set", "image", ...words]);
  await cluster.ok(["rollout", "status", "deployment/spread", "--timeout=300s"], {
    timeoutMs: 360_000,
  });
  await cluster.ok(["delete", "deployment", "spread", "--cascade=foreground"], {
    timeoutMs: 300_000,
  });
  await cluster.apply(deployment("moved", 4));
  await cluster.ok(["rollout", "status", "deployment/moved", "--timeout=300s"], {
    timeoutMs: 360_000,
  });
  await cluster.ok(["drain", "host-1", "--force", "--delete-emptydir-data", "--timeout=240s"], {
    timeoutMs: 300_000,
  });
  await cluster.ok(["rollout", "status", "deployment/moved", "--timeout=300s"], {
    timeoutMs: 360_000,
  });
  const { items } = await cluster.json<PodList>(["get", "pods", "-l", "app=moved"]);
  const living = items.filter(({ metadata }) => metadata.deletionTimestamp === undefined);
  expect(living.map(({ spec }) => spec.nodeName)).toEqual(
    Array.from({ length: 4 }, () => "host-2"),
  );
  await cluster.until("host-1 has no VM", async () => (await hosts[0]?.vms())?.length === 0);
  await cluster.ok(["uncordon", "host-1"]);
});

test("agent-sandbox, unmodified: a sandbox, suspended and back; a pool, and a claim of it", async () => {
  const definitions = cluster.programs.sandboxDefinitions;
  await cluster.ok(["apply", "--server-side", "-f", definitions]);
  // The controller ends when they are not served yet.
  await cluster.ok(["wait", "--for=condition=Established", "crd", "--all", "--timeout=120s"]);
  await cluster.ok(["create", "namespace", "agent-sandbox-system"]);
  cluster.startSandboxController();
  const sandboxes = join(examples, "agent-sandbox");
  const example = async (name: string): Promise<string> =>
    (await readFile(join(sandboxes, name), "utf8"))
      .replaceAll("python:3.13-slim", `${IMAGE}:1`)
      .replaceAll('"sleep", "infinity"', '"sleep", "1000000"')
      .replaceAll('vmsan.io/node: "true"', 'driver: "fake"');
  expect((await readdir(sandboxes)).toSorted()).toEqual([
    "claim.yaml",
    "pool.yaml",
    "sandbox.yaml",
  ]);
  const apply = async (name: string): Promise<void> => {
    await cluster.ok(["apply", "-f", "-"], { input: await example(name) });
  };
  await apply("sandbox.yaml");
  const settled = async (what: string): Promise<void> => {
    await cluster.ok(["wait", "--for=condition=Ready", what, "--timeout=240s"], {
      timeoutMs: 300_000,
    });
  };
  await settled("sandbox/shell");
  expect(await cluster.ok(["exec", "shell", "--", "echo", "hi"])).toBe("hi\n");
  const mode = async (operatingMode: string): Promise<void> => {
    const patch = JSON.stringify({ spec: { operatingMode } });
    await cluster.ok(["patch", "sandbox", "shell", "--type=merge", "-p", patch]);
  };
  await mode("Suspended");
  await cluster.ok(["wait", "--for=delete", "pod/shell", "--timeout=120s"]);
  await mode("Running");
  await settled("sandbox/shell");
  await apply("pool.yaml");
  await cluster.until("the pool is full", async () => {
    const pool = await cluster.json<{ status?: { readyReplicas?: number } }>([
      "get",
      "sandboxwarmpool",
      "python",
    ]);
    return pool.status?.readyReplicas === 2;
  });
  await apply("claim.yaml");
  await settled("sandboxclaim/task-1");
  const claim = await cluster.json<{ status: { sandbox: { name: string } } }>([
    "get",
    "sandboxclaim",
    "task-1",
  ]);
  expect(await cluster.ok(["exec", claim.status.sandbox.name, "--", "echo", "claimed"])).toBe(
    "claimed\n",
  );
  await cluster.ok(["delete", "sandboxclaim,sandboxwarmpool,sandboxtemplate,sandbox", "--all"]);
});

test("a sandbox whose memory is kept: suspended in a guest, it goes on where it was, on its host", async () => {
  // A word by chance, in the shell's memory alone.
  const script =
    "word=$(cat /proc/sys/kernel/random/uuid); while true; do echo $word > /word; sleep 0.1; done";
  const annotations = { "vmsan.io/pod-ip": "host", "vmsan.io/suspend": "memory" };
  const template = {
    metadata: { annotations },
    spec: podSpec(
      { container: { command: ["sh", "-c", script] }, automountServiceAccountToken: true },
      REAL,
    ),
  };
  await cluster.apply({
    apiVersion: "agents.x-k8s.io/v1beta1",
    kind: "Sandbox",
    metadata: { name: "thinker" },
    spec: { podTemplate: template },
  });
  const settled = async (): Promise<void> => {
    await cluster.ok(["wait", "--for=condition=Ready", "sandbox/thinker", "--timeout=240s"], {
      timeoutMs: 300_000,
    });
  };
  const mode = async (operatingMode: string): Promise<void> => {
    const patch = JSON.stringify({ spec: { operatingMode } });
    await cluster.ok(["patch", "sandbox", "thinker", "--type=merge", "-p", patch]);
  };
  const token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
  const look = async (path: string): Promise<string> => {
    return await cluster.ok(["exec", "thinker", "--", "cat", path]);
  };
  await settled();
  const said = async (): Promise<string> => {
    // It may not have begun, or have cut its file this moment.
    const { stdout } = await cluster.call(["exec", "thinker", "--", "cat", "/word"]);
    return stdout.toString().trim();
  };
  let word = "";
  await cluster.until("it says its word", async () => (word = await said()).length === 36);
  const before = await look(token);
  await mode("Suspended");
  await cluster.ok(["wait", "--for=delete", "pod/thinker", "--timeout=120s"]);
  const told = await cluster.ok(["get", "events", "--field-selector=involvedObject.name=thinker"]);
  expect(
    (await hosts[2]?.vms())?.map(({ status }) => status),
    told,
  ).toContain("suspended");
  await mode("Running");
  await settled();
  await cluster.ok(["exec", "thinker", "--", "rm", "/word"]);
  await cluster.until("it says the same", async () => (await said()) === word);
  // What is a pod's own is the new pod's.
  await cluster.until("it has a token of its own", async () => (await look(token)) !== before);
  const selector = "--field-selector=involvedObject.name=thinker";
  await cluster.until("both are told", async () => {
    const events = await cluster.ok(["get", "events", selector]);
    return / Suspended /.test(events) && / Resumed /.test(events);
  });
  await cluster.ok(["delete", "sandbox", "thinker"]);
});

test("a gateway before the cluster: E2B's SDK and Docker's command line have pods for VMs", async () => {
  // With the variable in guests; otherwise commands "in a pod" run on this machine.
  const guests = process.env["VMSAN_TEST_CLUSTER_GUESTS"] !== undefined;
  const away = guests ? ["host-1", "host-2"] : ["host-3"];
  await cluster.ok(["cordon", ...away]);
  try {
    const gateway = await ClusterGateway.start(cluster, `${IMAGE}:1`);
    const session = await gateway.e2b(guests ? "/tmp/of-e2b" : join(place.path, "of-e2b"));
    expect(session).toMatchObject({ exitCode: 3, same: true, ids: [true], gone: true });
    expect(session.stdout).toMatch(/^set\n\d+\n$/);
    expect(session.counted).toBe(String(1 << 20));
    expect(session.pause).toContain("do not pause");
    const { docker } = gateway;
    await docker.ok("load", "-i", images[0] ?? "");
    const script = "echo said; exec sleep 1000000";
    const image = `${IMAGE}:1`;
    const id = await docker.ok("run", "-d", "--name", "one", image, "sh", "-c", script);
    const object = `pod/${id.slice(0, 12)}`;
    await cluster.ok(["get", object]);
    await cluster.until(
      "it has printed",
      async () => (await docker.ok("logs", "one")) === "said\n",
    );
    expect((await docker.run(["exec", "one", "sh", "-c", "exit 4"])).code).toBe(4);
    const [from, back] = [join(place.path, "docker-from"), join(place.path, "docker-back")];
    const inside = guests ? "/tmp/file" : join(place.path, "docker-inside");
    await writeFile(from, "copied");
    await docker.ok("cp", from, `one:${inside}`);
    await docker.ok("cp", `one:${inside}`, back);
    expect(await readFile(back, "utf8")).toBe("copied");
    await docker.fails("not offered on a cluster", "pause", "one");
    await docker.ok("rm", "-f", "one");
    expect((await cluster.call(["get", object])).code).not.toBe(0);
  } finally {
    await cluster.ok(["uncordon", ...away]);
  }
});

test("kills at random moments: every pod has its VM, every VM its pod, and commands go on", async () => {
  const script = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.1; done";
  await cluster.apply(pod("steady", { container: { command: ["sh", "-c", script] } }));
  await ready("steady");
  await cluster.ok(["rollout", "status", "deployment/moved", "--timeout=300s"], {
    timeoutMs: 360_000,
  });
  // Many more: test/cluster/soak.ts.
  const wish = {
    rounds: 6,
    deployments: [{ name: "moved", replicas: [6, 4] }],
    order: "turns",
  } as const;
  for await (const { round } of killRounds(cluster, hosts, wish)) expect(round).toBeLessThan(6);
  const { status } = await cluster.json<PodList["items"][number]>(["get", "pod", "steady"]);
  expect(status.containerStatuses?.[0]?.restartCount).toBe(0);
  const lines = (await cluster.ok(["logs", "steady"])).trim().split("\n");
  expect(lines.length).toBeGreaterThan(20);
  expect(lines).toEqual(lines.map((_line, index) => String(index)));
});

test("a host that is cut off: its VM stands still before another host has the pod", async () => {
  const [first, second] = hosts;
  if (first === undefined || second === undefined) throw new Error("no hosts");
  const soon = ["not-ready", "unreachable"].map((key) => ({
    key: `node.kubernetes.io/${key}`,
    operator: "Exists",
    effect: "NoExecute",
    tolerationSeconds: 1,
  }));
  await cluster.ok(["cordon", second.name]);
  const tolerations = [{ key: "vmsan.io/node", operator: "Exists" }, ...soon];
  await cluster.apply(deployment("lone", 1, { tolerations }));
  await cluster.ok(["rollout", "status", "deployment/lone", "--timeout=240s"], {
    timeoutMs: 300_000,
  });
  await cluster.ok(["uncordon", second.name]);
  const mine = async (host: Host): Promise<string[]> =>
    (await host.vms())
      .filter(({ labels }) => labels["vmsan.io/pod-name"]?.startsWith("lone-"))
      .map(({ status }) => status);
  expect(await mine(first)).toEqual(["running"]);
  first.cut(true);
  try {
    await cluster.until(
      "the other host has a VM for it",
      async () => (await mine(second)).length > 0,
    );
    expect(await mine(first)).not.toContain("running");
  } finally {
    first.cut(false);
  }
  await cluster.until(
    "the VM that was given up is gone",
    async () => (await mine(first)).length === 0,
  );
  expect(await mine(second)).toEqual(["running"]);
});
