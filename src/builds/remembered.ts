/**
 * Builds that need not be done again. buildah tells within its cache, step by step, that nothing has changed;
 * when nothing at all has, which is told here without it, the result is the one that there is.
 *
 * What counts is everything that buildah is given: the Dockerfile, the context's files, arguments, secrets, the
 * policy, and what each image that it asked for is by now. What may depend on more is never remembered: an ADD (of an
 * address, whose content is asked for anew), and images with ONBUILD, which may have one.
 */
import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import type { BuildRequest } from "../model/api/builds.ts";
import { contentDigest } from "./content.ts";
import type { Asked, Imports } from "./registry/imports.ts";

/** Largest context that is looked at before it is sent, in bytes: it is kept in memory. */
const SMALL = 8 << 20;
/** Results that are remembered, at most. */
const MOST = 1000;

/**
 * A context's bytes, if they are few, and all of it as a stream.
 */
export async function lookAt(context: Readable): Promise<{ few?: Buffer; all: Readable }> {
  const iterator = context[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  const parts: Buffer[] = [];
  let size = 0;
  for (;;) {
    const next = await iterator.next();
    if (next.done === true) {
      const few = Buffer.concat(parts);
      return { few, all: Readable.from([few], { objectMode: false }) };
    }
    parts.push(next.value);
    size += next.value.length;
    if (size > SMALL) break;
  }
  const all = (async function* following(): AsyncGenerator<Buffer> {
    yield* parts;
    yield* { [Symbol.asyncIterator]: () => iterator };
  })();
  return { all: Readable.from(all, { objectMode: false }) };
}

/**
 * Whether a Dockerfile may have an ADD, or an ONBUILD, which a later stage may carry out. It is not parsed: lines that
 * are comments anywhere are left out, and a word counts at the start of any line, also with line ends within it.
 */
function mayAdd(dockerfile: string): boolean {
  const text = dockerfile.replaceAll(/^[^\S\n]*#.*$/gm, "");
  const spread = (word: string): string => word.split("").join("[^a-z]*");
  return new RegExp(`^[^a-z\\n]*(?:${spread("add")}|${spread("onbuild")})(?![a-z])`, "im").test(
    text,
  );
}

/**
 * What a build is made from, as one digest.
 * @returns undefined when its result may depend on more
 */
export function originOf(request: BuildRequest, context: Buffer): string | undefined {
  // What names the result, and how images are found: which ones they are is asked anew.
  const {
    tags: _tags,
    place: _place,
    noCache,
    pull: _pull,
    registry: _registry,
    ...given
  } = request;
  if (noCache || mayAdd(request.dockerfile)) return undefined;
  return createHash("sha256")
    .update(`${JSON.stringify(given)}\n`)
    .update(contentDigest(context))
    .digest("hex");
}

/** A result. */
interface Result {
  config: string;
  /** What was asked for, and what it was. */
  asked: readonly Asked[];
  /** The builder's cache that has the steps: without it, they would be run. */
  cache: string;
}

/** Results by what they were made from, for as long as the daemon runs. */
export class Remembered {
  readonly #results = new Map<string, Result>();

  /** Remember the result of a build that came to its end. */
  add(origin: string, config: string, imports: Imports, cache: string): void {
    if (imports.triggers.length > 0) return;
    this.#results.delete(origin);
    this.#results.set(origin, { config: config, asked: imports.asked, cache });
    const [oldest] = this.#results.keys();
    if (this.#results.size > MOST && oldest !== undefined) this.#results.delete(oldest);
  }

  /**
   * The configuration of what the same build would result in.
   * @param imports asked for the images as the build would
   * @throws what a build would, when an image cannot be had
   */
  async find(origin: string, imports: Imports, cache: string): Promise<string | undefined> {
    const known = this.#results.get(origin);
    if (known?.cache !== cache) return undefined;
    for (const { place, repository, reference, digest } of known.asked) {
      const now = await imports.manifest(place, repository, reference);
      if (now.digest !== digest) return undefined;
    }
    return known.config;
  }
}
