/**
 * What a container printed, on disk: files of entries, 32 bytes and then what came at once. An entry names
 * the command's stream in the guest and the offset there, so that a holder that is started anew asks for
 * the very next byte. Pure: bytes in, values out.
 */

/** Bytes before an entry's content. */
export const HEADER = 32;

/** Most bytes of an entry's content; the guest's frames are smaller. */
const MAX_CONTENT = 1 << 20;

/** What an entry is: output, or the offsets with which a file begins. */
export type EntryKind = "mark" | "stdout" | "stderr";

const KINDS: readonly EntryKind[] = ["mark", "stdout", "stderr"];

/** The fixed part of an entry. */
export interface EntryHeader {
  kind: EntryKind;
  /** Bytes of content that follow. */
  length: number;
  /** Nanoseconds since the epoch. */
  timeNs: bigint;
  /** Where the content begins in that output of the command; of a mark: how much of stdout there was before. */
  offset: number;
  /** The command's stream in the guest, 16 hex digits. */
  run: string;
}

/** An entry's fixed part as bytes. */
export function encodeHeader({ kind, length, timeNs, offset, run }: EntryHeader): Buffer {
  const header = Buffer.alloc(HEADER);
  header[0] = KINDS.indexOf(kind);
  // A byte that no torn or foreign file has there by chance.
  header[1] = 0xd0;
  header.writeUInt32BE(length, 4);
  header.writeBigUInt64BE(timeNs, 8);
  header.writeBigUInt64BE(BigInt(offset), 16);
  header.write(run, 24, 8, "hex");
  return header;
}

/** The fixed part at a place of a buffer that holds all of it; undefined: there is none. */
export function decodeHeader(bytes: Buffer, at: number): EntryHeader | undefined {
  const kind = KINDS[bytes[at] ?? -1];
  const length = bytes.readUInt32BE(at + 4);
  if (kind === undefined || bytes[at + 1] !== 0xd0 || length > MAX_CONTENT) return undefined;
  return {
    kind,
    length,
    timeNs: bytes.readBigUInt64BE(at + 8),
    offset: Number(bytes.readBigUInt64BE(at + 16)),
    run: bytes.toString("hex", at + 24, at + 32),
  };
}

/** How much of each output of a command is known. */
export interface Offsets {
  stdout: number;
  stderr: number;
}
