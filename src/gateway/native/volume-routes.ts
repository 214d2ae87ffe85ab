/** Routes about volumes. They belong to the host, not to a project: for admin keys alone. */
import { PassThrough, Readable } from "node:stream";
import * as z from "zod";
import { jsonBody, streamedReply } from "../../http/reply.ts";
import type { VolumeView } from "../../model/volume.ts";
import { growVolumeSchema, validate, volumeRequestSchema } from "../../schema/api.ts";
import type { Route } from "./route.ts";

/** The largest unit in which the SDK takes sizes exactly. */
const GIB = 2 ** 30;

/** What the API shows of a volume. */
const volumeSchema = z.strictObject({
  name: z.string(),
  createdAt: z.string(),
  labels: z.record(z.string(), z.string()),
  shared: z.literal(true).optional(),
  sizeBytes: z.int(),
  storedBytes: z.int(),
  usedBy: z.array(z.string()),
  state: z.enum(["free", "written", "read"]),
  damaged: z.string().optional(),
});

const nameOf = ({ c }: { c: { req: { param(name: "name"): string | undefined } } }): string =>
  c.req.param("name") ?? "";

/** The routes below /v1/volumes. */
export const volumeRoutes: readonly Route[] = [
  {
    method: "GET",
    path: "/v1/volumes",
    summary: "Volumes of the host",
    admin: true,
    answers: "json",
    reply: z.strictObject({ volumes: z.array(volumeSchema) }),
    run: async ({ c, vmsan }) => c.json({ volumes: await vmsan.volumes.list() }),
  },
  {
    method: "POST",
    path: "/v1/volumes",
    summary: "Make an empty volume",
    admin: true,
    body: volumeRequestSchema,
    answers: "json",
    reply: volumeSchema,
    run: async ({ c, vmsan }) => {
      const body = validate(volumeRequestSchema, await jsonBody(c), "request to make a volume");
      const { name, sizeBytes, labels, shared = false } = body;
      const size = sizeBytes === undefined ? {} : { size: sizeBytes / GIB };
      return c.json(await vmsan.volumes.create(name, { ...size, labels, shared }));
    },
  },
  {
    method: "POST",
    path: "/v1/volumes/prune",
    summary: "Remove all volumes that no VM mounts, but for those of keys' projects",
    admin: true,
    answers: "json",
    reply: z.strictObject({ volumes: z.array(z.string()), freedBytes: z.int() }),
    run: async ({ c, vmsan }) => c.json(await vmsan.volumes.prune()),
  },
  {
    method: "GET",
    path: "/v1/volumes/:name",
    summary: "One volume",
    admin: true,
    answers: "json",
    reply: volumeSchema,
    run: async (context) => context.c.json(await context.vmsan.volumes.get(nameOf(context))),
  },
  {
    method: "DELETE",
    path: "/v1/volumes/:name",
    summary: "Remove a volume that no VM mounts",
    admin: true,
    answers: "nothing",
    run: async (context) => {
      await context.vmsan.volumes.remove(nameOf(context));
      return context.c.body(null, 204);
    },
  },
  {
    method: "POST",
    path: "/v1/volumes/:name/grow",
    summary: "Make a volume larger",
    admin: true,
    body: growVolumeSchema,
    answers: "json",
    reply: volumeSchema,
    run: async (context) => {
      const { sizeBytes } = validate(
        growVolumeSchema,
        await jsonBody(context.c),
        "new size of a volume",
      );
      return context.c.json(await context.vmsan.volumes.grow(nameOf(context), sizeBytes / GIB));
    },
  },
  {
    method: "POST",
    path: "/v1/volumes/:name/share",
    summary: "Make a volume that nobody uses a shared one, with what is in it",
    admin: true,
    answers: "json",
    reply: volumeSchema,
    run: async (context) => context.c.json(await context.vmsan.volumes.share(nameOf(context))),
  },
  {
    method: "GET",
    path: "/v1/volumes/:name/archive",
    summary: "A volume as one file",
    admin: true,
    answers: "bytes",
    run: async (context) => {
      const name = nameOf(context);
      // Before anything is answered: a volume in use is no archive that breaks off.
      await context.vmsan.volumes.get(name);
      const archive = new PassThrough();
      context.vmsan.volumes.export(name, archive, context.c.req.raw.signal).then(
        () => archive.end(),
        (error: unknown) => archive.destroy(error as Error),
      );
      return context.c.body(Readable.toWeb(archive) as ReadableStream, 200, {
        "content-type": "application/x-tar",
      });
    },
  },
  {
    method: "POST",
    path: "/v1/volumes/:name/archive",
    summary: "Make a volume of what the archive of another one holds",
    admin: true,
    answers: "lines",
    run: (context) => {
      const { body, signal } = context.c.req.raw;
      const from = body === null ? Readable.from([]) : Readable.fromWeb(body);
      return streamedReply<VolumeView>(context.c, (work) =>
        context.vmsan.volumes.import(nameOf(context), from, { signal, onProgress: work.progress }),
      );
    },
  },
];
