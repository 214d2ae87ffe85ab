/** Odd values of image configurations, read as Docker reads them; test/image-configs has a table. */
import { posix } from "node:path";

/** Longest path that Linux takes, in bytes. */
const MAX_PATH = 4095;

/**
 * `Env` as commands can have it: entries without a name or without `=` are dropped, as they are by
 * Docker, and so are entries with a NUL, which no command could be started with.
 */
export function environmentOf(entries: readonly string[]): string[] {
  return entries.filter((entry) => entry.indexOf("=") > 0 && !entry.includes("\0"));
}

/** `Entrypoint`; one empty word is how build tools write "none". */
export function entrypointOf(words: readonly string[]): string[] {
  return words.length === 1 && words[0] === "" ? [] : [...words];
}

/** A path of the image, from its root and without detours; empty stays empty. */
export function absoluteInImage(path: string): string {
  return path === "" ? "" : posix.resolve("/", path);
}

/** The directories of `Volumes` that can be made; `/` is there anyway. */
export function volumesOf(paths: readonly string[]): string[] {
  const whole = new Set(paths.map(absoluteInImage));
  return [...whole].filter(
    (path) => path.length > 1 && Buffer.byteLength(path) <= MAX_PATH && !path.includes("\0"),
  );
}
