/** What was done to VMs and not told: the rest of what an earlier daemon was killed over. */
import type { EventType, VmsanEvent } from "../../model/event.ts";
import type { Entry } from "./entry.ts";
import type { Events } from "./events.ts";
import { viewOf } from "./view.ts";

/** What is known of a VM by what was told of it. */
interface Told {
  vm: NonNullable<VmsanEvent["vm"]>;
  project: string;
  /** What its last event has left it as. */
  status: "made" | "running" | "suspended" | "stopped";
}

const STATUS: Partial<Record<EventType, Told["status"]>> = {
  "vm.created": "made",
  "vm.started": "running",
  "vm.woken": "running",
  "vm.restored": "running",
  "vm.suspended": "suspended",
  "vm.stopped": "stopped",
};

/** Tell what an earlier daemon has done to VMs and was killed before it told it, by their records. */
export function tellUntold(events: Events, entries: ReadonlyMap<string, Entry>): void {
  const told = new Map<string, Told>();
  let since: string | undefined;
  for (const { type, vm, project = "", time } of events.kept(0)) {
    since ??= time;
    if (vm === undefined) continue;
    const status = STATUS[type];
    if (type === "vm.removed") told.delete(vm.id);
    else if (status !== undefined) told.set(vm.id, { vm, project, status });
  }
  // Nothing is known of what there was to be told.
  if (since === undefined) return;
  for (const [id, { vm, project, status }] of told) {
    if (entries.has(id)) continue;
    if (status !== "stopped") events.vm("vm.stopped", { ...vm, project }, { reason: "asked" });
    events.vm("vm.removed", { ...vm, project });
  }
  for (const [id, { record }] of entries) {
    const image = record.image?.name ?? record.runtime;
    let before = told.get(id)?.status;
    if (before === undefined) {
      if (record.createdAt < since) continue;
      events.vm("vm.created", record, { image, snapshot: record.snapshot });
      before = "made";
    }
    const { status } = viewOf(record);
    const runs = status === "running" || status === "paused";
    if (runs && before === "suspended") events.vm("vm.woken", record);
    else if (runs && before !== "running") {
      const { driver, accelerator, snapshot } = record;
      events.vm("vm.started", record, { driver, accelerator, image, snapshot });
    } else if (status === "suspended" && before !== "suspended") events.vm("vm.suspended", record);
    else if (status === "stopped" && before !== "stopped")
      events.vm("vm.stopped", record, { reason: record.stopReason ?? "ended" });
  }
}
