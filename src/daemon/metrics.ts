/** Counts what happens, for monitoring; the gateway writes it as Prometheus reads it. */
import type { Hono } from "hono";
import type { VmsanEvent } from "../model/event.ts";
import type { MetricFamily, MetricSample } from "../model/metrics.ts";
import type { VmSample } from "../model/stats.ts";
import type { Host } from "../sandbox/host.ts";
import type { Sandboxes } from "../sandbox/sandboxes.ts";
import { sampleVms } from "../sandbox/usage.ts";
import { Counter, Histogram } from "../util/flow/counters.ts";
import { packageVersion } from "../util/package.ts";
import { ownUse } from "../util/process/own-use.ts";

/** Upper bounds of starts and pulls, in seconds. */
const SECONDS = [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];

const text = (value: unknown): string => (typeof value === "string" ? value : "");
const number = (value: unknown): number => (typeof value === "number" ? value : 0);

/** What happened since the daemon's start. */
class Totals {
  private readonly events = new Counter("vmsan_events_total", "What happened, by type of event.");
  private readonly starts = new Histogram(
    "vmsan_vm_start_seconds",
    "Time from a request to a VM whose agent answers.",
    SECONDS,
  );
  private readonly stops = new Counter("vmsan_vm_stops_total", "Ends of VMs, by reason.");
  private readonly execs = new Counter("vmsan_execs_ended_total", "Ends of commands, by outcome.");
  private readonly pulls = new Histogram("vmsan_image_pull_seconds", "Time of pulls.", SECONDS);
  private readonly pulled = new Counter("vmsan_image_pull_bytes_total", "Bytes of pulled blobs.");
  private readonly builds = new Histogram("vmsan_image_build_seconds", "Time of builds.", SECONDS);
  /** Also those of which no event tells. */
  readonly decisions = new Counter(
    "vmsan_network_decisions_total",
    "Connections and names that network policies allowed or refused.",
  );

  note({ type, data }: VmsanEvent): void {
    this.events.add({ type });
    const seconds = number(data["seconds"]);
    if (type === "vm.started") {
      const labels = { driver: text(data["driver"]), accelerator: text(data["accelerator"]) };
      this.starts.observe(labels, seconds);
    } else if (type === "vm.stopped") this.stops.add({ reason: text(data["reason"]) });
    else if (type === "exec.ended") this.execs.add({ outcome: outcomeOf(data) });
    else if (type === "image.built") this.builds.observe({}, seconds);
    else if (type === "image.pulled") {
      this.pulls.observe({}, seconds);
      this.pulled.add({}, number(data["bytes"]));
    }
  }

  families(): MetricFamily[] {
    const { events, starts, stops, execs, pulls, pulled, builds, decisions } = this;
    const all = [events, starts, stops, execs, pulls, pulled, builds, decisions];
    return all.map((one) => one.family());
  }
}

/** How a command ended, in a word. */
function outcomeOf(data: VmsanEvent["data"]): string {
  if (data["timedOut"] === true) return "timeout";
  if (data["signal"] !== undefined) return "signal";
  return data["exitCode"] === 0 ? "ok" : "failed";
}

/** VMs by what they do now. */
function states(sandboxes: Sandboxes): MetricFamily {
  const counts: Record<string, number> = Object.fromEntries(
    ["creating", "running", "paused", "suspended", "stopped", "error"].map((name) => [name, 0]),
  );
  for (const { status } of sandboxes.list()) counts[status] = (counts[status] ?? 0) + 1;
  const samples = Object.entries(counts).map(([status, value]) => ({ labels: { status }, value }));
  return { name: "vmsan_vms", help: "VMs, by state.", type: "gauge", samples };
}

/** What each VM that has a process uses. */
function uses(vms: readonly VmSample[]): MetricFamily[] {
  const family = (
    name: string,
    type: MetricFamily["type"],
    help: string,
    value: (host: NonNullable<VmSample["host"]>) => number | undefined,
  ): MetricFamily => {
    const samples = vms.flatMap(({ id, name: vmName = "", project, host }): MetricSample[] => {
      const found = host && value(host);
      if (found === undefined) return [];
      return [{ labels: { vm: id, name: vmName, project }, value: found }];
    });
    return { name: `vmsan_vm_${name}`, type, help, samples };
  };
  return [
    family("cpu_seconds_total", "counter", "Processor time.", ({ cpuMs }) => cpuMs / 1000),
    family("resident_memory_bytes", "gauge", "Memory in RAM.", (host) => host.residentBytes),
    family("disk_bytes", "gauge", "What its own files take.", (host) => host.diskBytes),
    family("received_bytes_total", "counter", "Received by it.", (host) => host.receivedBytes),
    family("sent_bytes_total", "counter", "Sent by it.", (host) => host.sentBytes),
  ];
}

/** Count from now on, and add the route that tells. */
export function metricRoutes(app: Hono, host: Host, sandboxes: Sandboxes): void {
  const totals = new Totals();
  sandboxes.events.onEvent((event) => totals.note(event));
  host.networks.onDecision((_vmId, { verdict, protocol }) => {
    totals.decisions.add({ verdict, protocol });
  });
  app.get("/v1/metrics", async (c) => {
    const families: MetricFamily[] = [
      {
        name: "vmsan_build_info",
        help: "Version of the daemon.",
        type: "gauge",
        samples: [{ labels: { version: packageVersion() }, value: 1 }],
      },
      states(sandboxes),
      ...totals.families(),
      ...uses(await sampleVms(sandboxes, [], { guests: false })),
      ...ownUse("vmsan_daemon"),
    ];
    return c.json({ families });
  });
}
