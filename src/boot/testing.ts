/** Files that look like kernels and modules, for tests. */
import { createHash } from "node:crypto";

/** What tells that a kernel needs no modules. */
export const builtinWords = ["virtio-mmio", "virtio_blk", "EXT4-fs", "overlayfs", "virtio-ports"];

/**
 * A small ELF file with one PT_LOAD and one PT_NOTE segment, a kernel's banner, and words of the
 * drivers that are built into it.
 */
export function elf(
  options: { pvh?: boolean; machine?: number; builtin?: readonly string[] } = {},
): Buffer {
  const bytes = Buffer.alloc(8192);
  bytes.writeUInt32BE(0x7f454c46, 0);
  bytes.set([2, 1, 1], 4);
  bytes.writeUInt16LE(2, 16);
  bytes.writeUInt16LE(options.machine ?? 62, 18);
  bytes.writeBigUInt64LE(64n, 32);
  bytes.writeUInt16LE(56, 54);
  bytes.writeUInt16LE(2, 56);
  bytes.writeUInt32LE(1, 64);
  bytes.writeBigUInt64LE(4096n, 64 + 8);
  bytes.writeBigUInt64LE(4096n, 64 + 32);
  bytes.writeUInt32LE(4, 120);
  bytes.writeBigUInt64LE(1024n, 120 + 8);
  bytes.writeBigUInt64LE(20n, 120 + 32);
  bytes.writeUInt32LE(4, 1024);
  bytes.writeUInt32LE(4, 1028);
  bytes.writeUInt32LE(options.pvh === false ? 17 : 18, 1032);
  bytes.write("Xen\0", 1036, "latin1");
  bytes.write("Linux version 6.1.0-test (someone@somewhere)", 4096, "latin1");
  const builtin = options.builtin ?? builtinWords;
  bytes.write(builtin.join("\0"), 4500, "latin1");
  // Random content makes compressors work; the same seed each time keeps the test repeatable.
  let seed = createHash("sha256").update("kernel").digest();
  for (let at = 5000; at + 32 < 8000; at += 32) {
    seed = createHash("sha256").update(seed).digest();
    seed.copy(bytes, at);
  }
  return bytes;
}

/** A module file: ELF with .modinfo only. @param more lines of it, e.g. `vermagic=6.1 SMP` */
export function moduleFile(depends: string, ...more: string[]): Buffer {
  const lines = ["license=GPL", `depends=${depends}`, "name=x", ...more];
  const info = Buffer.from(lines.map((line) => `${line}\0`).join(""));
  const names = Buffer.from("\0.shstrtab\0.modinfo\0");
  const bytes = Buffer.alloc(64 + 3 * 64 + info.length + names.length);
  bytes.writeUInt32BE(0x7f454c46, 0);
  bytes.writeBigUInt64LE(64n, 40);
  bytes.writeUInt16LE(64, 58);
  bytes.writeUInt16LE(3, 60);
  bytes.writeUInt16LE(1, 62);
  const section = (index: number, name: number, from: number, data: Buffer): void => {
    const at = 64 + index * 64;
    bytes.writeUInt32LE(name, at);
    bytes.writeBigUInt64LE(BigInt(from), at + 24);
    bytes.writeBigUInt64LE(BigInt(data.length), at + 32);
    data.copy(bytes, from);
  };
  section(1, 1, 256, names);
  section(2, 11, 256 + names.length, info);
  return bytes;
}
