/**
 * LZ4 in its legacy frame format, which Debian packs its cloud kernel with: decoded here so
 * that the default kernel needs no lz4 program. Blocks as in lz4's lz4_Block_format.md.
 */

/** First bytes of a legacy frame. */
const lz4LegacyMagic = 0x184c2102;

/** Most bytes that one block unpacks to in this format. */
const blockSize = 8 << 20;

/** Read a length that continues while bytes are 255; returns it and where it ends. */
function readLength(input: Buffer, at: number, start: number): [length: number, at: number] {
  let length = start;
  if (start !== 15) return [length, at];
  for (;;) {
    const byte = input[at++];
    if (byte === undefined) throw new RangeError("an LZ4 length is cut short");
    length += byte;
    if (byte !== 255) return [length, at];
  }
}

/** Unpack one block into `output` from its start; returns the number of bytes. */
function decodeBlock(input: Buffer, output: Buffer): number {
  let from = 0;
  let to = 0;
  while (from < input.length) {
    const token = input[from++] ?? 0;
    let literals: number;
    [literals, from] = readLength(input, from, token >> 4);
    if (from + literals > input.length || to + literals > output.length) {
      throw new RangeError("LZ4 literals overrun their block");
    }
    input.copy(output, to, from, from + literals);
    from += literals;
    to += literals;
    // A block ends with literals alone.
    if (from === input.length) return to;
    const offset = input.readUInt16LE(from);
    let match: number;
    [match, from] = readLength(input, from + 2, token & 15);
    match += 4;
    if (offset === 0 || offset > to || to + match > output.length) {
      throw new RangeError("an LZ4 match lies outside its block");
    }
    if (offset >= match) output.copyWithin(to, to - offset, to - offset + match);
    // Overlapping: a repeated pattern, where each byte may depend on one just written.
    else for (let i = 0; i < match; i++) output[to + i] = output[to + i - offset] ?? 0;
    to += match;
  }
  return to;
}

/**
 * Unpack a legacy LZ4 frame; throws RangeError when it is damaged or gives more than `limit` bytes.
 */
export function decodeLz4Legacy(input: Buffer, limit: number): Buffer {
  if (input.length < 4 || input.readUInt32LE(0) !== lz4LegacyMagic) {
    throw new RangeError("not an LZ4 legacy frame");
  }
  const parts: Buffer[] = [];
  const scratch = Buffer.allocUnsafe(blockSize);
  let total = 0;
  for (let at = 4; at < input.length;) {
    if (at + 4 > input.length) throw new RangeError("an LZ4 block size is cut short");
    const size = input.readUInt32LE(at);
    at += 4;
    // Concatenated frames are allowed: the magic number stands where a block's size would.
    if (size === lz4LegacyMagic) continue;
    if (at + size > input.length) throw new RangeError("an LZ4 block is cut short");
    const length = decodeBlock(input.subarray(at, at + size), scratch);
    at += size;
    total += length;
    if (total > limit) throw new RangeError(`it unpacks to more than ${limit} bytes`);
    parts.push(Buffer.from(scratch.subarray(0, length)));
  }
  return Buffer.concat(parts, total);
}
