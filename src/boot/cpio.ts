/**
 * Archives in the kernel's initramfs format (newc, Documentation/driver-api/early-userspace/
 * buffer-format.rst). The same entries give the same bytes: no times, no host owners.
 */

/** One entry of an archive. */
export interface CpioEntry {
  /** Path without a leading slash. */
  name: string;
  /** Type and permission bits, as in stat(2). */
  mode: number;
  /** Content of a file. */
  data?: Uint8Array;
  /** Device number of a device node. */
  device?: { major: number; minor: number };
}

/** File type bits of a mode. */
export const cpioType = { directory: 0o040000, file: 0o100000, charDevice: 0o020000 } as const;

/** Zero bytes that fill `size` up to a multiple of `unit`. */
function padding(size: number, unit: number): Buffer {
  return Buffer.alloc((unit - (size % unit)) % unit);
}

/** One entry's header, name and content. */
function encodeEntry(entry: CpioEntry, inode: number): Buffer[] {
  const data = entry.data ?? new Uint8Array();
  const name = Buffer.from(`${entry.name}\0`, "utf8");
  const fields = [
    inode,
    entry.mode,
    0, // uid
    0, // gid
    1, // links
    0, // mtime
    data.length,
    0, // device of the file, major
    0, // device of the file, minor
    entry.device?.major ?? 0,
    entry.device?.minor ?? 0,
    name.length,
    0, // checksum, unused in this format
  ];
  const header = Buffer.from(
    `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`,
    "latin1",
  );
  return [
    header,
    name,
    padding(header.length + name.length, 4),
    Buffer.from(data.buffer, data.byteOffset, data.length),
    padding(data.length, 4),
  ];
}

/** An archive of these entries, in this order; directories must come before what is in them. */
export function encodeCpio(entries: readonly CpioEntry[]): Buffer {
  const parts = entries.flatMap((entry, index) => encodeEntry(entry, index + 1));
  parts.push(...encodeEntry({ name: "TRAILER!!!", mode: 0 }, 0));
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat([...parts, padding(size, 512)]);
}
