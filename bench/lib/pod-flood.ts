/**
 * Makes many pods at once and sees them run, then has them removed: node bench/lib/pod-flood.ts KUBECONFIG COUNT
 * Prints JSON: milliseconds until all were there, ran, were gone.
 */
import { apiPath } from "../../src/kube/api-server.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { readKubeconfig } from "../../src/kube/kubeconfig.ts";

const [file = "", count = "0"] = process.argv.slice(2);
const { identity } = await readKubeconfig({ file });
const api = new KubeClient(identity);
const pods = apiPath("v1", "namespaces", "default", "pods");
const begun = performance.now();
const since = (): number => Math.round(performance.now() - begun);

/** Pods by name, as they become. */
interface Seen {
  metadata: { name: string };
  status?: { phase?: string };
}

/** Watch until something holds of all pods. */
async function until(holds: (running: number, all: number) => boolean): Promise<number> {
  const over = new AbortController();
  const phases = new Map<string, string>();
  const take = ({ metadata, status }: Seen): unknown =>
    phases.set(metadata.name, status?.phase ?? "");
  for await (const step of api.watch(pods, over.signal)) {
    if (step.kind === "all") {
      phases.clear();
      for (const pod of step.objects) take(pod as Seen);
    } else if (step.kind === "set") take(step.object as Seen);
    else phases.delete((step.object as Seen).metadata.name);
    const running = [...phases.values()].filter((phase) => phase === "Running").length;
    if (holds(running, phases.size)) over.abort();
  }
  return since();
}

const body = (name: string): object => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name },
  spec: {
    tolerations: [{ key: "vmsan.io/node", operator: "Exists" }],
    automountServiceAccountToken: false,
    terminationGracePeriodSeconds: 1,
    containers: [{ name: "main", image: "none", command: ["none"] }],
  },
});
const running = until((now) => now === Number(count));
await Promise.all(
  Array.from({ length: Number(count) }, async (_, index) => {
    await api.request("POST", pods, { body: body(`pod-${index}`) });
  }),
);
const made = since();
const ran = await running;
const gone = until((_running, all) => all === 0);
const asked = since();
await api.request("DELETE", pods);
console.log(JSON.stringify({ made, ran, gone: (await gone) - asked }));
api.close();
