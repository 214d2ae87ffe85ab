/** Routes about volumes. */
import { Readable } from "node:stream";
import type { Hono } from "hono";
import type { VolumeRequest, VolumeView } from "../model/volume.ts";
import { jsonBody, streamedReply } from "../http/reply.ts";
import type { Volumes } from "../sandbox/volumes.ts";
import {
  growVolumeSchema,
  validate,
  volumeRequestSchema,
  withoutUndefined,
} from "../schema/api.ts";
import { parseVolumeName } from "../util/mounts.ts";

/** Add the routes below /v1/volumes. */
export function volumeRoutes(app: Hono, volumes: Volumes): void {
  app.get("/v1/volumes", async (c) => c.json({ volumes: await volumes.list() }));

  app.post("/v1/volumes", async (c) => {
    const request = withoutUndefined(
      validate(volumeRequestSchema, await jsonBody(c), "request to make a volume"),
    ) as VolumeRequest;
    parseVolumeName(request.name);
    return c.json(await volumes.create(request));
  });

  app.post("/v1/volumes/prune", async (c) => c.json(await volumes.prune()));

  app.get("/v1/volumes/:name", async (c) => c.json(await volumes.get(c.req.param("name"))));

  app.delete("/v1/volumes/:name", async (c) => {
    await volumes.remove(c.req.param("name"));
    return c.body(null, 204);
  });

  app.post("/v1/volumes/:name/grow", async (c) => {
    const { sizeBytes } = validate(growVolumeSchema, await jsonBody(c), "new size of a volume");
    return c.json(await volumes.grow(c.req.param("name"), sizeBytes, c.req.raw.signal));
  });

  app.post("/v1/volumes/:name/share", async (c) =>
    c.json(await volumes.share(c.req.param("name"), c.req.raw.signal)),
  );

  app.get("/v1/volumes/:name/archive", async (c) => {
    const archive = await volumes.export(c.req.param("name"));
    return c.body(Readable.toWeb(archive) as ReadableStream, 200, {
      "content-type": "application/x-tar",
    });
  });

  app.post("/v1/volumes/:name/archive", (c) => {
    const name = parseVolumeName(c.req.param("name"));
    const body = c.req.raw.body;
    const from = body === null ? Readable.from([]) : Readable.fromWeb(body);
    return streamedReply<VolumeView>(c, (work) => volumes.import(name, from, work.signal));
  });
}
