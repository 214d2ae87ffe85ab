/** What a client says of a build. */
import * as z from "zod";
import { policySchema } from "./api.ts";
import { registryAccessSchema } from "./registry.ts";

const pair = z
  .string()
  .max(128 << 10)
  .regex(/^[^=\0]+=[^\0]*$/s, "must be KEY=VALUE");

/** First line of a build's request; the context follows it as a tar archive. */
export const buildSchema = z.strictObject({
  tags: z.array(z.string().min(1).max(4096)).max(100),
  place: z.string().max(8192).optional(),
  dockerfile: z.string().max(4 << 20),
  ignore: z
    .string()
    .max(1 << 20)
    .optional(),
  buildArgs: z.array(pair).max(1000),
  labels: z.array(pair).max(1000),
  contexts: z.array(pair).max(100).optional(),
  addHosts: z
    .array(
      z
        .string()
        .max(512)
        .regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]*:[0-9A-Fa-f.:]+$/, "must be NAME:ADDRESS"),
    )
    .max(1000)
    .optional(),
  target: z
    .string()
    .max(256)
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, "must be a stage's name or number")
    .optional(),
  platform: z
    .string()
    .max(64)
    .regex(/^[a-z0-9]+\/[a-z0-9_]+(\/[a-z0-9]+)?$/, "must be os/architecture[/variant]")
    .optional(),
  secrets: z.record(
    z
      .string()
      .max(128)
      .regex(/^[A-Za-z0-9_.-]+$/, "must be letters, digits, dots, dashes and underscores"),
    z.base64().max(1 << 20),
  ),
  noCache: z.boolean(),
  pull: z.enum(["missing", "always", "never"]),
  policy: policySchema,
  registry: registryAccessSchema.optional(),
});

/** The body of `POST /v1/builds/prune`. */
export const buildPruneSchema = z.strictObject({
  unusedMs: z.number().min(0).optional(),
  keepBytes: z.number().min(0).optional(),
});
