/** Files that a client of buildx offers: asked for over its session, given as texts or as a tar archive. */
import { createWriteStream } from "node:fs";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { encodeEnd, encodeEntry, padding } from "../../../agent/archive/pax.ts";
import type { ArchiveEntry, EntryType } from "../../../agent/archive/pax.ts";
import { DockerError } from "../errors.ts";
import type { GrpcPeer } from "./grpc.ts";
import { Message, encode } from "../../../util/packing/protobuf.ts";

const METHOD = "/moby.filesync.v1.FileSync/DiffCopy";

/** Kinds of packets. */
const STAT = 0;
const REQUEST = 1;
const DATA = 2;
const FINISH = 3;
const FAILURE = 4;

/** Most files of one context, and most bytes of a file that is read as text. */
const MAX_FILES = 1_000_000;
const MAX_TEXT = 1 << 20;

/** Bits of Go's FileMode. */
const TYPES: readonly (readonly [number, EntryType | undefined])[] = [
  [2 ** 31, "dir"],
  [2 ** 27, "symlink"],
  [2 ** 25, "fifo"],
  // Sockets and devices are left out, as they are of archives.
  [2 ** 26, undefined],
  [2 ** 24, undefined],
];

/** What is asked for. */
export interface Wish {
  /** Name of the directory among those that the client offers. */
  directory: string;
  include?: readonly string[];
  exclude?: readonly string[];
}

/** One file, as the client describes it. */
interface Described {
  /** The number that its content is asked for by. */
  number: number;
  path: string;
  entry: ArchiveEntry | undefined;
}

/** Header fields of a wish; what is not plain text is percent-encoded and said to be. */
function metadataOf({ directory, include, exclude }: Wish): Record<string, string | string[]> {
  const given = {
    "dir-name": [directory],
    "include-patterns": include ?? [],
    "exclude-patterns": exclude ?? [],
  };
  const metadata: Record<string, string | string[]> = {};
  for (const [name, values] of Object.entries(given)) {
    if (values.length === 0) continue;
    const plain = values.every((value) => /^[\x20-\x7e]*$/.test(value));
    metadata[name] = plain ? [...values] : values.map((value) => encodeURIComponent(value));
    if (!plain) metadata[`${name}-encoded`] = "1";
  }
  return metadata;
}

/** A path that leads nowhere else. @throws 400 */
function cleanPath(text: string): string {
  const parts = text.split("/");
  if (text === "" || text.includes("\0") || parts.some((part) => ["", ".", ".."].includes(part))) {
    throw new DockerError(
      400,
      `the client sends a file named ${JSON.stringify(text.slice(0, 200))}`,
    );
  }
  return text;
}

/** A file by its description. */
function describe(stat: Message, number: number): Described {
  const path = cleanPath(stat.text(1));
  const mode = Number(stat.number(2));
  const bit = TYPES.find(([one]) => Math.floor(mode / one) % 2 === 1);
  const link = stat.text(7);
  const type = bit === undefined ? (link === "" ? "file" : "hardlink") : bit[1];
  if (type === undefined) return { number, path, entry: undefined };
  const special = (at: number, value: number): number =>
    Math.floor(mode / 2 ** at) % 2 === 1 ? value : 0;
  const size = type === "file" ? Number(stat.number(5)) : 0;
  const entry: ArchiveEntry = {
    name: Buffer.from(path),
    type,
    mode: (mode & 0o777) | special(23, 0o4000) | special(22, 0o2000) | special(20, 0o1000),
    // Whoever builds owns nothing in an image.
    uid: 0,
    gid: 0,
    size,
    mtimeNs: BigInt.asIntN(64, stat.number(6)),
    ...(link === "" ? {} : { link: Buffer.from(type === "hardlink" ? cleanPath(link) : link) }),
  };
  return { number, path, entry };
}

/** A transfer that is under way. */
class Transfer {
  private readonly call: ReturnType<GrpcPeer["call"]>;

  constructor(peer: GrpcPeer, wish: Wish, signal: AbortSignal) {
    this.call = peer.call(METHOD, metadataOf(wish), signal);
  }

  private async next(): Promise<Message> {
    const { value, done } = await this.call.messages.next();
    if (done === true) throw new DockerError(400, "the client ends its transfer too early");
    const packet = new Message(value);
    if (Number(packet.number(1)) !== FAILURE) return packet;
    throw new DockerError(400, `the client cannot read its files: ${packet.text(4).slice(0, 500)}`);
  }

  /** What there is, in the client's order. */
  async list(): Promise<Described[]> {
    const files: Described[] = [];
    for (let number = 0; ; number += 1) {
      const packet = await this.next();
      if (Number(packet.number(1)) !== STAT) throw new DockerError(400, "a packet out of turn");
      if (!packet.has(2)) return files;
      if (number >= MAX_FILES) throw new DockerError(400, `more than ${MAX_FILES} files`);
      files.push(describe(packet.message(2), number));
    }
  }

  /** The content of one. */
  async *content(number: number): AsyncGenerator<Buffer> {
    this.call.send(encode([1, REQUEST], [3, number]));
    for (;;) {
      const packet = await this.next();
      if (Number(packet.number(1)) !== DATA || Number(packet.number(3)) !== number) {
        throw new DockerError(400, "a packet out of turn");
      }
      const bytes = packet.bytes(4);
      if (bytes.length === 0) return;
      yield bytes;
    }
  }

  /** All is there. */
  async finish(): Promise<void> {
    this.call.send(encode([1, FINISH]));
    while (Number((await this.next()).number(1)) !== FINISH);
    this.call.end();
  }

  /** Nothing more is wanted. */
  cancel(): void {
    this.call.cancel();
  }
}

/** Run a transfer. */
async function transferred<T>(
  peer: GrpcPeer,
  wish: Wish,
  signal: AbortSignal,
  body: (transfer: Transfer) => Promise<T>,
): Promise<T> {
  const transfer = new Transfer(peer, wish, signal);
  try {
    const result = await body(transfer);
    await transfer.finish();
    return result;
  } finally {
    transfer.cancel();
  }
}

/** Patterns of a .dockerignore as the client's matcher takes them. */
export function ignorePatterns(text: string): string[] {
  return text
    .split("\n")
    .map((line) => line.replace(/^\uFEFF/, "").trim())
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => {
      const not = line.startsWith("!");
      const path = (not ? line.slice(1) : line).trim().replace(/^\/+|\/+$/g, "");
      return `${not ? "!" : ""}${path.replace(/^\.\//, "")}`;
    })
    .filter((pattern) => pattern !== "" && pattern !== "!" && pattern !== ".");
}

/** Texts of files by their paths; those that are not there are left out. */
export async function readTexts(
  peer: GrpcPeer,
  directory: string,
  paths: readonly string[],
  signal: AbortSignal,
): Promise<Map<string, string>> {
  return await transferred(peer, { directory, include: paths }, signal, async (transfer) => {
    const texts = new Map<string, string>();
    for (const { number, path, entry } of await transfer.list()) {
      if (entry?.type !== "file" || !paths.includes(path)) continue;
      if (entry.size > MAX_TEXT) throw new DockerError(400, `${path} is too long`);
      const parts: Buffer[] = [];
      for await (const bytes of transfer.content(number)) parts.push(Buffer.from(bytes));
      texts.set(path, Buffer.concat(parts).subarray(0, MAX_TEXT).toString("utf8"));
    }
    return texts;
  });
}

/** Write a directory's files to a tar archive. @returns the number of files, and their bytes */
export async function writeArchive(
  peer: GrpcPeer,
  wish: Wish,
  path: string,
  signal: AbortSignal,
): Promise<{ files: number; bytes: number }> {
  return await transferred(peer, wish, signal, async (transfer) => {
    const files = await transfer.list();
    let total = 0;
    const archive = async function* archive(): AsyncGenerator<Buffer> {
      for (const { number, entry } of files) {
        if (entry === undefined) continue;
        yield encodeEntry(entry);
        if (entry.type !== "file") continue;
        let size = 0;
        for await (const bytes of transfer.content(number)) {
          size += bytes.length;
          // The header is out: what grows meanwhile is cut off, as tar does.
          const room = entry.size - (size - bytes.length);
          if (room > 0) yield Buffer.from(bytes.subarray(0, room));
        }
        if (size < entry.size) {
          throw new DockerError(
            400,
            `${entry.name.toString()} has become shorter while it was read`,
          );
        }
        yield Buffer.alloc(padding(entry.size));
        total += entry.size;
      }
      yield encodeEnd();
    };
    const source = Readable.from(archive(), { objectMode: false });
    await pipeline(source, createWriteStream(path, { mode: 0o600 }), { signal });
    return { files: files.length, bytes: total };
  });
}
