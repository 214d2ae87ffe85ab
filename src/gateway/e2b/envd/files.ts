/** envd's /files: one file out, files in, as plain or multipart bodies. */
import { posix } from "node:path";
import type { IncomingMessage, ServerResponse } from "node:http";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import type { Readable } from "node:stream";
import { Busboy } from "@fastify/busboy";
import type { FileEntry } from "../../../agent/files.ts";
import { E2bError } from "../errors.ts";
import { METADATA_PREFIX, look, lookOrNothing, makeParents, rightsOf, stat } from "./entries.ts";
import type { FilesContext } from "./entries.ts";
import { absolute } from "./paths.ts";

/** Most files of one multipart body. */
const MAX_FILES = 1_000;

/** What was written, as clients read it. */
interface Written {
  path: string;
  name: string;
  type: "file";
  metadata?: Record<string, string>;
}

/** Bytes of the longest key, and of all keys and values of a file. */
const MAX_METADATA_KEY = 246;
const MAX_METADATA = 4096;

/** The metadata that a request's headers say: `X-Metadata-KEY: value`. @throws invalid_argument */
function metadataOf({ headersDistinct }: IncomingMessage): Map<string, string> {
  const metadata = new Map<string, string>();
  let size = 0;
  for (const [header, values = []] of Object.entries(headersDistinct)) {
    if (!header.startsWith("x-metadata-")) continue;
    const key = header.slice("x-metadata-".length);
    const [value = ""] = values;
    if (key === "" || key.length > MAX_METADATA_KEY)
      throw new E2bError("invalid_argument", `a metadata key has 1 to ${MAX_METADATA_KEY} bytes`);
    if (!/^[\x20-\x7e]*$/.test(value))
      throw new E2bError("invalid_argument", `metadata ${key} is not printable ASCII`);
    size += key.length + value.length;
    metadata.set(key, value);
  }
  if (size > MAX_METADATA)
    throw new E2bError("invalid_argument", `metadata has more than ${MAX_METADATA} bytes`);
  return metadata;
}

/** Send a file. @throws not_found, invalid_argument for a directory */
async function sendFile(
  response: ServerResponse,
  context: FilesContext,
  at: string,
): Promise<void> {
  const { vm, user } = context;
  await stat(context, at);
  const entry = await look(context, at, true);
  if (entry.type === "dir") throw new E2bError("invalid_argument", `path '${at}' is a directory`);
  await sendContent(response, await vm.openFile(at, rightsOf(user)), entry);
}

/** Send what a file holds. @param entry what is known of it, under its name there */
export async function sendContent(
  response: ServerResponse,
  source: Readable,
  entry: FileEntry,
): Promise<void> {
  const disposition = encodeURIComponent(entry.name.toString("utf8"));
  response.writeHead(200, {
    "content-type": "application/octet-stream",
    "content-disposition": `inline; filename*=UTF-8''${disposition}`,
    // Files of /proc have no size; what is empty must say so, or clients wait for a body.
    ...(entry.type === "file" && entry.size > 0 ? { "content-length": String(entry.size) } : {}),
  });
  // A guest may change its file meanwhile: bytes behind those that were announced would be taken for another answer.
  const sized = entry.type === "file" && entry.size > 0;
  await pipeline(sized ? exactly(source, entry.size) : source, response);
}

/** So many bytes of a stream. Fewer are a failure: who has announced more must not end as if all was said. */
export async function* exactly(
  source: AsyncIterable<Buffer>,
  size: number,
): AsyncGenerator<Buffer> {
  let left = size;
  for await (const chunk of source) {
    if (left === 0) return;
    yield chunk.subarray(0, left);
    left -= Math.min(left, chunk.length);
  }
  if (left > 0) throw new Error(`the file ended ${left} bytes before its size`);
}

/** Whose upload it is, and what is to be kept with the files. */
interface UploadContext extends FilesContext {
  metadata: ReadonlyMap<string, string>;
}

/** Write one file below its directories, which are made. */
async function writeOne(context: UploadContext, at: string, source: Readable): Promise<Written> {
  const { vm, user, metadata } = context;
  const there = await lookOrNothing(context, at, true);
  if (there?.type === "dir") throw new E2bError("invalid_argument", `path is a directory: ${at}`);
  await makeParents(context, at);
  const values = new Map([...metadata].map(([key, value]) => [key, Buffer.from(value)]));
  await vm.writeFile(at, source, {
    ...rightsOf(user),
    // Its watchers are to see a file that is written, not another file.
    inPlace: true,
    // As envd, whose new files change their owner: watchers are told of three events.
    ...(there === undefined ? { mode: 0o644 } : {}),
    attributes: { prefix: METADATA_PREFIX, values },
  });
  return {
    path: at,
    name: posix.basename(at),
    type: "file",
    ...(metadata.size === 0 ? {} : { metadata: Object.fromEntries(metadata) }),
  };
}

/** Write what a multipart body holds: each part named `file`, one after the other. */
async function writeParts(
  request: IncomingMessage,
  body: Readable,
  context: UploadContext,
  path: string | undefined,
): Promise<Written[]> {
  const { user } = context;
  const parts = Busboy({
    headers: request.headers as { "content-type": string },
    isPartAFile: (field: string | undefined) => field === "file",
    preservePath: true,
    limits: { files: MAX_FILES, fields: 0, headerPairs: 100 },
  });
  const written: Promise<Written>[] = [];
  let before: Promise<unknown> = Promise.resolve();
  parts.on("file", (_field: string, source: Readable, filename: string | undefined) => {
    const name = path ?? filename ?? "";
    const one = before.then(async () => {
      if (name === "")
        throw new E2bError("invalid_argument", "a part has no file name and the request no path");
      return await writeOne(context, absolute(name, user), source);
    });
    // A part that nobody reads would stop all that follow; its failure is reported below.
    one.catch(() => source.resume());
    before = one.catch(() => undefined);
    written.push(one);
  });
  await pipeline(body, parts);
  if (written.length === 0) throw new E2bError("invalid_argument", "the body holds no file");
  return await Promise.all(written);
}

/** Answer a request for /files. */
export async function filesRoute(
  request: IncomingMessage,
  response: ServerResponse,
  query: URLSearchParams,
  context: FilesContext,
): Promise<void> {
  const path = query.get("path") ?? undefined;
  if (request.method === "GET" || request.method === "HEAD") {
    if (path === undefined) throw new E2bError("invalid_argument", "path is required");
    await sendFile(response, context, absolute(path, context.user));
    return;
  }
  if (request.method !== "POST") throw new E2bError("unimplemented", "only GET and POST", 405);
  const coding = (request.headers["content-encoding"] ?? "identity").toLowerCase();
  if (coding !== "identity" && coding !== "gzip") {
    throw new E2bError("invalid_argument", `content-encoding ${coding} is not taken`, 415);
  }
  const body: Readable = coding === "gzip" ? request.pipe(createGunzip()) : request;
  request.once("error", (error) => body.destroy(error));
  const multipart = (request.headers["content-type"] ?? "").startsWith("multipart/form-data");
  const upload: UploadContext = { ...context, metadata: metadataOf(request) };
  let written: Written[];
  if (multipart) written = await writeParts(request, body, upload, path);
  else {
    if (path === undefined) throw new E2bError("invalid_argument", "path is required");
    written = [await writeOne(upload, absolute(path, context.user), body)];
  }
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify(written));
}
