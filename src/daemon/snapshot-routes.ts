/** Routes about snapshots, and what is made of them. */
import { Readable } from "node:stream";
import type { Context, Hono } from "hono";
import * as z from "zod";
import type { CloneRequest, SnapshotView, VmView } from "../model/api.ts";
import type { Sandboxes } from "../sandbox/sandboxes.ts";
import type { Snapshots } from "../sandbox/snapshots/snapshots.ts";
import { parseCloneRequest, parseSnapshotRequest, validate } from "../schema/api.ts";
import { parseName } from "../util/names.ts";
import { jsonBody, streamedReply, type StreamedWork } from "../http/reply.ts";

const restoreSchema = z.strictObject({ snapshot: z.string().min(1).max(63) });
const pruneSchema = z.strictObject({ all: z.boolean() });

/** Add the routes below /v1/snapshots, and those of VMs that make or use one. */
export function snapshotRoutes(app: Hono, sandboxes: Sandboxes, snapshots: Snapshots): void {
  /** Make VMs; ephemeral ones are held for as long as the connection is open. */
  const makeVms = (
    c: Context,
    request: CloneRequest,
    make: (work: StreamedWork<VmView[]>, onId: (id: string) => void) => Promise<VmView[]>,
  ): Response => {
    const releases: (() => Promise<void>)[] = [];
    return streamedReply<VmView[]>(
      c,
      async (work) =>
        await make(work, (id) => {
          work.send({ event: "vm", id });
          if (request.ephemeral) releases.push(sandboxes.hold(id));
        }),
      async (gone) => {
        if (releases.length === 0) return;
        await gone;
        await Promise.all(releases.map(async (release) => await release()));
      },
    );
  };

  app.get("/v1/snapshots", async (c) => c.json({ snapshots: await snapshots.list() }));

  app.post("/v1/snapshots/prune", async (c) => {
    const { all } = validate(pruneSchema, await jsonBody(c), "request to prune snapshots");
    return c.json(await snapshots.prune(all));
  });

  app.post("/v1/snapshots/import", (c) => {
    const name = c.req.query("name");
    if (name !== undefined) parseName(name);
    const body = c.req.raw.body;
    const from = body === null ? Readable.from([]) : Readable.fromWeb(body);
    return streamedReply<SnapshotView>(c, (work) => snapshots.import(from, name, work));
  });

  app.get("/v1/snapshots/:id/archive", async (c) => {
    const archive = await snapshots.export(c.req.param("id"));
    return c.body(Readable.toWeb(archive) as ReadableStream, 200, {
      "content-type": "application/x-tar",
    });
  });

  app.get("/v1/snapshots/:id", async (c) => c.json(await snapshots.get(c.req.param("id"))));

  app.delete("/v1/snapshots/:id", async (c) => {
    await snapshots.remove(c.req.param("id"));
    return c.body(null, 204);
  });

  app.post("/v1/snapshots/:id/vms", async (c) => {
    const request = parseCloneRequest(await jsonBody(c));
    const id = c.req.param("id");
    return makeVms(c, request, (work, onId) => snapshots.clone(id, request, work, onId));
  });

  app.post("/v1/vms/:id/snapshots", async (c) => {
    const request = parseSnapshotRequest(await jsonBody(c));
    const id = c.req.param("id");
    return streamedReply<SnapshotView>(c, (work) => snapshots.create(id, request, work));
  });

  app.post("/v1/vms/:id/fork", async (c) => {
    const request = parseCloneRequest(await jsonBody(c));
    const id = c.req.param("id");
    return makeVms(c, request, (work, onId) => snapshots.fork(id, request, work, onId));
  });

  app.post("/v1/vms/:id/suspend", (c) =>
    streamedReply<VmView>(c, (work) => snapshots.sleep.suspend(c.req.param("id"), work)),
  );

  app.post("/v1/vms/:id/restore", async (c) => {
    const { snapshot } = validate(restoreSchema, await jsonBody(c), "request to restore a VM");
    const id = c.req.param("id");
    return streamedReply<VmView>(c, (work) => snapshots.restore(id, snapshot, work));
  });
}
