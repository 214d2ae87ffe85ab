/** Routes for those who watch: what happens, and what VMs use, of the key's project alone. */
import { Readable } from "node:stream";
import * as z from "zod";
import { EVENT_HEADER } from "../../model/event.ts";
import type { VmsanEvent } from "../../model/event.ts";
import { parseEventQuery } from "../../schema/event.ts";
import type { Caller } from "../access/gate.ts";
import { ownVm } from "./own-vm.ts";
import type { Route } from "./route.ts";

/** Whether a caller may know of an event: what concerns no project is for admin keys. */
function mayKnow({ key }: Caller, event: VmsanEvent): boolean {
  return key.admin || event.type === "missed" || event.project === key.project;
}

/** The routes. */
export const watchRoutes: readonly Route[] = [
  {
    method: "GET",
    path: "/v1/events",
    summary:
      "What happens, lines of JSON; of the key's project, with an admin key of the whole host",
    query: {
      since: "number of the last event known; 0: all that are kept",
      after: "time from which on they are wanted, ISO 8601",
      follow: "true: goes on as more happens",
      type: "only these: vm, vm.started …; may be repeated",
      vm: "only of this VM; may be repeated",
      project: "only of this project",
    },
    answers: "bytes",
    run: async ({ c, caller, vmsan }) => {
      const { since, after, follow, filter } = parseEventQuery(c.req.queries());
      const { signal } = c.req.raw;
      const place = since ?? (after === undefined ? undefined : new Date(after));
      const from = place ?? (follow ? undefined : 0);
      const begun = Promise.withResolvers<number>();
      const events = vmsan.events({
        ...filter,
        follow,
        signal,
        onBegin: begun.resolve,
        ...(from === undefined ? {} : { since: from }),
      });
      const first = events.next();
      first.catch(begun.reject);
      const last = await begun.promise;
      async function* lines(): AsyncGenerator<string> {
        try {
          // At once, so that who asks knows that from now on nothing escapes.
          yield "\n";
          for (let next = await first; next.done !== true; next = await events.next()) {
            if (mayKnow(caller, next.value)) yield `${JSON.stringify(next.value)}\n`;
          }
        } finally {
          await events.return(undefined);
        }
      }
      return c.body(Readable.toWeb(Readable.from(lines())) as ReadableStream, 200, {
        "content-type": "application/x-ndjson",
        [EVENT_HEADER]: String(last),
      });
    },
  },
  {
    method: "GET",
    path: "/v1/metrics",
    summary: "Figures of the host for monitoring; /metrics has them as Prometheus reads them",
    admin: true,
    answers: "json",
    run: async ({ c, vmsan }) => c.json({ families: await vmsan.metrics() }),
  },
  {
    method: "GET",
    path: "/v1/stats",
    summary: "What VMs use now: processor time, memory, disk, network",
    query: { vm: "only this VM; may be repeated" },
    answers: "json",
    reply: z.object({ vms: z.array(z.object({ id: z.string(), at: z.string() }).loose()) }),
    run: async ({ c, caller, vmsan }) => {
      const refs = c.req.queries("vm") ?? [];
      for (const ref of refs) await ownVm(vmsan, caller, ref);
      const { admin, project } = caller.key;
      return c.json({ vms: await vmsan.stats(refs, admin ? {} : { project }) });
    },
  },
];
