/** Files of containers: what is at a path, a path as an archive, an archive into a directory. */
import { posix } from "node:path";
import { encodeEnd, encodeEntry, padding } from "../../../agent/archive/pax.ts";
import { readArchive } from "../../../agent/archive/read.ts";
import type { ReadEntry } from "../../../agent/archive/read.ts";
import { checkExit } from "../../../agent/file-stream.ts";
import { listFiles, statFile } from "../../../agent/files.ts";
import type { FileEntry } from "../../../agent/files.ts";
import { startStream } from "../../../agent/streams.ts";
import { guestErrno } from "../../../agent/transport.ts";
import type { Vm } from "../../../client/vm.ts";
import { uncompressed } from "../../../util/packing/uncompressed.ts";
import { DockerError } from "../errors.ts";
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
  const errno = guestErrno(error);
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
async function* plainEntry(
  { entry, content }: ReadEntry,
  rename?: (name: Buffer) => Buffer,
): AsyncGenerator<Buffer> {
  const renamed =
    rename === undefined
      ? entry
      : {
          ...entry,
          name: rename(entry.name),
          ...(entry.type === "hardlink" && entry.link !== undefined
            ? { link: rename(entry.link) }
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

/** A path as an archive without its end, piece by piece. @param rename gives entries other names */
async function* entriesOf(
  vm: Vm,
  path: string,
  inside: boolean,
  rename?: (name: Buffer) => Buffer,
): AsyncGenerator<Buffer> {
  let said = "";
  const spec = { kind: "tar" as const, path, ...(inside ? { follow: true } : {}) };
  const stream = startStream(vm.transport, spec, {
    onStderr: (bytes) => {
      said = (said + bytes.toString("utf8")).slice(0, 8192);
    },
  });
  try {
    for await (const one of readArchive(stream.stdout as AsyncIterable<Buffer>)) {
      yield* plainEntry(one, rename);
    }
    await checkExit(stream, `Cannot read all of ${path} in the container`, said);
  } finally {
    stream.signal("KILL", true);
  }
}

/** A path as an archive. @param inside the content of a directory, below `.` */
async function* archiveOf(vm: Vm, path: string, inside: boolean): AsyncGenerator<Buffer> {
  const top = posix.basename(path);
  yield* entriesOf(vm, path, inside, inside ? (name) => inner(name, top) : undefined);
  yield encodeEnd();
}

/** Where something is mounted in a guest besides its root. */
async function mountedIn(vm: Vm): Promise<string[]> {
  const parts: Buffer[] = [];
  const take = (bytes: Buffer): void => void parts.push(Buffer.from(bytes));
  await vm.readFile("/proc/self/mounts", take, { user: "root" });
  const octal = (_all: string, digits: string): string => String.fromCharCode(parseInt(digits, 8));
  const places = Buffer.concat(parts)
    .toString("latin1")
    .split("\n")
    .map((line) => (line.split(" ")[1] ?? "/").replace(/\\(\d{3})/g, octal));
  return places.filter((place) => place !== "/");
}

/** The files below a directory but for what is mounted, of which there are empty directories. @param dir "" is the root */
async function* filesOf(vm: Vm, dir: string, mounted: readonly string[]): AsyncGenerator<Buffer> {
  for (const entry of await listFiles(vm.transport, dir === "" ? "/" : dir)) {
    const path = `${dir}/${posix.basename(entry.path)}`;
    const above = mounted.some((place) => place === path || place.startsWith(`${path}/`));
    if (!above) {
      const prefix = Buffer.from(dir === "" ? "" : `${dir.slice(1)}/`);
      yield* entriesOf(vm, path, false, (name) => Buffer.concat([prefix, name]));
    } else if (entry.type === "dir") {
      const { mode, uid, gid, mtimeNs } = entry;
      const name = Buffer.from(path.slice(1));
      yield encodeEntry({ name, type: "dir", mode, uid, gid, size: 0, mtimeNs });
      if (!mounted.includes(path)) yield* filesOf(vm, path, mounted);
    }
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

/** All files of a container but for what is mounted in it (volumes, the kernel's own) as an archive: `GET …/export`. */
export async function exportFiles(call: Call, container: Container): Promise<void> {
  const { response } = call;
  await container.withFiles(async (vm) => {
    beginStream(response, "application/x-tar");
    for await (const bytes of filesOf(vm, "", await mountedIn(vm))) {
      if (!(await push(response, bytes))) return;
    }
    response.end(encodeEnd());
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
    // Either what the archive says of owners, or all of it is the container's user's where it has one, who may not write there.
    const { User: user } = container.record.config;
    const theirs = call.query.flag("copyUIDGID") && user !== "";
    const archive = uncompressed(call.request as AsyncIterable<Buffer>);
    await vm.unpack(archive, wanted.path, {
      user: theirs ? user : "root",
      owners: !theirs,
      override: true,
    });
    container.tell("extract-to-dir");
    sendStatus(call.response, 200);
  });
}
