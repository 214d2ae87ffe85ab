/** What happens, as lines of JSON; and the events that other parts cause. */
import { Readable } from "node:stream";
import type { Hono } from "hono";
import { EVENT_HEADER, passes } from "../model/event.ts";
import type { VmsanEvent } from "../model/event.ts";
import type { Host } from "../sandbox/host.ts";
import type { Sandboxes } from "../sandbox/sandboxes.ts";
import { parseEventQuery } from "../schema/event.ts";

/** Add the route, and have refused connections told. */
export function eventRoutes(app: Hono, host: Host, sandboxes: Sandboxes): void {
  const { events } = sandboxes;
  host.networks.onDecision((vmId, decision) => {
    const entry = sandboxes.entries.get(vmId);
    if (entry === undefined || decision.verdict !== "denied") return;
    const { protocol, name, address, port, rule } = decision;
    events.denied(entry.record, { protocol, name, address, port, rule });
  });

  app.get("/v1/events", (c) => {
    const { since, after, follow, filter } = parseEventQuery(c.req.queries());
    const { signal } = c.req.raw;
    // Those who ask for what was, and for no more, want all of it and an end.
    const from = since ?? (after === undefined && follow ? undefined : 0);
    const wanted = (event: VmsanEvent): boolean =>
      passes(filter, event) && (after === undefined || event.time >= after);
    const source = follow ? events.tell(signal, from) : events.kept(from ?? 0);
    async function* lines(): AsyncGenerator<string> {
      // At once, so that who asks knows that from now on nothing escapes.
      yield "\n";
      for await (const event of source) if (wanted(event)) yield `${JSON.stringify(event)}\n`;
    }
    return c.body(Readable.toWeb(Readable.from(lines())) as ReadableStream, 200, {
      "content-type": "application/x-ndjson",
      [EVENT_HEADER]: String(events.last),
    });
  });
}
