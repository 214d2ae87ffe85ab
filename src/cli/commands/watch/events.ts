/** `vmsan events`: what happens, as it happens. */
import type { Command } from "commander";
import type { EventOptions } from "../../../client/events.ts";
import type { VmsanEvent } from "../../../model/event.ts";
import { collect, command, interruptSignal, runs } from "../../command.ts";
import { fieldsOf, oneLine } from "../../output.ts";

interface Flags {
  since?: string;
  filter?: string[];
  /** False with --no-stream. */
  stream: boolean;
}

/** Filters as people write them. @throws ERR_VALIDATION_FLAGS */
async function filterOf(words: readonly string[]): Promise<EventOptions> {
  const { invalid } = await import("../../../util/units.ts");
  const types: string[] = [];
  const vms: string[] = [];
  let project: string | undefined;
  for (const word of words) {
    const [, key, value = ""] = /^(type|vm|project)=(.+)$/.exec(word) ?? [];
    if (key === "type") types.push(value);
    else if (key === "vm") vms.push(value);
    else if (key === "project") project = value;
    else {
      const why = "It takes type=, vm= or project=.";
      throw invalid("FLAGS", "--filter", word, why, "For example: --filter type=vm.started.");
    }
  }
  return { types, vms, ...(project === undefined ? {} : { project }) };
}

/** Where to begin: after an event's number, or at a time. @throws ERR_VALIDATION_DURATION */
async function placeOf(since: string | undefined): Promise<EventOptions> {
  if (since === undefined) return {};
  // Numbers of events have sixteen digits; no duration has.
  if (since === "0" || /^\d{14,16}$/.test(since)) return { since: Number(since) };
  const { sinceTime } = await import("../../session/logs.ts");
  return { since: new Date(sinceTime(since)) };
}

/** An event on one line. */
function lineOf({ time, type, vm, data }: VmsanEvent): string {
  const subject = vm === undefined ? [] : [vm.name === undefined ? vm.id : `${vm.id} (${vm.name})`];
  return oneLine([time, type, ...subject, fieldsOf(data)].join(" ").trimEnd());
}

/** The definition. */
export function eventsCommand(): Command {
  const target = command("events", "what happens on the host, as it happens")
    .option("--since <when>", "begin with what is kept: 10m, a date, an event's number, or 0")
    .option("--filter <what>", "type=vm, type=vm.started, vm=REF, project=NAME; repeated", collect)
    .option("--no-stream", "print what is kept, and end");
  return runs<Flags>(target, async ({ flags, output, vmsan }) => {
    const options: EventOptions = {
      ...(await filterOf(flags.filter ?? [])),
      ...(await placeOf(flags.since)),
      follow: flags.stream,
    };
    const interrupt = interruptSignal();
    for await (const event of (await vmsan()).events({ ...options, signal: interrupt.signal })) {
      output.result(event, lineOf(event));
    }
    interrupt.dispose();
  });
}
