/** What VMs use. */
import type { Hono } from "hono";
import type { Sandboxes } from "../sandbox/sandboxes.ts";
import { sampleVms } from "../sandbox/usage.ts";

/** Add the route: samples of all VMs, or of a project, or of those that `vm` names, once for each. */
export function statsRoutes(app: Hono, sandboxes: Sandboxes): void {
  app.get("/v1/stats", async (c) =>
    c.json({
      vms: await sampleVms(sandboxes, c.req.queries("vm") ?? [], {
        project: c.req.query("project"),
        guests: c.req.query("guests") !== "false",
      }),
    }),
  );
}
