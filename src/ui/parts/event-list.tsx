/** What happened, in words. */
import type { VmsanEvent } from "../../model/event.ts";
import { clock, moment, plain } from "../state/format.ts";
import { to } from "../state/route.ts";

const WORDS: Record<VmsanEvent["type"], string> = {
  "vm.created": "made",
  "vm.started": "started",
  "vm.stopped": "stopped",
  "vm.removed": "removed",
  "vm.paused": "paused",
  "vm.resumed": "goes on",
  "vm.suspended": "fell asleep",
  "vm.woken": "woke",
  "vm.forked": "forked",
  "vm.restored": "went back to a snapshot",
  "vm.updated": "has another size or time limit",
  "vm.policy": "has another network policy",
  "exec.started": "command began",
  "exec.ended": "command ended",
  "network.denied": "connection refused",
  "network.created": "network made",
  "network.removed": "network removed",
  "network.connected": "was put into a network",
  "network.disconnected": "was taken out of a network",
  "snapshot.created": "snapshot taken",
  "snapshot.removed": "snapshot removed",
  "image.pulled": "image pulled",
  "image.loaded": "image loaded",
  "image.built": "image built",
  "image.committed": "image made of a VM",
  "image.tagged": "image named",
  "image.pushed": "image pushed",
  "image.removed": "image removed",
  "volume.created": "volume made",
  "volume.removed": "volume removed",
  "volume.shared": "volume may be in several VMs",
  missed: "older events are not kept",
};

/** What happened; of what a newer gateway tells there are none but its own. */
function wordsOf(type: string): string {
  return (WORDS as Partial<Record<string, string>>)[type] ?? type;
}

/** What it was about, from the event's values. */
function about({ type, data }: VmsanEvent): string {
  const text = (name: string): string => {
    const value = data[name];
    return value === undefined ? "" : String(value);
  };
  if (type.startsWith("exec")) {
    const status = text("exitCode");
    const program = text("program") || text("label") || "login shell";
    return `${program}${status === "" ? "" : `, status ${status}`}`;
  }
  if (type === "network.denied") {
    const where = text("name") || text("address");
    return `${where}${text("port") === "" ? "" : `:${text("port")}`}`;
  }
  for (const name of ["name", "image", "volume", "network", "snapshot", "reason"])
    if (text(name) !== "") return text(name);
  return "";
}

/** The list. @param named also says which VM it was */
export function EventList(props: { events: readonly VmsanEvent[]; named?: boolean }) {
  return (
    <ol class="events">
      {props.events.map((event) => (
        <li key={event.seq}>
          <time class="num small muted" dateTime={event.time} title={moment(event.time)}>
            {clock(event.time)}
          </time>
          <span>
            {props.named === true && event.vm !== undefined && (
              <>
                <a href={to("vms", event.vm.id)}>{event.vm.name ?? event.vm.id}</a>{" "}
              </>
            )}
            {wordsOf(event.type)} <bdi class="muted">{plain(about(event))}</bdi>
          </span>
        </li>
      ))}
    </ol>
  );
}
