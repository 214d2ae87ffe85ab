/** Events, for SDK users: read from the daemon, and on from the next one when it dies. */
import type { IncomingMessage } from "node:http";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { EVENT_HEADER } from "../model/event.ts";
import type { EventFilter, VmsanEvent } from "../model/event.ts";
import type { Daemon } from "./daemon.ts";
import { hasEnded, isConnectionLost } from "./transport.ts";

const PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 1_000;
/** How long one that was killed, or cannot be reached, is waited for, in milliseconds. */
const PATIENCE_MS = 60_000;

/** Which events, and from when. */
export interface EventOptions extends EventFilter {
  /** After the event of this number, or from this time on; 0: all that are kept. Default: from now on. */
  since?: number | Date;
  /** Go on as more happens; default true. */
  follow?: boolean;
  signal?: AbortSignal;
  /** Called once, when no event escapes any more: with the number of the last one before those that follow. */
  onBegin?: (last: number) => void;
  /** Called when nothing is told any more, since the daemon or the gateway is gone, and when it is told again. */
  onConnection?: (connected: boolean) => void;
}

function queryOf({ since, follow = true, types, vms, project }: EventOptions): URLSearchParams {
  const query = new URLSearchParams({ follow: String(follow) });
  if (typeof since === "number") query.set("since", String(since));
  if (since instanceof Date) query.set("after", since.toISOString());
  for (const type of types ?? []) query.append("type", type);
  for (const vm of vms ?? []) query.append("vm", vm);
  if (project !== undefined) query.set("project", project);
  return query;
}

/** The last event before those of a reply, as its server says. */
function lastBefore(reply: Readable): number | undefined {
  const { headers = {} } = reply as Partial<IncomingMessage>;
  const seq = Number(headers[EVENT_HEADER]);
  return Number.isSafeInteger(seq) ? seq : undefined;
}

/**
 * What happens, as it happens. When the daemon, or the gateway, dies it goes on with the next one where it was; an event
 * of type `missed` says where that cannot be, since what was in between is not kept. A daemon that was killed gets a successor; for that of one
 * that has ended in order it is waited, however long: who follows is no reason to start one.
 */
export async function* readEvents(
  daemon: Daemon,
  options: EventOptions,
): AsyncGenerator<VmsanEvent> {
  const { signal } = options;
  let place: EventOptions = options;
  let everConnected = false;
  let connected: boolean | undefined;
  const note = (now: boolean): void => {
    if (now !== connected) options.onConnection?.(now);
    connected = now;
  };
  let lostAt: number | undefined;
  for (let attempt = 1; ; attempt += 1) {
    try {
      const path = `/v1/events?${queryOf(place).toString()}`;
      const reply = await daemon.download("GET", path, {
        ...(signal === undefined ? {} : { signal }),
        start: everConnected ? "after-kill" : "always",
      });
      const last = lastBefore(reply);
      if (!everConnected && last !== undefined) options.onBegin?.(last);
      everConnected = true;
      note(true);
      lostAt = undefined;
      attempt = 1;
      // One that has seen no event yet misses none when it must ask again.
      if (place.since === undefined && last !== undefined) place = { ...place, since: last };
      try {
        for await (const line of createInterface({ input: reply })) {
          if (line === "") continue;
          const event = JSON.parse(line) as VmsanEvent;
          place = { ...place, since: event.seq };
          yield event;
        }
      } finally {
        reply.destroy();
      }
      if (options.follow === false || signal?.aborted === true) return;
    } catch (error) {
      if (signal?.aborted === true) return;
      if (!isConnectionLost(error) || !everConnected) throw error;
      lostAt = hasEnded(error) ? undefined : (lostAt ?? Date.now());
      if (lostAt !== undefined && Date.now() - lostAt > PATIENCE_MS) throw error;
    }
    note(false);
    await sleep(Math.min(LONGEST_PAUSE_MS, PAUSE_MS * attempt));
  }
}
