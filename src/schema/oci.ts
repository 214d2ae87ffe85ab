/**
 * schema/: validation of outside data. Takes parsed JSON of unknown shape, gives typed values.
 *
 * oci.ts: documents of the OCI image spec 1.1 and their Docker schema 2 twins, Docker's
 * `save` manifest and credential files. Only what is used is demanded: fields that nothing
 * depends on count as absent when they are not of their kind, and `null`, which Go programs
 * write and read for every empty value, is absent everywhere.
 */
import * as z from "zod";
import type { Platform } from "../model/image.ts";

const digest = z
  .string()
  .regex(/^sha256:[0-9a-f]{64}$/, "is not a sha256 digest")
  .transform((text) => text as `sha256:${string}`);

const size = z
  .number()
  .int()
  .min(0)
  .max(2 ** 50);

/** What a field holds that decides something: undefined when absent, refused when of another kind. */
function optional<T extends z.ZodType>(kind: T) {
  return kind.nullish().transform((value) => value ?? undefined);
}

/** What a field holds that nothing depends on: undefined when it is not of its kind, too. */
function descriptive<T extends z.ZodType>(kind: T) {
  return optional(kind.nullish().catch(undefined));
}

/** A map whose values that are no text count as absent. */
const texts = descriptive(z.record(z.string(), z.unknown())).transform(
  (map): Record<string, string> => {
    const entries = Object.entries(map ?? {});
    return Object.fromEntries(
      entries.filter((entry): entry is [string, string] => typeof entry[1] === "string"),
    );
  },
);

/** A platform; none when it leaves out what it is for. */
const platform = descriptive(
  z.object({
    os: optional(z.string().max(64)),
    architecture: optional(z.string().max(64)),
    variant: descriptive(z.string().max(64)),
  }),
).transform((named): Platform | undefined => {
  const { os = "", architecture = "", variant = "" } = named ?? {};
  if (os === "" || architecture === "") return undefined;
  return { os, architecture, ...(variant === "" ? {} : { variant }) };
});

/** A descriptor (descriptor.md) of content that is needed: its size bounds what is read. */
const descriptorSchema = z.object({
  mediaType: optional(z.string().max(255)).transform((type) => type ?? ""),
  digest,
  size,
});
/** A validated descriptor; its media type is empty when it names none. */
export type Descriptor = z.output<typeof descriptorSchema>;

/** An entry of an index: one of several manifests or indexes to choose from. */
const entrySchema = descriptorSchema.extend({
  platform,
  annotations: texts,
});
/** A validated entry of an index. */
export type IndexEntry = z.output<typeof entrySchema>;

/** An image manifest, OCI or Docker schema 2 (manifest.md). */
export const manifestSchema = z.object({
  config: descriptorSchema,
  layers: optional(z.array(descriptorSchema).max(4096)).transform((layers) => layers ?? []),
});
/** A validated image manifest. */
export type Manifest = z.output<typeof manifestSchema>;

/**
 * An image index or Docker manifest list (image-index.md). Its entries are independent of each
 * other: one that cannot be read is set aside with the reason.
 */
export const indexSchema = z
  .object({
    manifests: optional(z.array(z.unknown()).max(100_000)),
  })
  .transform(({ manifests: all }) => {
    const manifests: IndexEntry[] = [];
    const unusable: string[] = [];
    for (const [position, value] of (all ?? []).entries()) {
      const entry = entrySchema.safeParse(value);
      if (entry.success) manifests.push(entry.data);
      else unusable.push(`${position}: ${describeIssues(entry.error)}`);
    }
    return { manifests, unusable };
  });
/** A validated index. */
export type Index = z.output<typeof indexSchema>;

/** What is wrong with a document, in one line: the first three faults. */
export function describeIssues(error: z.ZodError): string {
  return error.issues
    .slice(0, 3)
    .map((issue) => `${issue.path.map(String).join(".") || "document"}: ${issue.message}`)
    .join("; ");
}

/** A list of words. A missing one is empty, so that the others keep their places. */
const list = z.array(
  z
    .string()
    .nullable()
    .transform((word) => word ?? ""),
);
const words = optional(z.union([list, z.string().transform((word) => [word])]));
/** The keys of a map; some tools write a list of them, and an empty list for an empty map. */
const keys = z.union([
  z.array(z.string()),
  z.record(z.string(), z.unknown()).transform((map) => Object.keys(map)),
]);

const positive = descriptive(z.number().min(0).max(Number.MAX_SAFE_INTEGER));

/** `Healthcheck`, which Docker's format has and OCI's has not; times are nanoseconds. */
const healthcheck = descriptive(
  z.object({
    Test: optional(z.array(z.string().max(65_536)).max(1000)),
    Interval: positive,
    Timeout: positive,
    StartPeriod: positive,
    StartInterval: positive,
    Retries: positive,
  }),
);

/** An image configuration (config.md), as far as it matters here. */
export const configSchema = z.object({
  architecture: optional(z.string().max(64)),
  os: optional(z.string().max(64)),
  variant: descriptive(z.string().max(64)),
  created: descriptive(z.string()),
  author: descriptive(z.string()),
  rootfs: optional(z.object({ diff_ids: optional(z.array(digest).max(4096)) })),
  history: descriptive(
    z
      .array(
        z.object({
          created: descriptive(z.string()),
          created_by: descriptive(z.string()),
          author: descriptive(z.string()),
          comment: descriptive(z.string()),
          empty_layer: descriptive(z.boolean()),
        }),
      )
      .max(10_000),
  ),
  config: optional(
    z.object({
      Env: optional(list),
      Entrypoint: words,
      Cmd: words,
      WorkingDir: optional(z.string()),
      User: optional(z.string()),
      Volumes: optional(keys),
      Labels: texts,
      ExposedPorts: descriptive(keys),
      StopSignal: descriptive(z.string()),
      Healthcheck: healthcheck,
    }),
  ),
});
/** A validated image configuration. */
export type ConfigDocument = z.output<typeof configSchema>;

/** `manifest.json` of `docker save`. */
export const dockerSaveSchema = z
  .array(
    z.object({
      Config: z.string().min(1).max(4096),
      RepoTags: optional(z.array(z.string().max(512))).transform((tags) => tags ?? []),
      Layers: optional(z.array(z.string().min(1).max(4096)).max(4096)).transform(
        (layers) => layers ?? [],
      ),
    }),
  )
  .min(1)
  .max(10_000);
/** A validated `manifest.json` of `docker save`. */
export type DockerSaveManifest = z.output<typeof dockerSaveSchema>;

/** `repositories` of a `docker save` before Docker 1.10: repository → tag → identifier of an image. */
export const legacyTagsSchema = z.record(
  z.string(),
  z.record(z.string(), z.string().min(1).max(255)),
);

/** `ID/json` beside it: an image's settings, of which its parent is told here. */
export const legacyImageSchema = z.object({
  parent: optional(z.string().max(255)),
  created: z.unknown().optional(),
  architecture: z.unknown().optional(),
  os: z.unknown().optional(),
  config: z.unknown().optional(),
});

/** One entry of `auths`. */
export const authEntrySchema = z.object({
  auth: descriptive(z.string()),
  username: descriptive(z.string()),
  password: descriptive(z.string()),
  identitytoken: descriptive(z.string()),
});

/**
 * `~/.docker/config.json` or containers' `auth.json`, as far as credentials go; entries are looked
 * at when they are needed, and kept as they are when the file is written.
 */
export const authFileSchema = z.looseObject({
  auths: z.record(z.string(), z.unknown()).nullish(),
  credHelpers: z.record(z.string(), z.unknown()).nullish(),
  credsStore: z.string().nullish(),
});
/** A validated credential file. */
export type AuthFile = z.output<typeof authFileSchema>;

/** What `docker-credential-X get` prints. */
export const helperCredentialsSchema = z.object({ Username: z.string(), Secret: z.string() });

/** A token server's answer (distribution spec, token authentication): the token, under either name. */
export const tokenSchema = z
  .object({ token: descriptive(z.string()), access_token: descriptive(z.string()) })
  .transform((answer, context) => {
    const token = answer.token || answer.access_token;
    if (token !== undefined && token !== "") return token;
    context.addIssue({ code: "custom", message: "has no token" });
    return z.NEVER;
  });

/** The registries file: mirrors and insecure registries. */
export const registriesFileSchema = z.strictObject({
  mirrors: z.record(z.string(), z.array(z.string())).optional(),
  insecure: z.array(z.string()).optional(),
});

/** A registry's error body. */
export const registryErrorsSchema = z.object({
  errors: z.array(z.object({ code: descriptive(z.string()), message: descriptive(z.string()) })),
});
