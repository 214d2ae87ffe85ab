/** What is killed in a cluster, and what has to hold afterwards. */
import type { Cluster } from "./cluster.ts";
import type { Host } from "./host.ts";
import type { PodList } from "./objects.ts";

/** What does not agree: pods that run and have no VM, VMs whose pod is not here; empty when all do. */
export async function disagreement(cluster: Cluster, hosts: readonly Host[]): Promise<string> {
  const { items } = await cluster.json<PodList>(["get", "pods", "-A"]);
  const ending = items.filter(({ metadata }) => metadata.deletionTimestamp !== undefined);
  if (ending.length > 0)
    return `still being removed: ${ending.map(({ metadata }) => metadata.name).join(", ")}`;
  const wanted = items
    .filter(({ spec, status }) => spec.nodeName !== undefined && status.phase === "Running")
    .map(({ metadata, spec }) => `${spec.nodeName} ${metadata.uid}`);
  const views = await Promise.all(
    hosts.map(async (host) =>
      (await host.vms())
        .filter(({ status }) => status === "running")
        .map(({ labels }) => `${host.name} ${labels["vmsan.io/pod-uid"]}`),
    ),
  );
  const found = views.flat();
  const without = wanted.filter((one) => !found.includes(one));
  const extra = found.filter((one) => !wanted.includes(one));
  if (without.length + extra.length === 0 && new Set(found).size === found.length) return "";
  return `without a VM: ${without.join(", ")}; without a pod: ${extra.join(", ")}`;
}

/** What can be killed, and how; a VMM is one of the deployment `moved`. */
export function victimsOf(
  cluster: Cluster,
  hosts: readonly Host[],
): [name: string, kill: () => Promise<void>][] {
  return [
    [
      "node agent",
      async () => {
        const host = pick(hosts);
        await host.node.stop();
        host.node.start();
      },
    ],
    [
      "daemon",
      async () => {
        const pid = pick(hosts).daemonPid();
        if (pid !== undefined) process.kill(pid, "SIGKILL");
        await Promise.resolve();
      },
    ],
    [
      "VMM",
      async () => {
        const all = await Promise.all(hosts.map(async (host) => await host.vms()));
        const { pid } = pick(
          all.flat().filter(({ labels }) => labels["vmsan.io/pod-name"]?.startsWith("moved")),
        );
        if (pid !== undefined) process.kill(pid, "SIGKILL");
      },
    ],
    [
      "API server",
      async () => {
        await cluster.apiServer.stop();
        cluster.apiServer.start();
      },
    ],
    [
      "etcd",
      async () => {
        await cluster.etcd.stop();
        cluster.etcd.start();
      },
    ],
  ];
}

/** One of a list, by chance. */
export function pick<T>(list: readonly T[]): T {
  const one = list[Math.floor(Math.random() * list.length)];
  if (one === undefined) throw new Error("nothing to choose from");
  return one;
}
