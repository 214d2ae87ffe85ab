/** Which servers stand for a registry: itself, its mirrors, with or without TLS. */
import { readFile } from "node:fs/promises";
import type { ImageReference } from "../../model/image.ts";
import { errnoOf, messageOf } from "../../model/errors.ts";
import { registriesFileSchema } from "../../schema/oci.ts";
import { imageError } from "../errors.ts";
import { isLoopback } from "../../util/hosts/loopback.ts";

/** Mirrors and registries without checked TLS. */
export interface RegistriesConfig {
  /** Registry → servers asked before it, e.g. `https://mirror.example[:PORT][/PREFIX]`. */
  mirrors: Record<string, string[]>;
  /** `HOST[:PORT]` whose certificate is not checked and that may lack TLS. */
  insecure: string[];
}

/** A server that may hold a repository. */
export interface Endpoint {
  /** Host with port, as in certs.d and in credential files. */
  host: string;
  /** Addresses to try until one speaks; https first, http only where that is allowed. */
  bases: URL[];
  /** Path of the repository there. */
  repository: string;
  /** For credentials: the registry's name as users write it. */
  registry: string;
}

/**
 * Read the registries file (JSON: `{"mirrors": {"docker.io": ["https://…"]}, "insecure":
 * ["host:port"]}`); without one there are no mirrors. Throws ERR_IMAGE_REGISTRIES_FILE.
 */
export async function loadRegistries(path: string): Promise<RegistriesConfig> {
  let value: unknown;
  try {
    value = JSON.parse(await readFile(path, "utf8"));
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return { mirrors: {}, insecure: [] };
    throw registriesError(path, messageOf(error));
  }
  const result = registriesFileSchema.safeParse(value);
  if (!result.success) {
    const issue = result.error.issues[0];
    throw registriesError(path, `${issue?.path.join(".") ?? ""}: ${issue?.message ?? "invalid"}`);
  }
  return { mirrors: result.data.mirrors ?? {}, insecure: result.data.insecure ?? [] };
}

/** The error for a registries file that cannot be used. */
function registriesError(path: string, why: string): Error {
  return imageError(
    "ERR_IMAGE_REGISTRIES_FILE",
    `Cannot use the registries file ${path}`,
    why,
    'Write it like {"mirrors": {"docker.io": ["https://mirror.example"]}, "insecure": ["registry.lan:5000"]}.',
  );
}

/** The addresses under which a host may answer. */
function basesOf(host: string, insecure: readonly string[]): URL[] {
  const secure = new URL(`https://${host}`);
  const plain = insecure.includes(host) || isLoopback(secure.hostname);
  return plain ? [secure, new URL(`http://${host}`)] : [secure];
}

/** A mirror's endpoint: its address may name a scheme and a path before the repository. */
function mirrorEndpoint(
  mirror: string,
  reference: ImageReference,
  insecure: readonly string[],
): Endpoint {
  const hasScheme = /^https?:\/\//.test(mirror);
  let url: URL;
  try {
    url = new URL(hasScheme ? mirror : `https://${mirror}`);
  } catch (error) {
    throw imageError(
      "ERR_IMAGE_REGISTRIES_FILE",
      `Cannot use the mirror ${JSON.stringify(mirror)}`,
      messageOf(error),
      "Write it like https://mirror.example:5000/prefix.",
      error,
    );
  }
  const plain = url.protocol === "http:";
  if (plain && !insecure.includes(url.host) && !isLoopback(url.hostname)) {
    throw imageError(
      "ERR_IMAGE_REGISTRIES_FILE",
      `Cannot use the mirror ${mirror}`,
      `It has no TLS, and ${url.host} is not listed as insecure.`,
      `Use https, or add "${url.host}" to "insecure".`,
    );
  }
  const prefix = url.pathname.replace(/^\/+|\/+$/g, "");
  return {
    host: url.host,
    bases: hasScheme ? [new URL(url.origin)] : basesOf(url.host, insecure),
    repository: prefix === "" ? reference.repository : `${prefix}/${reference.repository}`,
    registry: url.host,
  };
}

/** The servers to ask for a reference, in order: mirrors, then the registry itself. */
export function endpointsFor(reference: ImageReference, config: RegistriesConfig): Endpoint[] {
  const { registry, repository } = reference;
  const host = registry === "docker.io" ? "registry-1.docker.io" : registry;
  const mirrors = config.mirrors[registry] ?? [];
  return [
    ...mirrors.map((mirror) => mirrorEndpoint(mirror, reference, config.insecure)),
    { host, bases: basesOf(host, config.insecure), repository, registry },
  ];
}
