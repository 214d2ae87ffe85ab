/** What a build sends: the Dockerfile, and the files around it that are not ignored, as an archive. */
import { createReadStream } from "node:fs";
import { readFile, realpath, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { Readable } from "node:stream";
import { pack } from "../../agent/archive/pack.ts";
import { VmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import { absolutePath } from "../../util/byte-text.ts";
import { AttributeReader } from "./attributes.ts";
import { isArchive, keepArchive, textIn } from "./archive.ts";

/** Names of Dockerfiles in a context, in the order in which they are looked for. */
const NAMES = ["Containerfile", "Dockerfile"];
/** Files that say what of a context is ignored, likewise. */
const IGNORES = [".containerignore", ".dockerignore"];

/** The error for files that a build needs. */
function contextError(message: string, why: string, fix: string, cause?: unknown): VmsanError {
  return new VmsanError({ code: "ERR_BUILD_CONTEXT", message, why, fix }, cause);
}

/** A small file's text; undefined when it is not there. */
async function textOf(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw contextError(`Cannot read ${path}`, messageOf(error), "Check its path and mode.", error);
  }
}

/** What is built from. */
export interface Sources {
  dockerfile: string;
  /** Patterns of what is left out; of a context that is an archive only those beside the Dockerfile, others travel in it. */
  ignore?: string;
  /** Opens the context as an archive. */
  open: () => Readable;
  /** Takes away what was kept for the build. */
  close?: () => Promise<void>;
}

/** The Dockerfile of a context. @throws ERR_BUILD_CONTEXT */
async function findDockerfile(
  context: string,
  file: string | undefined,
): Promise<[string, string]> {
  const paths =
    file === undefined
      ? NAMES.map((name) => join(context, name))
      : [absolutePath(file), resolve(context, file)];
  for (const path of paths) {
    const text = await textOf(path);
    if (text !== undefined) return [path, text];
  }
  throw contextError(
    `Cannot build ${context}`,
    `There is no ${file ?? NAMES.join(" and no ")}.`,
    "Name the Dockerfile with -f FILE, or give the directory that holds it.",
  );
}

/** Tells which paths are left out. */
type Skip = (name: Buffer, directory: boolean) => boolean;

/** What tells which paths of a context are left out. */
async function filterOf(patterns: string | undefined): Promise<Skip | undefined> {
  if (patterns === undefined) return undefined;
  const { default: module } = await import("@balena/dockerignore");
  // Its types describe a module of today; what Node.js loads is the function itself.
  const dockerignore = module as unknown as typeof module.default;
  const lines = patterns
    .replace(/^\uFEFF/, "")
    .split(/\r?\n/)
    .filter((line) => !line.startsWith("#"));
  const ignore = dockerignore({ ignorecase: false }).add(lines);
  const exceptions = lines.some((line) => line.trim().startsWith("!"));
  // What is in an ignored directory may be wanted after all.
  return (name, directory) => !(directory && exceptions) && ignore.ignores(name.toString("utf8"));
}

/** A directory as an archive, with the extended attributes of its files. */
async function* packContext(dir: string, skip: Skip | undefined): AsyncGenerator<Buffer> {
  const reader = new AttributeReader();
  try {
    yield* pack([{ path: dir, name: Buffer.from(".") }], {
      ...(skip === undefined ? {} : { skip }),
      attributesOf: async (paths) => reader.of(paths),
    });
  } finally {
    await reader.close();
  }
}

/**
 * What a build of a directory is made from. What is ignored is not read.
 * @param context the directory
 * @param file the Dockerfile; default the context's own
 * @param given the Dockerfile's text instead
 * @throws ERR_BUILD_CONTEXT
 */
export async function sourcesOf(
  context: string,
  file: string | undefined,
  given?: string,
): Promise<Sources> {
  const dir = absolutePath(context);
  const stats = await stat(dir).catch(() => undefined); // ENOENT and the like: said below
  if (stats?.isDirectory() !== true) {
    throw contextError(
      `Cannot build ${context}`,
      "It is no directory.",
      "Give the directory with the files that the Dockerfile copies, or - for none.",
    );
  }
  const [path, dockerfile] = given === undefined ? await findDockerfile(dir, file) : ["", given];
  const ignore = path === "" ? undefined : await textOf(`${path}.dockerignore`);
  let patterns = ignore;
  for (const name of IGNORES) patterns ??= await textOf(join(dir, name));
  const skip = await filterOf(patterns);
  // A symlink to a directory would be packed as what it is.
  const real = await realpath(dir);
  return {
    dockerfile,
    // Also those of the context: they may leave out their own file, and what they mean is for buildah to say.
    ...(patterns === undefined ? {} : { ignore: patterns }),
    open: () => Readable.from(packContext(real, skip), { objectMode: false }),
  };
}

/** Longest text that is taken for a Dockerfile, in bytes. */
const MAX_TEXT = 4 << 20;

/** A stream's first 512 bytes at least, and all of it. */
async function withHead(input: Readable): Promise<{ head: Buffer; all: AsyncGenerator<Buffer> }> {
  const iterator = input[Symbol.asyncIterator]() as AsyncIterator<Buffer | string>;
  let head: Buffer = Buffer.alloc(0);
  while (head.length < 512) {
    const next = await iterator.next();
    if (next.done === true) break;
    head = Buffer.concat([head, Buffer.from(next.value)]);
  }
  const all = (async function* following(): AsyncGenerator<Buffer> {
    yield head;
    for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) {
      yield Buffer.from(next.value);
    }
  })();
  return { head, all };
}

/**
 * A Dockerfile from a stream.
 * @throws ERR_BUILD_CONTEXT when it is too long for one
 */
export async function textOfStream(input: AsyncIterable<Buffer | string>): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of input) {
    const bytes = Buffer.from(part);
    size += bytes.length;
    if (size > MAX_TEXT) {
      throw contextError(
        "Cannot build from standard input",
        "It is longer than any Dockerfile, and no tar archive.",
        "Send a Dockerfile, or a context as tar (plain, gzip, bzip2, xz or zstd).",
      );
    }
    parts.push(bytes);
  }
  return Buffer.concat(parts).toString("utf8");
}

/**
 * What a build from a stream is made from: a Dockerfile without a context, or a context as a tar
 * archive (plain, gzip, bzip2, xz or zstd) with the Dockerfile in it.
 * @param file the Dockerfile's path in the archive; default the context's own
 * @param given the Dockerfile's text instead
 * @throws ERR_BUILD_CONTEXT
 */
export async function sourcesOfStream(
  input: Readable,
  file?: string,
  given?: string,
): Promise<Sources> {
  const { head, all } = await withHead(input);
  if (!isArchive(head)) {
    if (file === undefined && given === undefined) {
      return { dockerfile: await textOfStream(all), open: emptyContext };
    }
    throw contextError(
      "Cannot build from this stream",
      "It is no tar archive, and the Dockerfile comes from elsewhere.",
      "Send the context as tar (plain, gzip, bzip2, xz or zstd), or give its directory.",
    );
  }
  const kept = await keepArchive(all);
  const sources = { open: () => createReadStream(kept.path), close: kept.remove };
  try {
    const dockerfile = given ?? (await textIn(kept.path, file === undefined ? NAMES : [file]));
    if (dockerfile !== undefined) {
      // In an archive, too, a Dockerfile may have patterns of its own.
      const ignore =
        file === undefined ? undefined : await textIn(kept.path, [`${file}.dockerignore`]);
      return { dockerfile, ...(ignore === undefined ? {} : { ignore }), ...sources };
    }
  } catch (error) {
    await kept.remove();
    throw contextError(
      "Cannot read the archive of the context",
      messageOf(error),
      "Send a whole tar archive.",
      error,
    );
  }
  await kept.remove();
  throw contextError(
    "Cannot build from the archive",
    `There is no ${file ?? NAMES.join(" and no ")} in it.`,
    "Name the Dockerfile's path in the archive with -f FILE.",
  );
}

/** An archive of nothing. */
export function emptyContext(): Readable {
  return Readable.from([Buffer.alloc(1024)], { objectMode: false });
}

/**
 * The content of a secret, in base64.
 * @param given path of its file, or its bytes
 * @throws ERR_BUILD_CONTEXT
 */
export async function secretOf(id: string, given: string | Uint8Array): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  try {
    const source =
      typeof given === "string" ? createReadStream(absolutePath(given)) : [Buffer.from(given)];
    for await (const part of source as AsyncIterable<Buffer> | Buffer[]) {
      size += part.length;
      if (size > 500 << 10) throw new Error("it is longer than 500 KiB");
      parts.push(part);
    }
  } catch (error) {
    const from = typeof given === "string" ? ` from ${given}` : "";
    const message = `Cannot read the secret ${id}${from}`;
    throw contextError(message, `${messageOf(error)}.`, "Check its path and mode.", error);
  }
  return Buffer.concat(parts).toString("base64");
}
