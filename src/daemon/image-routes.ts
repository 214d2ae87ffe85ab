/** Routes about images. */
import { stat } from "node:fs/promises";
import { PassThrough, Readable } from "node:stream";
import type { Context, Hono } from "hono";
import * as z from "zod";
import type {
  DiskRequest,
  ImageList,
  ImageView,
  PruneReport,
  PushReport,
} from "../model/api/images.ts";
import type { DiskSummary } from "../model/disk.ts";
import { VmsanError } from "../model/errors.ts";
import { importTree } from "../changes/import.ts";
import { hostPlatform, importArchive, pin, unpin, withLease } from "../oci/images.ts";
import { inspectImage, listImages, tagImage } from "../oci/store/manage.ts";
import type { ImageDetails } from "../oci/store/manage.ts";
import { imageHistory } from "../oci/store/history.ts";
import { diskUse, pruneStore, removeImage } from "../oci/store/space.ts";
import { formatPlatform, parsePlatform } from "../oci/documents/platform.ts";
import { isDigest } from "../oci/reference.ts";
import { saveImageTo } from "../oci/archives/save.ts";
import { buildDiskFile, openImageTree, pruneDisks } from "../sandbox/disks.ts";
import type { Host } from "../sandbox/host.ts";
import type { Sandboxes } from "../sandbox/sandboxes.ts";
import { validate, withoutUndefined } from "../schema/api.ts";
import { registryAccessSchema } from "../schema/registry.ts";
import { jsonBody, streamedReply } from "../http/reply.ts";
import { decodeText } from "../util/byte-text.ts";

const name = z.string().min(1).max(4096);
const path = z.string().max(4096).startsWith("/");
const registry = registryAccessSchema.optional();
const pull = z.enum(["missing", "always", "never"]);
const pullSchema = z.strictObject({
  image: name,
  pull,
  platform: z.string().max(64).optional(),
  registry,
});
const pushSchema = z.strictObject({
  name,
  destination: name.optional(),
  platform: z.string().max(64).optional(),
  registry,
});
const tagSchema = z.strictObject({ name, newName: name });
const holdSchema = z.strictObject({
  digests: z.array(z.string().refine(isDigest, "must be sha256: and 64 hex digits")).max(100_000),
  purpose: z.string().min(1).max(200),
});
const pruneSchema = z.strictObject({ all: z.boolean() });
const diskSchema = z.strictObject({
  image: name,
  output: path,
  sizeBytes: z
    .int()
    .min(2 ** 20)
    .max(2 ** 40)
    .multipleOf(4096),
  builder: z.enum(["direct", "mke2fs"]),
  journal: z.boolean(),
  platform: z.string().max(64).optional(),
  pull,
  registry,
});

/** A query parameter that may stand for bytes (util/byte-text.ts), as often as it is there. */
function textQueries(c: Context, what: string): string[] {
  return new URL(c.req.url).search
    .slice(1)
    .split("&")
    .filter((part) => part.startsWith(`${what}=`))
    .map((part) => decodeText(part.slice(what.length + 1).replaceAll("+", " ")));
}

/** The first of them; undefined when there is none. */
function textQuery(c: Context, what: string): string | undefined {
  return textQueries(c, what)[0];
}

/** A required one. */
function required(c: Context, what: string): string {
  const value = textQuery(c, what);
  if (value !== undefined && value !== "") return value;
  throw new VmsanError({
    code: "ERR_VALIDATION_FLAGS",
    message: `The request names no ${what}`,
    why: `The query parameter ${what} is missing.`,
    fix: "See docs/api.md.",
  });
}

/** An image as the API shows it in full. */
function detailsOf(details: ImageDetails): Record<string, unknown> {
  return {
    ...details,
    names: [details.name],
    platform: details.platform === undefined ? "" : formatPlatform(details.platform),
  };
}

/** The error for the files of several images in one archive. */
function severalTrees(): VmsanError {
  return new VmsanError({
    code: "ERR_VALIDATION_FLAGS",
    message: "Cannot save the files of several images in one archive",
    why: "They would lie over each other.",
    fix: "Save one after the other, or as oci-archive.",
  });
}

/** Add the routes below /v1/images. */
export function imageRoutes(app: Hono, host: Host, sandboxes: Sandboxes): void {
  const { store } = host;

  app.get("/v1/images", async (c) => {
    const use = await diskUse(store);
    const byDigest = new Map<string, ImageView>();
    for (const image of await listImages(store)) {
      const known = byDigest.get(image.digest);
      if (known !== undefined) {
        known.names.push(image.name);
        continue;
      }
      byDigest.set(image.digest, {
        names: [image.name],
        digest: image.digest,
        platform: image.platform === undefined ? "" : formatPlatform(image.platform),
        sizeBytes: image.sizeBytes,
        ...(image.stored === "" ? {} : { created: image.stored }),
        usedBy: sandboxes
          .users()
          .filter((vm) => vm.image?.digest === image.digest)
          .map((vm) => vm.name ?? vm.id),
      });
    }
    const list: ImageList = {
      images: [...byDigest.values()],
      blobBytes: use.bytes,
      diskBytes: await host.rootfsBytes(),
    };
    return c.json(list);
  });

  app.post("/v1/images/pull", async (c) => {
    const { image, ...wanted } = validate(pullSchema, await jsonBody(c), "pull");
    return streamedReply<unknown>(c, async (work) => {
      const resolved = await host.resolve(image, {
        pull: wanted.pull,
        ...(wanted.platform === undefined ? {} : { platform: wanted.platform }),
        ...(wanted.registry === undefined ? {} : { registry: wanted.registry }),
        ...work,
      });
      return { ...resolved, names: [resolved.name], platform: formatPlatform(resolved.platform) };
    });
  });

  app.get("/v1/images/inspect", async (c) =>
    c.json(detailsOf(await inspectImage(store, required(c, "name")))),
  );

  app.get("/v1/images/history", async (c) =>
    c.json({ steps: await imageHistory(store, required(c, "name")) }),
  );

  app.post("/v1/images/push", async (c) => {
    const wanted = validate(pushSchema, await jsonBody(c), "request to push an image");
    return streamedReply<PushReport>(c, async (work) => {
      const { pushImage } = await import("../oci/registry/push.ts");
      const pushed = await pushImage(wanted.name, wanted.destination, {
        store,
        registry: await host.registryOptions(wanted.registry),
        ...(wanted.platform === undefined ? {} : { platform: parsePlatform(wanted.platform) }),
        onProgress: work.progress,
        signal: work.signal,
      });
      const { name: image, destination, digest } = pushed;
      sandboxes.events.host("image.pushed", { image, destination, digest });
      return pushed;
    });
  });

  app.post("/v1/images/tag", async (c) => {
    const body = validate(tagSchema, await jsonBody(c), "request to tag an image");
    await tagImage(store, body.name, body.newName);
    sandboxes.events.host("image.tagged", { image: body.newName, from: body.name });
    return c.body(null, 204);
  });

  app.delete("/v1/images", async (c) => {
    const image = required(c, "name");
    await removeImage(store, image, { keepHeld: c.req.query("held") === "keep" });
    sandboxes.events.host("image.removed", { image });
    return c.body(null, 204);
  });

  app.put("/v1/images/holds/:owner", async (c) => {
    const { digests, purpose } = validate(holdSchema, await jsonBody(c), "images to hold");
    // VMs have pins of their own, by their IDs.
    const owner = `hold-${c.req.param("owner")}`;
    if (digests.length === 0) await unpin(store, owner);
    else await pin(store, owner, digests, purpose);
    return c.body(null, 204);
  });

  app.post("/v1/images/prune", async (c) => {
    const { all } = validate(pruneSchema, await jsonBody(c), "request to prune images");
    const removed = await pruneStore(store, { all });
    for (const image of removed.names) sandboxes.events.host("image.removed", { image });
    const disks = await pruneDisks(host.layout.rootfs, sandboxes.users());
    const report: PruneReport = {
      images: removed.names,
      blobs: removed.blobs,
      disks: disks.removed.length,
      freedBytes: removed.bytes + disks.freedBytes,
    };
    return c.json(report);
  });

  app.post("/v1/images/load", (c) => {
    const upload = c.req.raw.body;
    const tag = textQuery(c, "tag");
    // One image, to be used at once, instead of everything in the archive.
    const one = c.req.query("one") === "true";
    return streamedReply<unknown>(c, async (work) => {
      const stream = upload === null ? Readable.from([]) : Readable.fromWeb(upload as never);
      const images = await importArchive(stream, {
        store,
        onProgress: work.progress,
        signal: work.signal,
        ...(one ? { only: tag === undefined ? {} : { tag } } : {}),
      });
      for (const { name: image, digest } of images) {
        sandboxes.events.host("image.loaded", { image, digest });
      }
      return images.map((image) => ({
        ...image,
        platform: formatPlatform(image.platform),
      }));
    });
  });

  app.post("/v1/images/import", (c) => {
    const upload = c.req.raw.body;
    const image = textQuery(c, "name");
    const message = textQuery(c, "message");
    return streamedReply<unknown>(c, async ({ signal }) => {
      const stream = upload === null ? Readable.from([]) : Readable.fromWeb(upload as never);
      const imported = await withLease(
        store,
        "import of a file system",
        async (lease) =>
          await importTree(stream, {
            store,
            lease,
            platform: hostPlatform(),
            changes: textQueries(c, "change"),
            signal,
            ...(image === undefined ? {} : { name: image }),
            ...(message === undefined ? {} : { message }),
          }),
        signal,
      );
      sandboxes.events.host("image.loaded", { image: imported.name, digest: imported.digest });
      return imported;
    });
  });

  app.get("/v1/images/save", async (c) => {
    const wanted = c.req.query("format");
    const format = wanted === "docker-archive" ? wanted : "oci-archive";
    const images = [required(c, "name"), ...textQueries(c, "name").slice(1)];
    // A name that does not exist must be an error, not an empty archive.
    for (const image of images) await inspectImage(store, image);
    if (wanted === "rootfs") {
      if (images.length > 1) throw severalTrees();
      const tree = await openImageTree(host, images[0] ?? "", c.req.raw.signal);
      return c.body(Readable.toWeb(tree) as ReadableStream, 200, {
        "content-type": "application/x-tar",
      });
    }
    const out = new PassThrough();
    saveImageTo(out, { store, images, format, signal: c.req.raw.signal }).then(
      () => out.end(),
      (error: unknown) => out.destroy(error instanceof Error ? error : new Error(String(error))),
    );
    return c.body(Readable.toWeb(out) as ReadableStream, 200, {
      "content-type": "application/x-tar",
    });
  });

  app.post("/v1/images/disk", async (c) => {
    const request = validate(diskSchema, await jsonBody(c), "request for a disk image");
    return streamedReply<DiskSummary>(c, async (work) => {
      const exists = await stat(request.output).then(
        () => true,
        () => false, // ENOENT is what is wanted; any other error shows when it is written
      );
      if (exists) {
        throw new VmsanError({
          code: "ERR_DISK_EXISTS",
          message: `Cannot write ${request.output}`,
          why: "It exists already.",
          fix: "Remove it, or write to another file.",
        });
      }
      return await buildDiskFile(host, withoutUndefined(request) as DiskRequest, work);
    });
  });
}
