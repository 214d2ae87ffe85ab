/** Names in archives, made relative to the root. Byte strings (latin1). */
import { layerError, readable } from "./errors.ts";
import type { LayerLimits } from "./limits.ts";

/**
 * A name as its components: leading slashes, `.` and empty components dropped, `..` resolved by
 * text and never above the root. The root itself is [].
 * Throws ERR_LAYER_PATH when it is too long or too deep.
 */
export function cleanPath(name: string, limits: LayerLimits): string[] {
  if (name.length > limits.pathBytes) {
    throw layerError(
      "PATH",
      `Cannot use the path ${readable(name.slice(0, 80))}… of a layer`,
      `It has ${name.length} bytes; at most ${limits.pathBytes} are allowed.`,
    );
  }
  const parts: string[] = [];
  for (const part of name.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") {
      parts.pop();
      continue;
    }
    if (part.length > 255 || part.includes("\0")) {
      throw layerError(
        "PATH",
        `Cannot use the name ${readable(part.slice(0, 80))} of a layer`,
        "A name has at most 255 bytes and no NUL.",
      );
    }
    parts.push(part);
  }
  if (parts.length > limits.depth) {
    throw layerError(
      "PATH",
      `Cannot use the path ${readable(name.slice(0, 80))}… of a layer`,
      `It has ${parts.length} components; at most ${limits.depth} are allowed.`,
    );
  }
  return parts;
}

const WHITEOUT = ".wh.";
const META = ".wh..wh.";
const OPAQUE = ".wh..wh..opq";

/** What a name says about lower layers (OCI image spec, layer.md). */
export type Whiteout =
  | { kind: "none" }
  /** Hides this name below. */
  | { kind: "remove"; name: string }
  /** Hides all lower children of its directory. */
  | { kind: "opaque" }
  /** A marker of the aufs file system that means nothing here. */
  | { kind: "ignore" };

/**
 * Interpret a path's last component.
 * Throws ERR_LAYER_WHITEOUT for whiteouts of nothing, of a directory itself or of its parent.
 */
export function whiteoutOf(parts: readonly string[]): Whiteout {
  const last = parts.at(-1);
  if (last === undefined || !last.startsWith(WHITEOUT)) {
    for (const part of parts) {
      // Anything below aufs's own directories belongs to them.
      if (part.startsWith(META)) return { kind: "ignore" };
      if (part.startsWith(WHITEOUT)) throw badWhiteout(parts, "A whiteout is no directory.");
    }
    return { kind: "none" };
  }
  if (last === OPAQUE) return { kind: "opaque" };
  if (last.startsWith(META)) return { kind: "ignore" };
  const name = last.slice(WHITEOUT.length);
  if (name === "" || name === "." || name === "..") {
    throw badWhiteout(parts, "It names nothing that could be removed.");
  }
  return { kind: "remove", name };
}

/** The error for a whiteout that makes no sense. */
function badWhiteout(parts: readonly string[], why: string): Error {
  const path = readable(parts.join("/"));
  return layerError("WHITEOUT", `Cannot apply the whiteout ${path} of a layer`, why);
}

/** Is this a name that must not appear in a tree? */
export function isReserved(name: string): boolean {
  return name.startsWith(WHITEOUT);
}
