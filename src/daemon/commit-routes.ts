/** Routes about what VMs have changed of their images. */
import type { Hono } from "hono";
import * as z from "zod";
import type { CommitReport, CommitRequest, DiffEntry } from "../model/api/images.ts";
import { commitVm, diffVm } from "../sandbox/commit.ts";
import type { Host } from "../sandbox/host.ts";
import type { Sandboxes } from "../sandbox/sandboxes.ts";
import type { Snapshots } from "../sandbox/snapshots/snapshots.ts";
import { validate, withoutUndefined } from "../schema/api.ts";
import { jsonBody, streamedReply } from "../http/reply.ts";

const commitSchema = z.strictObject({
  name: z.string().min(1).max(4096),
  changes: z.array(z.string().max(32_768)).max(100),
  message: z.string().max(4096).optional(),
  author: z.string().max(4096).optional(),
});

/** Add the routes. */
export function commitRoutes(
  app: Hono,
  host: Host,
  sandboxes: Sandboxes,
  snapshots: Snapshots,
): void {
  app.post("/v1/vms/:id/commit", async (c) => {
    const request = validate(commitSchema, await jsonBody(c), "request to make an image of a VM");
    const id = c.req.param("id");
    return streamedReply<CommitReport>(c, async (work) => {
      const wanted = withoutUndefined(request) as CommitRequest;
      const made = await commitVm(host, snapshots, id, wanted, work);
      const { name: image, digest } = made;
      sandboxes.events.vm("image.committed", sandboxes.get(id), { image, digest });
      return made;
    });
  });

  app.get("/v1/vms/:id/diff", (c) => {
    const id = c.req.param("id");
    return streamedReply<{ changes: DiffEntry[] }>(c, async (work) => ({
      changes: await diffVm(snapshots, id, work),
    }));
  });
}
