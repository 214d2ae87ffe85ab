/** What this process itself uses, for monitoring. */
import { readdirSync } from "node:fs";
import { performance } from "node:perf_hooks";
import type { MetricFamily } from "../../model/metrics.ts";

/** Figures of this process. @param prefix of their names, e.g. `vmsan_daemon` */
export function ownUse(prefix: string): MetricFamily[] {
  const { user, system } = process.cpuUsage();
  const one = (
    name: string,
    type: MetricFamily["type"],
    help: string,
    value: number,
  ): MetricFamily => ({ name: `${prefix}_${name}`, type, help, samples: [{ labels: {}, value }] });
  const { utilization } = performance.eventLoopUtilization();
  return [
    one("cpu_seconds_total", "counter", "Processor time of the process.", (user + system) / 1e6),
    one("resident_memory_bytes", "gauge", "Memory in RAM.", process.memoryUsage.rss()),
    one(
      "start_time_seconds",
      "gauge",
      "Start, in seconds since the epoch.",
      Math.round(performance.timeOrigin) / 1000,
    ),
    one("open_fds", "gauge", "Open file descriptors.", readdirSync("/proc/self/fd").length - 1),
    one("event_loop_busy_ratio", "gauge", "Share of its life in which it was busy.", utilization),
  ];
}
