/** Image sources as users write them. Imports nothing heavy: it is parsed before any work. */
import { resolve } from "node:path";
import type { ImageSource } from "../model/image.ts";
import { formatReference, parseReference, referenceError } from "./reference.ts";

/** What {@link parseImageSource} may be told. */
export interface ParseOptions {
  /** Directory for relative paths; default the process's. */
  cwd?: string;
  /** Names that mean a runtime of the catalogue instead of a repository on Docker Hub. */
  runtimes?: readonly string[];
}

/** Split `PATH[:TAG]` at the first colon, as skopeo does: a tag may hold colons, a path may not. */
function splitPath(text: string, rest: string, cwd: string): { path: string; tag?: string } {
  const colon = rest.indexOf(":");
  const path = colon === -1 ? rest : rest.slice(0, colon);
  if (path === "") throw referenceError(text, "There is no path after the first colon.");
  if (path.includes("\0")) throw referenceError(text, "A path cannot hold a NUL character.");
  if (colon === -1) return { path: resolve(cwd, path) };
  const tag = rest.slice(colon + 1);
  if (!/^[\w][\w.:@+/-]{0,511}$/.test(tag)) {
    throw referenceError(text, `${JSON.stringify(tag)} is not a tag.`);
  }
  return { path: resolve(cwd, path), tag };
}

/**
 * Parse what a user wrote where an image is wanted: `node:22`, `oci:DIR[:TAG]`,
 * `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:TAG]`, `docker-daemon:NAME`,
 * `rootfs:DIR|FILE`, or a runtime's name. Throws ERR_VALIDATION_IMAGE_REF.
 */
export function parseImageSource(text: string, options: ParseOptions = {}): ImageSource {
  const cwd = options.cwd ?? process.cwd();
  if (options.runtimes?.includes(text) === true) return { kind: "runtime", name: text };
  const colon = text.indexOf(":");
  const scheme = colon === -1 ? "" : text.slice(0, colon);
  const rest = text.slice(colon + 1);
  switch (scheme) {
    case "oci":
    case "oci-archive":
    case "docker-archive":
      return { kind: scheme, ...splitPath(text, rest, cwd) };
    case "rootfs":
      if (rest === "" || rest.includes("\0")) throw referenceError(text, "It names no path.");
      return { kind: "rootfs", path: resolve(cwd, rest) };
    case "docker-daemon": {
      if (/^sha256:[0-9a-f]{64}$/.test(rest)) return { kind: "docker-daemon", name: rest };
      parseReference(rest);
      return { kind: "docker-daemon", name: rest };
    }
    case "docker":
      if (rest.startsWith("//")) {
        return { kind: "registry", reference: parseReference(rest.slice(2)) };
      }
      break;
    default:
      break;
  }
  if (/^[a-z][a-z-]*:\/\//.test(text)) {
    throw referenceError(
      text,
      "A registry reference has no scheme.",
      "Leave the scheme out: ghcr.io/owner/name:tag.",
    );
  }
  return { kind: "registry", reference: parseReference(text) };
}

/** The source as text that {@link parseImageSource} reads back. */
export function formatImageSource(source: ImageSource): string {
  switch (source.kind) {
    case "registry":
      return formatReference(source.reference);
    case "oci":
    case "oci-archive":
    case "docker-archive":
      return `${source.kind}:${source.path}${source.tag === undefined ? "" : `:${source.tag}`}`;
    case "docker-daemon":
      return `docker-daemon:${source.name}`;
    case "rootfs":
      return `rootfs:${source.path}`;
    case "runtime":
      return source.name;
  }
}
