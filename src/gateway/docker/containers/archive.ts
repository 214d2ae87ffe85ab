/** Files of containers: what is at a path, a path as an archive, an archive into a directory. */
import { posix } from "node:path";
import { encodeEnd, encodeEntry, padding } from "../../../agent/archive/pax.ts";
import { readArchive } from "../../../agent/archive/read.ts";
import type { ReadEntry } from "../../../agent/archive/read.ts";
import { checkExit } from "../../../agent/file-stream.ts";
import { statFile } from "../../../agent/files.ts";
import type { FileEntry } from "../../../agent/files.ts";
import { startStream } from "../../../agent/streams.ts";
import { guestErrno } from "../../../agent/transport.ts";
import type { Vm } from "../../../client/vm.ts";
import { asVmsanError } from "../../../model/errors.ts";
import { uncompressed } from "../../../util/flow/uncompressed.ts";
import { DockerError, badCompression } from "../errors.ts";
import type { Call } from "../http/route.ts";
import { ENGINE_HEADERS, beginStream, push, sendStatus } from "../http/wire.ts";
import type { Container } from "./container.ts";

/** Bits of Go's FileMode for what is not a plain file. */
const TYPE_BITS: Record<FileEntry["type"], number> = {
  file: 0,
  dir: 2 ** 31,
  symlink: 2 ** 27,
  block: 2 ** 26,
  fifo: 2 ** 25,
  socket: 2 ** 24,
  char: 2 ** 26 + 2 ** 21,
};

/** A file's mode as Go writes it. */
export function goMode({ type, mode }: Pick<FileEntry, "type" | "mode">): number {
  const special =
    (mode & 0o4000 ? 2 ** 23 : 0) + (mode & 0o2000 ? 2 ** 22 : 0) + (mode & 0o1000 ? 2 ** 20 : 0);
  return TYPE_BITS[type] + special + (mode & 0o777);
}

/** A path as a client wrote it. */
interface WantedPath {
  /** Absolute, without a slash at its end. */
  path: string;
  /** The content of the directory is meant, or what a link points to. */
  inside: boolean;
  /** The last part, as written. */
  name: string;
}

/** The `path` of a call. @throws 400 */
function wantedPath(call: Call): WantedPath {
  const text = call.query.text("path");
  if (text === "" || text.includes("\0") || text.length > 4096) {
    throw new DockerError(400, 'bad parameter: "path" cannot be empty');
  }
  const path = posix.normalize(`/${text}`).replace(/(.)\/$/, "$1");
  const dot = /(^|\/)\.$/.test(text);
  const name = dot ? "." : path === "/" ? "/" : posix.basename(path);
  return { path, inside: dot || text.endsWith("/"), name };
}

/** An error about a path, in the engine's words. */
function fileError(error: unknown, container: Container, path: string): unknown {
  const errno = guestErrno(asVmsanError(error, ""));
  if (errno !== "ENOENT" && errno !== "ENOTDIR") return error;
  return new DockerError(
    404,
    `Could not find the file ${path} in container ${container.record.name}`,
    error,
  );
}

async function look(vm: Vm, container: Container, wanted: WantedPath): Promise<FileEntry> {
  try {
    const entry = await statFile(vm.transport, wanted.path, { follow: wanted.inside });
    if (wanted.inside && entry.type !== "dir") {
      throw new DockerError(400, `not a directory: ${wanted.path}`);
    }
    return entry;
  } catch (error) {
    throw fileError(error, container, wanted.path);
  }
}

/** The header with what is at a path. */
function statHeader(entry: FileEntry, name: string): Record<string, string> {
  const stat = {
    name,
    size: entry.size,
    mode: goMode(entry),
    mtime: new Date(Number(entry.mtimeNs / 1_000_000n)).toISOString(),
    linkTarget: entry.target?.toString() ?? "",
  };
  const value = Buffer.from(JSON.stringify(stat)).toString("base64");
  return { "X-Docker-Container-Path-Stat": value };
}

/** What is at a path: `HEAD …/archive`. */
export async function statPath(call: Call, container: Container): Promise<void> {
  const wanted = wantedPath(call);
  await container.withFiles(async (vm) => {
    const entry = await look(vm, container, wanted);
    call.response.writeHead(200, { ...ENGINE_HEADERS, ...statHeader(entry, wanted.name) });
    call.response.end();
  });
}

/**
 * A name in the archive of a directory's content: below `.` instead of the directory. Clients that give the
 * content another name replace that very dot.
 */
function inner(name: Buffer, top: string): Buffer {
  if (top !== "") return Buffer.concat([Buffer.from("."), name.subarray(Buffer.byteLength(top))]);
  // What is in / has no directory's name before it.
  return name.toString("latin1") === "." ? name : Buffer.concat([Buffer.from("./"), name]);
}

const ZEROS = Buffer.alloc(64 << 10);

/** An entry as every reader of archives takes it: without a map of holes. */
async function* plainEntry({ entry, content }: ReadEntry, top?: string): AsyncGenerator<Buffer> {
  const renamed =
    top === undefined
      ? entry
      : {
          ...entry,
          name: inner(entry.name, top),
          ...(entry.type === "hardlink" && entry.link !== undefined
            ? { link: inner(entry.link, top) }
            : {}),
        };
  yield encodeEntry(renamed);
  let at = 0;
  const fill = function* fill(to: number): Generator<Buffer> {
    for (; at < to; at += Math.min(ZEROS.length, to - at)) {
      yield ZEROS.subarray(0, Math.min(ZEROS.length, to - at));
    }
  };
  for await (const { offset, bytes } of content) {
    yield* fill(offset);
    yield bytes;
    at += bytes.length;
  }
  if (entry.type !== "file") return;
  yield* fill(entry.size);
  yield Buffer.alloc(padding(entry.size));
}

/** A path as an archive, piece by piece. @param inside the content of a directory, below `.` */
async function* archiveOf(vm: Vm, path: string, inside: boolean): AsyncGenerator<Buffer> {
  let said = "";
  const spec = { kind: "tar" as const, path, ...(inside ? { follow: true } : {}) };
  const stream = startStream(vm.transport, spec, {
    onStderr: (bytes) => {
      said = (said + bytes.toString("utf8")).slice(0, 8192);
    },
  });
  try {
    const top = inside ? posix.basename(path) : undefined;
    for await (const one of readArchive(stream.stdout as AsyncIterable<Buffer>)) {
      yield* plainEntry(one, top);
    }
    await checkExit(stream, `Cannot read all of ${path} in the container`, said);
    yield encodeEnd();
  } finally {
    stream.signal("KILL", true);
  }
}

/** A path as an archive: `GET …/archive`. */
export async function getArchive(call: Call, container: Container): Promise<void> {
  const wanted = wantedPath(call);
  const { response } = call;
  await container.withFiles(async (vm) => {
    const entry = await look(vm, container, wanted);
    for (const [name, value] of Object.entries(statHeader(entry, wanted.name))) {
      response.setHeader(name, value);
    }
    beginStream(response, "application/x-tar");
    const inside = wanted.name === ".";
    for await (const bytes of archiveOf(vm, wanted.path, inside)) {
      if (!(await push(response, bytes))) return;
    }
    response.end();
    container.tell("archive-path");
  });
}

/** All files of a container as an archive: `GET …/export`. */
export async function exportFiles(call: Call, container: Container): Promise<void> {
  const { response } = call;
  await container.withFiles(async (vm) => {
    beginStream(response, "application/x-tar");
    for await (const bytes of archiveOf(vm, "/", false)) if (!(await push(response, bytes))) return;
    response.end();
    container.tell("export");
  });
}

/** An archive into a directory: `PUT …/archive`. */
export async function putArchive(call: Call, container: Container): Promise<void> {
  const wanted = { ...wantedPath(call), inside: true };
  await container.withFiles(async (vm) => {
    try {
      await look(vm, container, wanted);
    } catch (error) {
      call.request.resume();
      throw error;
    }
    const { User: user } = container.record.config;
    const owners = !call.query.flag("copyUIDGID");
    await vm.unpack(
      uncompressed(call.request as AsyncIterable<Buffer>, badCompression),
      wanted.path,
      {
        user: owners || user === "" ? "root" : user,
        owners,
      },
    );
    container.tell("extract-to-dir");
    sendStatus(call.response, 200);
  });
}
