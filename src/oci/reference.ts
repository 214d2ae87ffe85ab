/** Registry references, spelled as Docker spells them (distribution/reference grammar). */
import type { Digest, ImageReference } from "../model/image.ts";
import { imageError } from "./errors.ts";

const COMPONENT = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
const REPOSITORY = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const DOMAIN_LABEL = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
const REGISTRY = new RegExp(
  `^(?:${DOMAIN_LABEL}(?:\\.${DOMAIN_LABEL})*|\\[[0-9a-fA-F:]+\\])(?::[0-9]{1,5})?$`,
);
const TAG = /^\w[\w.-]{0,127}$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;

/** Whether the text is a `sha256:` digest. */
export function isDigest(text: string): text is Digest {
  return DIGEST.test(text);
}

/** The error for a reference that cannot be one. */
export function referenceError(text: string, why: string, fix?: string): Error {
  return imageError(
    "ERR_VALIDATION_IMAGE_REF",
    `Cannot use ${JSON.stringify(text.slice(0, 300))} as an image`,
    why,
    fix ??
      "Write it like node:22, ghcr.io/owner/name:tag, name@sha256:…, oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, docker-daemon:NAME or rootfs:DIR.",
  );
}

/** Split the registry's host from the rest, as Docker does: it has a dot, a port or is localhost. */
function splitRegistry(name: string): { registry: string; path: string } {
  const slash = name.indexOf("/");
  const first = slash === -1 ? "" : name.slice(0, slash);
  const isHost = /[.:]/.test(first) || first === "localhost" || first !== first.toLowerCase();
  if (!isHost) return { registry: "docker.io", path: name };
  const registry = first === "index.docker.io" ? "docker.io" : first;
  return { registry, path: name.slice(slash + 1) };
}

/**
 * Parse a registry reference and spell it out: `node` becomes `docker.io/library/node:latest`.
 * Throws ERR_VALIDATION_IMAGE_REF.
 */
export function parseReference(text: string): ImageReference {
  if (text === "") throw referenceError(text, "It is empty.");
  if (text.length > 1024) throw referenceError(text, "It is longer than 1024 characters.");
  let rest = text;
  let digest: Digest | undefined;
  const at = rest.indexOf("@");
  if (at !== -1) {
    const given = rest.slice(at + 1);
    if (!isDigest(given)) {
      throw referenceError(text, "A digest is `sha256:` and 64 lower-case hex digits.");
    }
    digest = given;
    rest = rest.slice(0, at);
  }
  let tag: string | undefined;
  const colon = rest.lastIndexOf(":");
  if (colon > rest.lastIndexOf("/")) {
    tag = rest.slice(colon + 1);
    if (!TAG.test(tag)) {
      throw referenceError(
        text,
        `The tag ${JSON.stringify(tag)} is not 1–128 letters, digits, "_", "." or "-" (the first one no "." or "-").`,
      );
    }
    rest = rest.slice(0, colon);
  }
  const { registry, path } = splitRegistry(rest);
  if (!REGISTRY.test(registry)) {
    throw referenceError(
      text,
      `${JSON.stringify(registry)} is not a host name with optional port.`,
    );
  }
  const port = /:(\d+)$/.exec(registry)?.[1];
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65_535)) {
    throw referenceError(text, `Port ${port} is not between 1 and 65535.`);
  }
  const repository =
    registry === "docker.io" && path !== "" && !path.includes("/") ? `library/${path}` : path;
  if (!REPOSITORY.test(repository)) {
    throw referenceError(
      text,
      path === path.toLowerCase()
        ? `${JSON.stringify(path)} is not a repository name (lower-case letters, digits, and single ".", "_", "-" between them, parts split by "/").`
        : `The repository name ${JSON.stringify(path)} must be lower-case.`,
    );
  }
  if (`${registry}/${repository}`.length > 255) {
    throw referenceError(text, "The repository's name is longer than 255 characters.");
  }
  if (registry === "docker.io" && /^[0-9a-f]{64}$/.test(path)) {
    throw referenceError(text, "64 hex digits are an image ID, not a repository name.");
  }
  return {
    registry,
    repository,
    ...(tag === undefined && digest === undefined ? { tag: "latest" } : {}),
    ...(tag === undefined ? {} : { tag }),
    ...(digest === undefined ? {} : { digest }),
  };
}

/** The full spelling: `docker.io/library/node:22@sha256:…`. */
export function formatReference(reference: ImageReference): string {
  const tag = reference.tag === undefined ? "" : `:${reference.tag}`;
  const digest = reference.digest === undefined ? "" : `@${reference.digest}`;
  return `${reference.registry}/${reference.repository}${tag}${digest}`;
}
