/**
 * What a context holds, as one digest: times do not count, as they do not for buildah, which takes a copied file's
 * layer from its cache whenever the file was made. So a fresh checkout is the context that it was.
 */
import { createHash } from "node:crypto";
import { BLOCK, decodeHeader, decodePax, padding } from "../agent/archive/pax.ts";

/** Where a header has the time, and the checksum over it. */
const TIME = [136, 148] as const;
const CHECKSUM = [148, 156] as const;
const PAX_TIMES = new Set(["mtime", "atime", "ctime"]);

/** The archive's bytes that count, in order. @throws ERR_AGENT_ARCHIVE */
function* partsOf(archive: Buffer): Generator<Buffer> {
  let real: number | undefined;
  let at = 0;
  while (at + BLOCK <= archive.length) {
    const block = archive.subarray(at, at + BLOCK);
    at += BLOCK;
    const header = decodeHeader(block);
    if (header === undefined) break;
    const timeless = Buffer.from(block);
    for (const field of [TIME, CHECKSUM]) timeless.fill(0, ...field);
    const pax = header.flag === "x";
    const size = pax ? header.size : (real ?? header.size);
    const content = archive.subarray(at, at + size);
    at += size + padding(size);
    if (!pax) {
      yield timeless;
      yield content;
      real = undefined;
      continue;
    }
    // Its length is that of the times, too.
    yield timeless.fill(0, 124, 136);
    for (const [key, value] of decodePax(content)) {
      if (key === "size") real = Number(value.toString("latin1"));
      if (!PAX_TIMES.has(key)) yield Buffer.concat([Buffer.from(`${key}=${value.length}=`), value]);
    }
  }
  // What follows the end is read by some.
  yield archive.subarray(at);
}

/** The digest. What is no archive counts as it is. */
export function contentDigest(archive: Buffer): string {
  const hash = createHash("sha256");
  try {
    for (const part of partsOf(archive)) hash.update(`${part.length} `).update(part);
    return hash.digest("hex");
  } catch {
    // ERR_AGENT_ARCHIVE: the builder will say so.
    return createHash("sha256").update("as it is ").update(archive).digest("hex");
  }
}
