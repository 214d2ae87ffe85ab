/** Routes about the host itself: its images, kernels and health. For admin keys alone but for pulling. */
import * as z from "zod";
import type { PullOptions } from "../../client/images.ts";
import { jsonBody, streamedReply } from "../../http/reply.ts";
import type { DoctorReport } from "../../model/doctor.ts";
import { VmsanError } from "../../model/errors.ts";
import { validate, withoutUndefined } from "../../schema/api.ts";
import { checkImage } from "./bodies.ts";
import type { Route } from "./route.ts";

const pullSchema = z.strictObject({
  image: z.string().min(1).max(4096),
  pull: z.enum(["missing", "always", "never"]).default("missing"),
  platform: z.string().max(64).optional(),
  registry: z.unknown().optional(),
});

const pruneSchema = z.strictObject({ all: z.boolean().default(false) });

/** The routes. */
export const hostRoutes: readonly Route[] = [
  {
    method: "POST",
    path: "/v1/images/pull",
    summary: "Pull an image of a registry into the host's store",
    body: pullSchema,
    answers: "lines",
    run: async ({ c, vmsan }) => {
      // How registries are reached is the host's affair.
      const {
        registry: _,
        image,
        ...options
      } = withoutUndefined(validate(pullSchema, await jsonBody(c), "request to pull an image"));
      checkImage(image);
      return streamedReply(c, async (work) => {
        const { signal, progress } = work;
        const pulling = { ...options, signal, onProgress: progress };
        return await vmsan.images.pull(image, pulling as PullOptions);
      });
    },
  },
  {
    method: "GET",
    path: "/v1/images",
    summary: "Images of the host's store",
    admin: true,
    answers: "json",
    run: async ({ c, vmsan }) => c.json(await vmsan.images.list()),
  },
  {
    method: "DELETE",
    path: "/v1/images",
    summary: "Take a name of an image away; what nothing else uses goes with the next prune",
    admin: true,
    query: { name: "of the image, as the list has it" },
    answers: "nothing",
    run: async ({ c, vmsan }) => {
      const name = c.req.query("name") ?? "";
      if (name === "") {
        throw new VmsanError({
          code: "ERR_VALIDATION_FLAGS",
          message: "The request names no image",
          why: "The query parameter `name` is missing.",
          fix: "Add ?name=IMAGE.",
        });
      }
      await vmsan.images.remove(name);
      return c.body(null, 204);
    },
  },
  {
    method: "POST",
    path: "/v1/images/prune",
    summary: "Remove what neither a name nor a VM uses; with `all` every image that no VM uses",
    admin: true,
    body: pruneSchema,
    answers: "json",
    run: async ({ c, vmsan }) => {
      const body = validate(pruneSchema, await jsonBody(c), "request to prune images");
      return c.json(await vmsan.images.prune(body));
    },
  },
  {
    method: "GET",
    path: "/v1/kernels",
    summary: "Kernels of the host",
    admin: true,
    answers: "json",
    run: async ({ c, vmsan }) => c.json(await vmsan.kernels.list()),
  },
  {
    method: "POST",
    path: "/v1/doctor",
    summary: "Check what the host can do and what is in the way",
    admin: true,
    answers: "lines",
    run: ({ c, vmsan }) =>
      streamedReply<DoctorReport>(c, ({ signal, progress }) =>
        vmsan.doctor({ signal, onProgress: progress }),
      ),
  },
];
