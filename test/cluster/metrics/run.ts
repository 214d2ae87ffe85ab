/**
 * `kubectl top` with the real metrics-server, built from its module with the libraries that it names itself: a control plane that hands
 * `metrics.k8s.io` on to it, a host that boots a pod which works.
 *
 *   node test/cluster/metrics/run.ts      with the kernel of the VMSAN_DIR that is set; as root
 *
 * Prints what kubectl shows.
 */
import { join } from "node:path";
import { bench } from "../../../bench/lib/bench.ts";
import { Cluster } from "../cluster.ts";
import { Host } from "../host.ts";
import { REAL, pod } from "../objects.ts";
import { metricsServer } from "../programs.ts";
import { toolsArchive } from "../tools-image.ts";

const NAMESPACE = "kube-system";
const ACCOUNT = "metrics-server";
const PORT = 4443;
const RBAC = "rbac.authorization.k8s.io";

/** What binds a role to the server's account. */
function bound(kind: "RoleBinding" | "ClusterRoleBinding", name: string, role: string): object {
  return {
    apiVersion: `${RBAC}/v1`,
    kind,
    metadata: { name, ...(kind === "RoleBinding" ? { namespace: NAMESPACE } : {}) },
    roleRef: {
      apiGroup: RBAC,
      kind: kind === "RoleBinding" ? "Role" : "ClusterRole",
      name: role,
    },
    subjects: [{ kind: "ServiceAccount", name: ACCOUNT, namespace: NAMESPACE }],
  };
}

/** Its account with the rights that its own manifests give, and the way to it: there are no Services here. */
function objects(address: string): object[] {
  const service = { name: "metrics-server", namespace: NAMESPACE };
  return [
    { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: ACCOUNT, namespace: NAMESPACE } },
    {
      apiVersion: `${RBAC}/v1`,
      kind: "ClusterRole",
      metadata: { name: "system:metrics-server" },
      rules: [
        { apiGroups: [""], resources: ["nodes/metrics"], verbs: ["get"] },
        { apiGroups: [""], resources: ["pods", "nodes"], verbs: ["get", "list", "watch"] },
      ],
    },
    bound("ClusterRoleBinding", "system:metrics-server", "system:metrics-server"),
    bound("ClusterRoleBinding", "metrics-server:delegator", "system:auth-delegator"),
    bound("RoleBinding", "metrics-server-reader", "extension-apiserver-authentication-reader"),
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: service,
      spec: { ports: [{ name: "https", port: 443, targetPort: PORT }] },
    },
    {
      apiVersion: "discovery.k8s.io/v1",
      kind: "EndpointSlice",
      metadata: {
        name: "metrics-server-1",
        namespace: NAMESPACE,
        labels: { "kubernetes.io/service-name": service.name },
      },
      addressType: "IPv4",
      ports: [{ name: "https", port: PORT, protocol: "TCP" }],
      endpoints: [{ addresses: [address], conditions: { ready: true } }],
    },
    {
      apiVersion: "apiregistration.k8s.io/v1",
      kind: "APIService",
      metadata: { name: "v1beta1.metrics.k8s.io" },
      spec: {
        group: "metrics.k8s.io",
        version: "v1beta1",
        groupPriorityMinimum: 100,
        versionPriority: 100,
        insecureSkipTLSVerify: true,
        service,
      },
    },
  ];
}

await bench("metrics", async ({ dir, defer }) => {
  const program = await metricsServer();
  const archive = await toolsArchive(join(dir, "image"), "1");
  const cluster = await Cluster.start({ aggregation: true });
  defer(async () => await cluster.close());
  const { hubAddress } = cluster.network;
  await cluster.apply(...objects(hubAddress));
  const token = await cluster.token(`${NAMESPACE}:${ACCOUNT}`);
  const config = cluster.kubeconfig("metrics-server", { token });
  const serving = cluster.authority.issue("metrics-serving", "/CN=metrics-server", [
    `IP:${hubAddress}`,
  ]);
  await Host.start(cluster, "host-1", { driver: "auto", archives: [archive.path] });
  cluster.startBeside("metrics-server", [
    program,
    `--kubeconfig=${config}`,
    `--authentication-kubeconfig=${config}`,
    `--authorization-kubeconfig=${config}`,
    `--bind-address=${hubAddress}`,
    `--secure-port=${PORT}`,
    `--tls-cert-file=${serving.certFile}`,
    `--tls-private-key-file=${serving.keyFile}`,
    `--kubelet-certificate-authority=${cluster.authority.certFile}`,
    "--kubelet-preferred-address-types=InternalIP",
    "--kubelet-request-timeout=8s",
    "--metric-resolution=10s",
  ]);
  const container = { command: ["sh", "-c", "while :; do :; done"] };
  await cluster.apply(pod("busy", { container }, REAL), pod("idle", {}, REAL));
  await cluster.ok(["wait", "--for=condition=Ready", "pod/busy", "pod/idle", "--timeout=240s"], {
    timeoutMs: 300_000,
  });
  const shown = async (what: string): Promise<string | undefined> => {
    const { code, stdout } = await cluster.call(["top", what]);
    const text = stdout.toString();
    return code === 0 && !text.includes("<unknown>") ? text : undefined;
  };
  await cluster.until(
    "kubectl top shows both pods",
    async () => {
      const text = (await shown("pod")) ?? "";
      return text.includes("busy") && text.includes("idle");
    },
    300_000,
  );
  console.log(await shown("pod"));
  console.log(await shown("node"));
});
