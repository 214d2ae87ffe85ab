/**
 * A distribution's kernel file → the uncompressed kernel that VMMs load: ELF vmlinux on
 * x86_64 (from bzImage, Documentation/arch/x86/boot.rst), Image on aarch64 (from gzip or an
 * EFI zboot file).
 */
import * as zlib from "node:zlib";
import { VmsanError, messageOf } from "../model/errors.ts";
import {
  UnpackError,
  detectPacking,
  needsProgram,
  unpackThrough,
} from "../util/packing/packing.ts";
import type { Packing } from "../util/packing/packing.ts";
import { decodeLz4Legacy } from "./lz4.ts";

/** Processor architectures with a kernel here, by the names that `uname -m` prints. */
export type KernelArch = "x86_64" | "aarch64";

/** What an uncompressed kernel is, as its own headers say. */
export interface KernelImage {
  arch: KernelArch;
  /** Bytes of the uncompressed kernel. */
  bytes: Buffer;
  /** How it was packed. */
  compression: Packing;
  /** x86: holds the PVH entry note, which QEMU needs to boot an ELF kernel. */
  pvh: boolean;
}

/** Most bytes an unpacked kernel or module may have: a guard against bombs, ten times a large kernel. */
const maxUnpacked = 512 << 20;

/** An ERR_KERNEL_FORMAT error. */
function badKernel(what: string, why: string): VmsanError {
  return new VmsanError({
    code: "ERR_KERNEL_FORMAT",
    message: `Cannot use ${what} as a guest kernel`,
    why,
    fix: "Give a Linux vmlinuz, bzImage, ELF vmlinux (x86_64) or Image (aarch64) file.",
  });
}

/** Pipe bytes through a program; ERR_SETUP_MISSING_BINARY without it, ERR_KERNEL_FORMAT on failure. */
async function pipeThrough(
  compression: Packing,
  input: Buffer,
  what: string,
  signal?: AbortSignal,
): Promise<Buffer> {
  const parts: Buffer[] = [];
  let size = 0;
  const take = (part: Buffer): void => {
    size += part.length;
    if (size > maxUnpacked)
      throw badKernel(what, `It unpacks to more than ${maxUnpacked >> 20} MiB.`);
    parts.push(part);
  };
  try {
    await unpackThrough(compression, [input], take, what, signal);
  } catch (error) {
    if (!(error instanceof UnpackError)) throw error;
    throw badKernel(what, `It cannot be unpacked as ${compression}: ${error.message}`);
  }
  return Buffer.concat(parts);
}

/**
 * Unpack bytes, whichever way they are compressed; at most 512 MiB come out.
 * @param what name for error messages
 */
export async function decompress(
  bytes: Buffer,
  compression: Packing,
  what: string,
  signal?: AbortSignal,
): Promise<Buffer> {
  if (compression === "none") return bytes;
  if (needsProgram(compression)) return await pipeThrough(compression, bytes, what, signal);
  try {
    if (compression === "lz4") return decodeLz4Legacy(bytes, maxUnpacked);
    return compression === "gzip"
      ? zlib.gunzipSync(bytes, { maxOutputLength: maxUnpacked })
      : zlib.zstdDecompressSync(bytes, {
          maxOutputLength: maxUnpacked,
          // Kernels are packed with `zstd --ultra -22`, whose window is 128 MiB.
          params: { [zlib.constants.ZSTD_d_windowLogMax]: 31 },
        });
  } catch (error) {
    throw badKernel(what, `It cannot be unpacked as ${compression}: ${messageOf(error)}`);
  }
}

/** Facts of an ELF kernel; throws ERR_KERNEL_FORMAT when it is none that can be booted. */
function readElf(bytes: Buffer, what: string): { arch: KernelArch; pvh: boolean } {
  if (bytes.length < 64 || bytes[4] !== 2 || bytes[5] !== 1) {
    throw badKernel(what, "It is not a 64-bit little-endian ELF file.");
  }
  const machine = bytes.readUInt16LE(18);
  if (machine !== 62) throw badKernel(what, `Its ELF machine is ${machine}, not x86-64 (62).`);
  const type = bytes.readUInt16LE(16);
  if (type !== 2 && type !== 3) throw badKernel(what, `Its ELF type is ${type}, not executable.`);
  const offset = Number(bytes.readBigUInt64LE(32));
  const size = bytes.readUInt16LE(54);
  const count = bytes.readUInt16LE(56);
  if (size < 56 || offset + size * count > bytes.length) {
    throw badKernel(what, "Its ELF program headers lie outside the file: it is cut short.");
  }
  let loads = 0;
  let pvh = false;
  for (let index = 0; index < count; index++) {
    const at = offset + index * size;
    const kind = bytes.readUInt32LE(at);
    const from = Number(bytes.readBigUInt64LE(at + 8));
    const length = Number(bytes.readBigUInt64LE(at + 32));
    if (from + length > bytes.length) {
      throw badKernel(what, "An ELF segment ends outside the file: it is cut short.");
    }
    if (kind === 1) loads++;
    if (kind === 4) pvh ||= hasPvhNote(bytes.subarray(from, from + length));
  }
  if (loads === 0) throw badKernel(what, "It has no segment to load.");
  return { arch: "x86_64", pvh };
}

/** Whether ELF notes hold XEN_ELFNOTE_PHYS32_ENTRY (name `Xen`, type 18). */
function hasPvhNote(notes: Buffer): boolean {
  let at = 0;
  while (at + 12 <= notes.length) {
    const nameSize = notes.readUInt32LE(at);
    const dataSize = notes.readUInt32LE(at + 4);
    const type = notes.readUInt32LE(at + 8);
    const name = notes.toString("latin1", at + 12, at + 12 + nameSize);
    if (type === 18 && name === "Xen\0") return true;
    at += 12 + ((nameSize + 3) & ~3) + ((dataSize + 3) & ~3);
  }
  return false;
}

/** Payload of an x86 bzImage: where it is and how long, from the boot protocol's header. */
function bzImagePayload(bytes: Buffer, what: string): Buffer {
  const protocol = bytes.readUInt16LE(0x206);
  if (protocol < 0x208) {
    throw badKernel(what, `Its boot protocol ${protocol.toString(16)} is older than 2.08 (2008).`);
  }
  // 0 means 4, for kernels of the last century.
  const setup = ((bytes[0x1f1] ?? 0) || 4) * 512 + 512;
  const from = setup + bytes.readUInt32LE(0x248);
  const length = bytes.readUInt32LE(0x24c);
  if (length < 16 || from + length > bytes.length) {
    throw badKernel(what, "Its payload ends outside the file: it is cut short.");
  }
  return bytes.subarray(from, from + length);
}

/** Unpack a bzImage's payload and check its length against the one recorded behind it. */
async function unpackBzImage(
  bytes: Buffer,
  what: string,
  signal?: AbortSignal,
): Promise<{ compression: Packing; elf: Buffer }> {
  const payload = bzImagePayload(bytes, what);
  const compression = detectPacking(payload);
  if (compression === "none" && payload.readUInt32BE(0) !== 0x7f454c46) {
    throw badKernel(what, "The compression of its payload is unknown.");
  }
  // Every compression but gzip (whose own trailer has it) gets the unpacked size appended.
  const expected = payload.readUInt32LE(payload.length - 4);
  const appended = compression !== "gzip" && compression !== "none";
  const body = appended ? payload.subarray(0, -4) : payload;
  const elf = await decompress(body, compression, what, signal);
  if (compression !== "none" && elf.length !== expected) {
    throw badKernel(what, `It unpacks to ${elf.length} bytes where ${expected} are announced.`);
  }
  return { compression, elf };
}

/** Whether these bytes are an uncompressed arm64 Image (Documentation/arch/arm64/booting.rst). */
function isArm64Image(bytes: Buffer): boolean {
  return bytes.length > 64 && bytes.toString("latin1", 56, 60) === "ARMd";
}

/**
 * Turn any kernel file into the uncompressed one of its architecture, verified.
 * @param what name for error messages (the file's path)
 */
export async function unpackKernel(
  bytes: Buffer,
  what: string,
  signal?: AbortSignal,
): Promise<KernelImage> {
  if (bytes.length < 1024) throw badKernel(what, "It is too short to be a kernel.");
  if (bytes.readUInt32BE(0) === 0x7f454c46) {
    return { ...readElf(bytes, what), bytes, compression: "none" };
  }
  if (bytes.toString("latin1", 0x202, 0x206) === "HdrS") {
    const { compression, elf } = await unpackBzImage(bytes, what, signal);
    if (elf.length < 64 || elf.readUInt32BE(0) !== 0x7f454c46) {
      throw badKernel(what, "Its payload is not an ELF file.");
    }
    return { ...readElf(elf, what), bytes: elf, compression };
  }
  if (isArm64Image(bytes)) return { arch: "aarch64", bytes, compression: "none", pvh: false };
  let packed: Buffer | undefined;
  if (bytes.toString("latin1", 0, 2) === "MZ" && bytes.toString("latin1", 4, 8) === "zimg") {
    const from = bytes.readUInt32LE(8);
    const length = bytes.readUInt32LE(12);
    if (from + length > bytes.length) throw badKernel(what, "Its payload is cut short.");
    packed = bytes.subarray(from, from + length);
  } else if (detectPacking(bytes) === "gzip") packed = bytes;
  if (packed === undefined) throw badKernel(what, "It has no header of a Linux kernel.");
  const compression = detectPacking(packed);
  const image = await decompress(packed, compression, what, signal);
  if (isArm64Image(image)) return { arch: "aarch64", bytes: image, compression, pvh: false };
  if (image.length >= 64 && image.readUInt32BE(0) === 0x7f454c46) {
    return { ...readElf(image, what), bytes: image, compression };
  }
  throw badKernel(what, "What it unpacks to is not a kernel.");
}
