/** The log of what a VM's network policy decided. */
import { Readable } from "node:stream";
import type { Hono } from "hono";
import type { Host } from "../sandbox/host.ts";
import type { Sandboxes } from "../sandbox/sandboxes.ts";

/** Add the route: lines of JSON, the kept ones first, then with `follow` those that come. */
export function networkRoutes(app: Hono, host: Host, sandboxes: Sandboxes): void {
  app.get("/v1/vms/:id/decisions", (c) => {
    const { id } = sandboxes.get(c.req.param("id"));
    const { signal } = c.req.raw;
    const follow = c.req.query("follow") === "true";
    async function* lines(): AsyncGenerator<string> {
      let last = -1;
      for (const decision of host.networks.decisions(id)) {
        last = decision.seq;
        yield `${JSON.stringify(decision)}\n`;
      }
      if (!follow) return;
      for await (const decision of host.networks.follow(id, signal)) {
        if (decision.seq > last) yield `${JSON.stringify(decision)}\n`;
      }
    }
    return c.body(Readable.toWeb(Readable.from(lines())) as ReadableStream, 200, {
      "content-type": "application/x-ndjson",
    });
  });
}
