/** How files are packed, told by their first bytes, and the programs for what Node has not built in. */
import { spawn } from "node:child_process";
import { VmsanError, messageOf } from "../../model/errors.ts";

/** Compressions that are met in kernels, modules and images. */
export type Packing = "gzip" | "xz" | "lzma" | "lz4" | "zstd" | "bzip2" | "lzo" | "none";

/** Bytes of a file that tell how it is packed. */
export const PACKING_HEAD = 10;

const MAGICS: readonly [Packing, readonly number[]][] = [
  ["gzip", [0x1f, 0x8b]],
  ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ["lzma", [0x5d, 0x00, 0x00]],
  ["lz4", [0x02, 0x21, 0x4c, 0x18]],
  ["zstd", [0x28, 0xb5, 0x2f, 0xfd]],
  ["lzo", [0x89, 0x4c, 0x5a, 0x4f]],
];
/** What follows `BZh` and a level: a tar archive may begin with these alone. In hex: a block, the end. */
const BZIP2_PARTS = ["314159265359", "177245385090"];

/** How bytes are packed, by their first ones; `none` when nothing fits. */
export function detectPacking(head: Uint8Array): Packing {
  for (const [name, magic] of MAGICS) {
    if (magic.every((byte, index) => head[index] === byte)) return name;
  }
  // A zstd stream may begin with a frame to be skipped (0x184D2A5?).
  const [first = 0, ...next] = head.subarray(0, 4);
  if ((first & 0xf0) === 0x50 && next.join() === "42,77,24") return "zstd";
  const bytes = Buffer.from(head.subarray(0, PACKING_HEAD));
  const bzip2 =
    /^BZh[1-9]$/.test(bytes.toString("latin1", 0, 4)) &&
    BZIP2_PARTS.includes(bytes.toString("hex", 4));
  return bzip2 ? "bzip2" : "none";
}

/** Most memory that xz may take: 16 times what its strongest preset needs. */
const XZ_MEMORY = "--memlimit-decompress=1GiB";

/** Programs that unpack standard input. */
const PROGRAMS: Partial<Record<Packing, readonly [file: string, ...args: string[]]>> = {
  xz: ["xz", "-dc", XZ_MEMORY],
  lzma: ["xz", "-dc", "--format=lzma", XZ_MEMORY],
  bzip2: ["bzip2", "-dc"],
  lzo: ["lzop", "-dc"],
};

/** Whether this is unpacked by {@link unpackThrough}. */
export function needsProgram(packing: Packing): boolean {
  return PROGRAMS[packing] !== undefined;
}

/** A program's refusal of its input. */
export class UnpackError extends Error {}

/**
 * Unpack a stream with the program for it.
 * Throws ERR_SETUP_MISSING_BINARY without the program, UnpackError with its words when it refuses
 * the input, the sink's and the source's own errors, and the signal's reason.
 * @param sink takes what comes out; a promise holds back the next piece
 * @param what name for messages
 */
export async function unpackThrough(
  packing: Packing,
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  sink: (bytes: Buffer) => void | Promise<void>,
  what: string,
  signal?: AbortSignal,
): Promise<void> {
  signal?.throwIfAborted();
  const [file, ...args] = PROGRAMS[packing] ?? [];
  if (file === undefined) throw new TypeError(`No program unpacks ${packing}`);
  const child = spawn(file, args, { stdio: ["pipe", "pipe", "pipe"] });
  const abort = (): void => void child.kill("SIGKILL");
  signal?.addEventListener("abort", abort, { once: true });
  let complaint = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    complaint = (complaint + text).slice(-2000);
  });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.on("close", resolve);
    child.on("error", (error) =>
      reject(
        new VmsanError(
          {
            code: "ERR_SETUP_MISSING_BINARY",
            message: `Cannot run ${file} to unpack ${what}`,
            why: messageOf(error),
            fix: `Install the Debian package with ${file} (xz-utils, bzip2, lzop) and try again.`,
          },
          error,
        ),
      ),
    );
  });
  let gaveUp = false;
  // EPIPE: the program gave up on its input; its exit status says so.
  child.stdin.on("error", () => {
    gaveUp = true;
  });
  const feed = async (): Promise<void> => {
    for await (const bytes of source) {
      if (gaveUp || child.stdin.destroyed) return;
      if (child.stdin.write(bytes)) continue;
      await new Promise<void>((resolve) => {
        for (const event of ["drain", "close", "error"]) child.stdin.once(event, resolve);
      });
    }
    child.stdin.end();
  };
  const take = async (): Promise<void> => {
    for await (const bytes of child.stdout) await sink(bytes as Buffer);
  };
  try {
    const [code] = await Promise.all([ended, feed(), take()]);
    if (code !== 0) throw new UnpackError(complaint.trim() || `${file} ended with status ${code}`);
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener("abort", abort);
    child.kill("SIGKILL");
  }
}
