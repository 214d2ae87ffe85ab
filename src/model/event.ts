/** What happened on a host, as those who watch it are told. */

/** What can happen; the word before the dot is what it happened to. */
export type EventType =
  | "vm.created"
  | "vm.started"
  | "vm.stopped"
  | "vm.removed"
  | "vm.paused"
  | "vm.resumed"
  | "vm.suspended"
  | "vm.woken"
  | "vm.forked"
  | "vm.restored"
  | "vm.updated"
  | "vm.policy"
  | "exec.started"
  | "exec.ended"
  | "network.denied"
  | "network.created"
  | "network.removed"
  | "network.connected"
  | "network.disconnected"
  | "snapshot.created"
  | "snapshot.removed"
  | "image.pulled"
  | "image.loaded"
  | "image.built"
  | "image.committed"
  | "image.tagged"
  | "image.pushed"
  | "image.removed"
  | "volume.created"
  | "volume.shared"
  | "volume.removed"
  | "missed";

/** What an event is about: one of these, with what is known of it. */
export interface EventBody {
  type: EventType;
  /** The VM that it happened to or in. */
  vm?: { id: string; name?: string };
  /** Project of that VM; absent for what belongs to the whole host. */
  project?: string;
  /** Plain values by name; see docs/events.md for those of each type. */
  data: Record<string, string | number | boolean | readonly string[]>;
}

/**
 * One event. Numbers go up by one, under the next daemon too; after a boot of the host they go on from a higher one. An
 * event of type `missed` says that others came before it which are no longer kept.
 */
export interface VmsanEvent extends EventBody {
  seq: number;
  /** ISO 8601. */
  time: string;
}

/** Reply header with the number of the last event before those that follow. */
export const EVENT_HEADER = "vmsan-event";

/** Which events are wanted: every given word must fit. */
export interface EventFilter {
  /** Types, or what stands before their dot: `vm`, `vm.started`. One of them. */
  types?: readonly string[];
  /** IDs or names of VMs. One of them. */
  vms?: readonly string[];
  project?: string;
}

/** Whether a filter lets an event through; what was missed passes all. */
export function passes(filter: EventFilter, event: EventBody): boolean {
  const { types, vms, project } = filter;
  if (event.type === "missed") return true;
  if (project !== undefined && event.project !== project) return false;
  if (types !== undefined && types.length > 0) {
    const [kind] = event.type.split(".");
    if (!types.some((type) => type === event.type || type === kind)) return false;
  }
  if (vms === undefined || vms.length === 0) return true;
  const { vm } = event;
  return vm !== undefined && vms.some((ref) => ref === vm.id || ref === vm.name);
}
