/**
 * schema/: validation of outside data. Takes parsed JSON of unknown shape, gives typed values.
 *
 * oci.ts: documents of the OCI image spec 1.1 and their Docker schema 2 twins, Docker's
 * `save` manifest and credential files. Go programs write `null` for empty lists and maps,
 * so those are accepted wherever a list or map may be empty.
 */
import { z } from "zod";

const digest = z
  .string()
  .regex(/^sha256:[0-9a-f]{64}$/, "is not a sha256 digest")
  .transform((text) => text as `sha256:${string}`);

const size = z
  .number()
  .int()
  .min(0)
  .max(2 ** 50);

const platform = z.object({
  os: z.string().max(64),
  architecture: z.string().max(64),
  variant: z.string().max(64).exactOptional(),
});

const annotations = z.record(z.string(), z.string()).nullish();

/** A descriptor (descriptor.md). */
export const descriptorSchema = z.object({
  mediaType: z.string().min(1).max(255),
  digest,
  size,
  platform: platform.optional(),
  annotations,
});
/** A validated descriptor. */
export type Descriptor = z.output<typeof descriptorSchema>;

/** An image manifest, OCI or Docker schema 2 (manifest.md). */
export const manifestSchema = z.object({
  schemaVersion: z.literal(2),
  mediaType: z.string().optional(),
  config: descriptorSchema,
  layers: z.array(descriptorSchema).max(4096),
  manifests: z.never("a manifest must not also be an index").optional(),
});
/** A validated image manifest. */
export type Manifest = z.output<typeof manifestSchema>;

/** An image index or Docker manifest list (image-index.md). */
export const indexSchema = z.object({
  schemaVersion: z.literal(2),
  mediaType: z.string().optional(),
  manifests: z.array(descriptorSchema).max(100_000),
  layers: z.never("an index must not also be a manifest").optional(),
  annotations,
});
/** A validated index. */
export type Index = z.output<typeof indexSchema>;

const words = z.union([z.array(z.string()), z.string().transform((word) => [word])]).nullish();
const keys = z.record(z.string(), z.unknown()).nullish();

/** An image configuration (config.md), as far as it matters here. */
export const configSchema = z.object({
  architecture: z.string().max(64).default(""),
  os: z.string().max(64).default(""),
  variant: z.string().max(64).optional(),
  created: z.string().nullish(),
  rootfs: z.object({
    type: z.literal("layers"),
    diff_ids: z.array(digest).max(4096).nullish(),
  }),
  config: z
    .object({
      Env: z.array(z.string()).nullish(),
      Entrypoint: words,
      Cmd: words,
      WorkingDir: z.string().nullish(),
      User: z.string().nullish(),
      Labels: z.record(z.string(), z.string()).nullish(),
      ExposedPorts: keys,
      Volumes: keys,
      StopSignal: z.string().nullish(),
    })
    .nullish(),
});
/** A validated image configuration. */
export type ConfigDocument = z.output<typeof configSchema>;

/** `manifest.json` of `docker save`. */
export const dockerSaveSchema = z
  .array(
    z.object({
      Config: z.string().min(1).max(4096),
      RepoTags: z.array(z.string().max(512)).nullish(),
      Layers: z.array(z.string().min(1).max(4096)).max(4096).nullish(),
    }),
  )
  .min(1)
  .max(10_000);
/** A validated `manifest.json` of `docker save`. */
export type DockerSaveManifest = z.output<typeof dockerSaveSchema>;

const authEntry = z.object({
  auth: z.string().optional(),
  username: z.string().optional(),
  password: z.string().optional(),
  identitytoken: z.string().optional(),
});

/** `~/.docker/config.json` or containers' `auth.json`, as far as credentials go. */
export const authFileSchema = z.looseObject({
  auths: z.record(z.string(), authEntry).nullish(),
  credHelpers: z.record(z.string(), z.string()).nullish(),
  credsStore: z.string().nullish(),
});
/** A validated credential file. */
export type AuthFile = z.output<typeof authFileSchema>;

/** What `docker-credential-X get` prints. */
export const helperCredentialsSchema = z.object({ Username: z.string(), Secret: z.string() });

/** A token server's answer (distribution spec, token authentication). */
export const tokenSchema = z
  .object({
    token: z.string().optional(),
    access_token: z.string().optional(),
    expires_in: z.number().nullish(),
  })
  .transform((answer, context) => {
    const token = answer.token ?? answer.access_token;
    if (token === undefined || token === "") {
      context.addIssue({ code: "custom", message: "has no token" });
      return z.NEVER;
    }
    return { token, expiresIn: answer.expires_in ?? 60 };
  });

/** The registries file: mirrors and insecure registries. */
export const registriesFileSchema = z.strictObject({
  mirrors: z.record(z.string(), z.array(z.string())).optional(),
  insecure: z.array(z.string()).optional(),
});
/** A validated registries file. */
export type RegistriesFile = z.output<typeof registriesFileSchema>;

/** A registry's error body. */
export const registryErrorsSchema = z.object({
  errors: z.array(z.object({ code: z.string().optional(), message: z.string().nullish() })),
});
