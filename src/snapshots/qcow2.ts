/**
 * An empty QCOW2 file: the layer that takes a VM's writes while what lies below is frozen. Written
 * by its specification (QEMU, docs/interop/qcow2.txt, version 3); what is below is told to QEMU on
 * its command line, never by a path in the file.
 */
import { open } from "node:fs/promises";

const CLUSTER_BITS = 16;
const CLUSTER = 2 ** CLUSTER_BITS;
/** Bytes of the disk that one entry of the first table stands for. */
const BYTES_PER_ENTRY = (CLUSTER / 8) * CLUSTER;
const HEADER_BYTES = 104;

/**
 * The bytes of an empty image: header, table and block of reference counts, first table.
 * @param sizeBytes of the disk, at most 4 TiB
 */
export function emptyQcow2(sizeBytes: number): Buffer {
  const entries = Math.ceil(sizeBytes / BYTES_PER_ENTRY);
  if (entries > CLUSTER / 8) throw new RangeError(`no QCOW2 image of ${sizeBytes} bytes`);
  const image = Buffer.alloc(4 * CLUSTER);
  image.write("QFI\u00FB", 0, "latin1");
  image.writeUInt32BE(3, 4);
  image.writeUInt32BE(CLUSTER_BITS, 20);
  image.writeBigUInt64BE(BigInt(sizeBytes), 24);
  image.writeUInt32BE(entries, 36);
  image.writeBigUInt64BE(BigInt(3 * CLUSTER), 40);
  image.writeBigUInt64BE(BigInt(CLUSTER), 48);
  image.writeUInt32BE(1, 56);
  // Reference counts of 16 bits.
  image.writeUInt32BE(4, 96);
  image.writeUInt32BE(HEADER_BYTES, 100);
  image.writeBigUInt64BE(BigInt(2 * CLUSTER), CLUSTER);
  // These four clusters are in use.
  for (let cluster = 0; cluster < 4; cluster += 1) {
    image.writeUInt16BE(1, 2 * CLUSTER + 2 * cluster);
  }
  return image;
}

/** Size of the disk that a QCOW2 image stands for. */
export async function virtualSize(path: string): Promise<number> {
  const handle = await open(path, "r");
  try {
    const header = Buffer.alloc(32);
    await handle.read(header, 0, header.length, 0);
    return Number(header.readBigUInt64BE(24));
  } finally {
    await handle.close();
  }
}

/** Of what a reader must understand the one thing that names no other file and needs no key: it was not closed. */
const HARMLESS = 1n;

/**
 * What of a QCOW2 file from elsewhere has QEMU open other files, or is not as QEMU writes our layers; undefined when
 * nothing is. What is below it is told to QEMU in any case, but not the file in which its data may be.
 */
export async function whatIsForeign(path: string): Promise<string | undefined> {
  const handle = await open(path, "r");
  try {
    const header = Buffer.alloc(HEADER_BYTES);
    const { bytesRead } = await handle.read(header, 0, header.length, 0);
    if (bytesRead < header.length || header.toString("latin1", 0, 4) !== "QFI\u00FB")
      return "is no QCOW2 image";
    if (header.readUInt32BE(4) !== 3) return "is of another version";
    if (header.readBigUInt64BE(8) !== 0n) return "names a file below it";
    if (header.readUInt32BE(32) !== 0) return "is encrypted";
    const features = header.readBigUInt64BE(72) & ~HARMLESS;
    return features === 0n ? undefined : "has its data in another file, or is made otherwise";
  } finally {
    await handle.close();
  }
}
