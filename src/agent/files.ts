/** Files of a guest: look, move, remove, watch. Copying is in copy.ts. */
import type { Readable } from "node:stream";
import { protocolError } from "./frames.ts";
import { startStream } from "./streams.ts";
import { offsetField } from "./spec.ts";
import type { StreamSpec } from "./spec.ts";
import type { GuestTransport } from "./transport.ts";
import { checkExit, withSignal, withUser } from "./file-stream.ts";
import type { FileOptions } from "./file-stream.ts";

/** One file, directory … of a guest. */
export interface FileEntry {
  /** Last component; bytes that need not be text. */
  name: Buffer;
  /** Absolute; it may stand for bytes (util/byte-text.ts). */
  path: string;
  type: "file" | "dir" | "symlink" | "fifo" | "socket" | "char" | "block";
  size: number;
  mode: number;
  uid: number;
  gid: number;
  mtimeNs: bigint;
  atimeNs: bigint;
  /** When its inode was last changed. */
  ctimeNs: bigint;
  nlink: number;
  /** Of a symlink. */
  target?: Buffer;
  /** Of a device: `major:minor`. */
  device?: string;
  /** Values of the extended attributes that were asked for, by what follows the prefix. */
  attributes: Map<string, Buffer>;
}

const TYPES = new Set(["file", "dir", "symlink", "fifo", "socket", "char", "block"]);

/** Check the attributes that the agent sent: base64 by name. */
function parseAttributes(value: unknown): Map<string, Buffer> {
  if (typeof value !== "object" || value === null) return new Map();
  return new Map(
    Object.entries(value).map(([name, text]) => [name, Buffer.from(String(text), "base64")]),
  );
}

/** Check one entry that the agent sent. */
function parseEntry(value: unknown): FileEntry {
  if (typeof value !== "object" || value === null) throw protocolError("A file that is no object.");
  const given = value as Record<string, unknown>;
  const text = (key: string): string => {
    const field = given[key];
    return typeof field === "string" ? field : "";
  };
  const count = (key: string): number => {
    const field = given[key];
    return typeof field === "number" && Number.isInteger(field) && field >= 0 ? field : 0;
  };
  const type = text("type");
  if (!TYPES.has(type))
    throw protocolError(`A file of the type ${JSON.stringify(type.slice(0, 20))}.`);
  const time = (key: string): bigint => {
    const field = text(key);
    return /^-?\d{1,20}$/.test(field) ? BigInt(field) : 0n;
  };
  return {
    name: Buffer.from(text("name"), "base64"),
    path: text("path"),
    type: type as FileEntry["type"],
    size: offsetField(given, "size"),
    mode: count("mode") & 0o7777,
    uid: count("uid"),
    gid: count("gid"),
    mtimeNs: time("mtimeNs"),
    atimeNs: time("atimeNs"),
    ctimeNs: time("ctimeNs"),
    nlink: count("nlink"),
    ...(typeof given["target"] === "string"
      ? { target: Buffer.from(given["target"], "base64") }
      : {}),
    ...(typeof given["dev"] === "string" ? { device: given["dev"] } : {}),
    attributes: parseAttributes(given["attributes"]),
  };
}

/** A JSON call about files. */
async function call<T>(
  transport: GuestTransport,
  operation: string,
  body: Record<string, unknown>,
  options: FileOptions,
  idempotent: boolean,
): Promise<T> {
  const { user, override, signal } = options;
  return await transport.request<T>("POST", `/v1/fs/${operation}`, {
    body: {
      ...body,
      ...(user === undefined ? {} : { user }),
      ...(override === true ? { override } : {}),
    },
    idempotent,
    ...(signal === undefined ? {} : { signal }),
  });
}

/**
 * What is at a path of the guest.
 * @param follow of a symlink: what it points to
 * @param attributes prefix of extended attributes to tell, `user.…`
 */
export async function statFile(
  transport: GuestTransport,
  path: string,
  options: FileOptions & { follow?: boolean; attributes?: string } = {},
): Promise<FileEntry> {
  const { follow = false, attributes = "" } = options;
  return parseEntry(await call(transport, "stat", { path, follow, attributes }, options, true));
}

/**
 * The content of a small file of the guest, by one call instead of a stream.
 * @param limit most bytes, 1 MiB at most; a longer file is an error
 */
export async function readSmallFile(
  transport: GuestTransport,
  path: string,
  limit: number,
  options: FileOptions = {},
): Promise<Buffer> {
  const reply = await call<{ content?: unknown }>(
    transport,
    "read",
    { path, limit },
    options,
    true,
  );
  return Buffer.from(String(reply.content), "base64");
}

/**
 * What is in a directory of the guest, or below it.
 * @param depth with `recursive`: how far down, 1 being the directory itself; default all of it
 * @param attributes as for {@link statFile}
 */
export async function listFiles(
  transport: GuestTransport,
  path: string,
  options: FileOptions & { recursive?: boolean; depth?: number; attributes?: string } = {},
): Promise<FileEntry[]> {
  const { recursive = false, depth = 0, attributes = "" } = options;
  const body = { path, recursive, depth, attributes };
  const reply = await call<unknown>(transport, "list", body, options, true);
  if (reply === undefined) return [];
  return (Array.isArray(reply) ? reply : [reply]).map((entry) => parseEntry(entry));
}

/** Make a directory in the guest. */
export async function makeDirectory(
  transport: GuestTransport,
  path: string,
  options: FileOptions & { parents?: boolean; mode?: number } = {},
): Promise<void> {
  const { parents = false, mode } = options;
  const body = { path, parents, ...(mode === undefined ? {} : { mode }) };
  await call(transport, "mkdir", body, options, parents);
}

/** Set owner, group and mode of what is at a path of the guest, each if it is given; of a symlink its own owner. */
export async function changeFile(
  transport: GuestTransport,
  path: string,
  change: { uid?: number; gid?: number; mode?: number },
  options: FileOptions = {},
): Promise<void> {
  await call(transport, "change", { path, ...change }, options, true);
}

/** Have the file system that holds a path of the guest written to its disk: all that was done to it before. */
export async function syncFiles(
  transport: GuestTransport,
  path: string,
  options: FileOptions = {},
): Promise<void> {
  await call(transport, "sync", { path }, options, true);
}

/** Rename within the guest. */
export async function moveFile(
  transport: GuestTransport,
  from: string,
  to: string,
  options: FileOptions & { overwrite?: boolean } = {},
): Promise<void> {
  await call(
    transport,
    "move",
    { from, to, overwrite: options.overwrite ?? false },
    options,
    false,
  );
}

/** Remove a file, or a directory with `recursive`. */
export async function removeFile(
  transport: GuestTransport,
  path: string,
  options: FileOptions & { recursive?: boolean } = {},
): Promise<void> {
  await call(transport, "remove", { path, recursive: options.recursive ?? false }, options, false);
}

/** One change of a watched path. */
export interface WatchEvent {
  event: "create" | "modify" | "attrib" | "remove" | "overflow";
  /** Absolute, bytes; empty for `overflow` (events were lost: look again). */
  path: Buffer;
  dir: boolean;
  /** Of `create`: it came from elsewhere; of `remove`: it went elsewhere. */
  moved: boolean;
}

const EVENTS = new Set(["create", "modify", "attrib", "remove", "overflow"]);

/** Lines of a stream of text. */
async function* linesOf(stream: Readable): AsyncGenerator<string> {
  let pending = "";
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    pending += chunk.toString("latin1");
    const lines = pending.split("\n");
    pending = lines.pop() ?? "";
    if (pending.length > 1 << 20) throw protocolError("A line of more than a MiB.");
    yield* lines;
  }
}

/**
 * Changes of a path of the guest, until the loop is left or the signal aborts.
 * @param onReady called once changes are seen
 */
export async function* watchFiles(
  transport: GuestTransport,
  path: string,
  options: FileOptions & { recursive?: boolean; onReady?: () => void } = {},
): AsyncGenerator<WatchEvent> {
  const spec: StreamSpec = { kind: "watch", path, recursive: options.recursive ?? false };
  const stream = startStream(transport, withUser(spec, options), withSignal(options));
  try {
    for await (const line of linesOf(stream.stdout)) {
      const value = JSON.parse(line) as Record<string, unknown>;
      const event = value["event"];
      if (event === "ready") options.onReady?.();
      if (typeof event !== "string" || !EVENTS.has(event)) continue;
      const name = value["path"];
      yield {
        event: event as WatchEvent["event"],
        path: Buffer.from(typeof name === "string" ? name : "", "base64"),
        dir: value["dir"] === true,
        moved: value["moved"] === true,
      };
    }
    await checkExit(stream, `Cannot watch ${path}`);
  } finally {
    stream.signal("SIGKILL", true);
  }
}
