/** What is killed in a cluster, and what has to hold afterwards. */
import { setTimeout as sleep } from "node:timers/promises";
import type { VmView } from "../../src/model/api.ts";
import { isKept } from "../../src/node/pods/kept/kept-memory.ts";
import { POD_LABEL } from "../../src/node/pods/spec/plan.ts";
import type { Cluster } from "./cluster.ts";
import type { Host } from "./host.ts";
import type { PodList } from "./objects.ts";

/** How long pods and VMs may disagree, in milliseconds. */
export const AGREE_MS = 10_000;
/** Longest pause before a kill, in milliseconds: anything may be under way then. */
const LONGEST_PAUSE_MS = 1_500;

/** What does not agree: pods that say that they run and have no VM, VMs whose pod is not here; empty when all do. */
async function disagreement(cluster: Cluster, hosts: readonly Host[]): Promise<string> {
  const { items } = await cluster.json<PodList>(["get", "pods", "-A"]);
  const ending = items.filter(({ metadata }) => metadata.deletionTimestamp !== undefined);
  if (ending.length > 0)
    return `still being removed: ${ending.map(({ metadata }) => metadata.name).join(", ")}`;
  const wanted = items
    .filter(({ status }) => status.containerStatuses?.[0]?.state?.running !== undefined)
    .map(({ metadata, spec }) => `${spec.nodeName} ${metadata.uid}`);
  const views = await Promise.all(
    hosts.map(async (host) => {
      const own = new Set(
        items
          .filter(({ spec, status }) => spec.nodeName === host.name && !isOver(status.phase))
          .map(({ metadata }) => metadata.uid),
      );
      // One that does not run is still a VM of a pod that is about to run again, or is nobody's.
      return (
        (await host.vms())
          // Memory that is kept belongs to a pod that is yet to come.
          .filter((view) => !isKept(view))
          .filter(({ status, labels }) => status === "running" || !own.has(labels[POD_LABEL] ?? ""))
          .map(({ labels }) => `${host.name} ${labels[POD_LABEL]}`)
      );
    }),
  );
  const found = views.flat();
  const without = wanted.filter((one) => !found.includes(one));
  const extra = found.filter((one) => !wanted.includes(one));
  if (without.length + extra.length === 0 && new Set(found).size === found.length) return "";
  return `without a VM: ${without.join(", ")}; without a pod: ${extra.join(", ")}`;
}

const isOver = (phase: string): boolean => phase === "Succeeded" || phase === "Failed";

/** What can be killed, and how; a VMM is one of the deployments'. */
function victimsOf(
  cluster: Cluster,
  hosts: readonly Host[],
  deployments: readonly Scaled[],
): [name: string, kill: () => Promise<void>][] {
  const scaled = ({ labels }: VmView): boolean =>
    deployments.some(({ name }) => labels["vmsan.io/pod-name"]?.startsWith(`${name}-`));
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
        killNow(pick(hosts).daemonPid());
        await Promise.resolve();
      },
    ],
    [
      "VMM",
      async () => {
        const all = await Promise.all(hosts.map(async (host) => await host.vms()));
        const running = all.flat().filter((vm) => vm.status === "running" && scaled(vm));
        if (running.length > 0) killNow(pick(running).pid);
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

/** Kill a process that may have ended by itself. */
function killNow(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** A deployment that is made larger and smaller while things are killed. */
export interface Scaled {
  name: string;
  /** By turns. */
  replicas: readonly [number, number];
}

/** What has come of one kill. */
export interface Round {
  round: number;
  /** What was killed. */
  what: string;
  /** Milliseconds from the API server's answering again until all pods and VMs agreed. */
  agreedMs: number;
  /** The same until all deployments had what they are to have. */
  rolledOutMs: number;
  /** What did not agree when that was due. */
  late?: string;
}

/**
 * Kill one after the other at random moments while deployments change, and wait each time until every pod has its VM
 * and every VM its pod.
 * @param order the victims by turns, or by chance
 */
export async function* killRounds(
  cluster: Cluster,
  hosts: readonly Host[],
  {
    rounds,
    deployments,
    order,
  }: { rounds: number; deployments: readonly Scaled[]; order: "turns" | "chance" },
): AsyncGenerator<Round> {
  const victims = victimsOf(cluster, hosts, deployments);
  for (let round = 0; round < rounds; round += 1) {
    const [what, kill] =
      (order === "turns" ? victims[round % victims.length] : undefined) ?? pick(victims);
    const scales = deployments.map(({ name, replicas }) => [
      "scale",
      `deployment/${name}`,
      `--replicas=${replicas[round % 2]}`,
    ]);
    // Refused, perhaps, in this very moment.
    const scaled = scales.map(async (words) => await cluster.call(words));
    await sleep(Math.random() * LONGEST_PAUSE_MS);
    await kill();
    await cluster.ready();
    const answeredAt = performance.now();
    let late: string | undefined;
    const agreed = async (): Promise<number> => {
      await cluster.until(`all agree after the ${what} was killed (round ${round})`, async () => {
        // A host whose daemon is just being started cannot be asked.
        const said = await disagreement(cluster, hosts).catch(String);
        if (said !== "" && performance.now() - answeredAt > AGREE_MS) late ??= said;
        return said === "";
      });
      return performance.now() - answeredAt;
    };
    const agreedMs = await agreed();
    await Promise.all(scaled);
    for (const words of scales) await cluster.ok(words);
    for (const { name } of deployments) {
      await cluster.ok(["rollout", "status", `deployment/${name}`, "--timeout=240s"], {
        timeoutMs: 300_000,
      });
    }
    const rolledOutMs = await agreed();
    yield { round, what, agreedMs, rolledOutMs, ...(late === undefined ? {} : { late }) };
  }
}

/** One of a list, by chance. */
function pick<T>(list: readonly T[]): T {
  const one = list[Math.floor(Math.random() * list.length)];
  if (one === undefined) throw new Error("nothing to choose from");
  return one;
}
