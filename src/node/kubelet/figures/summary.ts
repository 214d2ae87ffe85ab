/** What pods use, as documents: `/stats/summary` (JSON) and `/metrics/resource` (Prometheus's text). */
import { cpus, freemem, totalmem } from "node:os";
import type { NodeUse, PodUse } from "./use.ts";

/** Processor time that was not idle since the host's start, of all its processors. */
function hostCpuSeconds(): number {
  return (
    cpus().reduce((sum, { times: { user, nice, sys, irq } }) => sum + user + nice + sys + irq, 0) /
    1000
  );
}

function cpuOf(use: PodUse): object {
  return {
    time: use.at,
    usageCoreNanoSeconds: use.cpuNs,
    ...(use.cpuNanoCores === undefined ? {} : { usageNanoCores: use.cpuNanoCores }),
  };
}

function memoryOf(use: PodUse): object {
  return {
    time: use.at,
    usageBytes: use.residentBytes,
    rssBytes: use.residentBytes,
    workingSetBytes: use.workingSetBytes,
    availableBytes: Math.max(0, use.limitBytes - use.workingSetBytes),
  };
}

function podStats(use: PodUse): object {
  const { pod, disk, network } = use;
  const { startedAt: startTime = use.at } = pod;
  const rootfs = disk && {
    time: use.at,
    usedBytes: disk.usedBytes,
    capacityBytes: disk.totalBytes,
    availableBytes: disk.freeBytes,
  };
  return {
    podRef: { name: pod.name, namespace: pod.namespace, uid: pod.uid },
    startTime,
    cpu: cpuOf(use),
    memory: memoryOf(use),
    containers: [
      {
        name: pod.container,
        startTime,
        cpu: cpuOf(use),
        memory: memoryOf(use),
        ...(rootfs === undefined ? {} : { rootfs }),
      },
    ],
    ...(network === undefined
      ? {}
      : {
          network: {
            time: use.at,
            name: "eth0",
            rxBytes: network.receivedBytes,
            txBytes: network.sentBytes,
          },
        }),
    ...(rootfs === undefined ? {} : { "ephemeral-storage": rootfs }),
  };
}

/** `/stats/summary`: the node, and its pods. */
export function summary(node: string, startedAt: Date, use: NodeUse): object {
  const time = new Date().toISOString();
  const used = totalmem() - freemem();
  return {
    node: {
      nodeName: node,
      startTime: startedAt.toISOString(),
      cpu: { time, usageCoreNanoSeconds: Math.round(hostCpuSeconds() * 1e9) },
      memory: { time, availableBytes: freemem(), usageBytes: used, workingSetBytes: used },
    },
    pods: use.pods.map(podStats),
  };
}

/** One family of figures. */
function family(name: string, help: string, type: string, lines: readonly string[]): string {
  return [`# HELP ${name} [STABLE] ${help}`, `# TYPE ${name} ${type}`, ...lines, ""].join("\n");
}

/** `/metrics/resource`: what metrics-server reads. Names of pods hold nothing that would have to be escaped. */
export function resourceMetrics(use: NodeUse): string {
  const each = (
    name: string,
    container: boolean,
    value: (use: PodUse) => number,
    at: (use: PodUse) => string = (one) => ` ${Date.parse(one.at)}`,
  ): string[] =>
    use.pods.map((one) => {
      const { namespace, name: pod, container: inside } = one.pod;
      const labels = `${container ? `container="${inside}",` : ""}namespace="${namespace}",pod="${pod}"`;
      return `${name}{${labels}} ${value(one)}${at(one)}`;
    });
  const cpu = (one: PodUse): number => one.cpuNs / 1e9;
  const memory = (one: PodUse): number => one.workingSetBytes;
  const started = (one: PodUse): number => Date.parse(one.pod.startedAt ?? one.at) / 1000;
  const now = Date.now();
  const cpuHelp = "Cumulative cpu time consumed in core-seconds";
  const memoryHelp = "Current working set in bytes";
  const startHelp = "Start time since unix epoch in seconds";
  const none = (): string => "";
  return [
    family("container_cpu_usage_seconds_total", cpuHelp, "counter", [
      ...each("container_cpu_usage_seconds_total", true, cpu),
    ]),
    family("container_memory_working_set_bytes", memoryHelp, "gauge", [
      ...each("container_memory_working_set_bytes", true, memory),
    ]),
    family("container_start_time_seconds", startHelp, "gauge", [
      ...each("container_start_time_seconds", true, started, none),
    ]),
    family("node_cpu_usage_seconds_total", cpuHelp, "counter", [
      `node_cpu_usage_seconds_total ${hostCpuSeconds()} ${now}`,
    ]),
    family("node_memory_working_set_bytes", memoryHelp, "gauge", [
      `node_memory_working_set_bytes ${totalmem() - freemem()} ${now}`,
    ]),
    family("pod_cpu_usage_seconds_total", cpuHelp, "counter", [
      ...each("pod_cpu_usage_seconds_total", false, cpu),
    ]),
    family("pod_memory_working_set_bytes", memoryHelp, "gauge", [
      ...each("pod_memory_working_set_bytes", false, memory),
    ]),
    family(
      "resource_scrape_error",
      "1 if there was an error while getting container metrics",
      "gauge",
      [`resource_scrape_error ${use.error === undefined ? 0 : 1}`],
    ),
  ].join("");
}
