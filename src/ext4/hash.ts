/**
 * The directory hash "half MD4" in its signed-char form (kernel: fs/ext4/hash.c; published as
 * part of Documentation/filesystems/ext4/directory.rst).
 */

const rotl = (value: number, by: number): number => (value << by) | (value >>> (32 - by));
const K2 = 0x5a827999;
const K3 = 0x6ed9eba1;
/** The hash value that means "end of directory" to readdir; no name may have it. */
const END = 0xfffffffe;

/** Up to 32 bytes from `from` on, of `left` that are left, as eight words, padded with that number. */
function words(bytes: Uint8Array, from: number, left: number, into: Int32Array): void {
  // As in C, the length is not cut to 8 bits before it is shifted.
  let pad = left | (left << 8);
  pad |= pad << 16;
  const length = Math.min(left, 32);
  let value = pad;
  let at = 0;
  for (let i = 0; i < length; i++) {
    // Signed characters: bytes from 0x80 on are negative.
    const byte = ((bytes[from + i] ?? 0) << 24) >> 24;
    value = (byte + (value << 8)) | 0;
    if ((i & 3) === 3) {
      into[at++] = value;
      value = pad;
    }
  }
  if (at < 8) into[at++] = value;
  while (at < 8) into[at++] = pad;
}

/** One MD4-like mixing of eight words into the four of the state. */
function mix(state: Int32Array, input: Int32Array): void {
  let [a = 0, b = 0, c = 0, d = 0] = state;
  const [i0 = 0, i1 = 0, i2 = 0, i3 = 0, i4 = 0, i5 = 0, i6 = 0, i7 = 0] = input;
  const f = (x: number, y: number, z: number): number => z ^ (x & (y ^ z));
  const g = (x: number, y: number, z: number): number => ((x & y) + ((x ^ y) & z)) | 0;
  const h = (x: number, y: number, z: number): number => x ^ y ^ z;

  a = rotl((a + f(b, c, d) + i0) | 0, 3);
  d = rotl((d + f(a, b, c) + i1) | 0, 7);
  c = rotl((c + f(d, a, b) + i2) | 0, 11);
  b = rotl((b + f(c, d, a) + i3) | 0, 19);
  a = rotl((a + f(b, c, d) + i4) | 0, 3);
  d = rotl((d + f(a, b, c) + i5) | 0, 7);
  c = rotl((c + f(d, a, b) + i6) | 0, 11);
  b = rotl((b + f(c, d, a) + i7) | 0, 19);

  a = rotl((a + g(b, c, d) + i1 + K2) | 0, 3);
  d = rotl((d + g(a, b, c) + i3 + K2) | 0, 5);
  c = rotl((c + g(d, a, b) + i5 + K2) | 0, 9);
  b = rotl((b + g(c, d, a) + i7 + K2) | 0, 13);
  a = rotl((a + g(b, c, d) + i0 + K2) | 0, 3);
  d = rotl((d + g(a, b, c) + i2 + K2) | 0, 5);
  c = rotl((c + g(d, a, b) + i4 + K2) | 0, 9);
  b = rotl((b + g(c, d, a) + i6 + K2) | 0, 13);

  a = rotl((a + h(b, c, d) + i3 + K3) | 0, 3);
  d = rotl((d + h(a, b, c) + i7 + K3) | 0, 9);
  c = rotl((c + h(d, a, b) + i2 + K3) | 0, 11);
  b = rotl((b + h(c, d, a) + i6 + K3) | 0, 15);
  a = rotl((a + h(b, c, d) + i1 + K3) | 0, 3);
  d = rotl((d + h(a, b, c) + i5 + K3) | 0, 9);
  c = rotl((c + h(d, a, b) + i0 + K3) | 0, 11);
  b = rotl((b + h(c, d, a) + i4 + K3) | 0, 15);

  state[0] = ((state[0] ?? 0) + a) | 0;
  state[1] = ((state[1] ?? 0) + b) | 0;
  state[2] = ((state[2] ?? 0) + c) | 0;
  state[3] = ((state[3] ?? 0) + d) | 0;
}

/** The hash function of one file system. */
export class DirectoryHash {
  /** The hash that {@link of} has computed last: major and minor part, unsigned. */
  major = 0;
  minor = 0;
  private readonly start: Int32Array;
  private readonly state = new Int32Array(4);
  private readonly input = new Int32Array(8);

  /** @param seed s_hash_seed, 16 bytes; all zero means MD4's own start values */
  constructor(seed: Uint8Array) {
    const view = new DataView(seed.buffer, seed.byteOffset, 16);
    const given = [0, 4, 8, 12].map((at) => view.getInt32(at, true));
    this.start = Int32Array.from(
      given.some((value) => value !== 0) ? given : [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476],
    );
  }

  /** Hash the name of `length` bytes at `from`; the result is in {@link major} and {@link minor}. */
  of(bytes: Uint8Array, from: number, length: number): void {
    const { state, input } = this;
    state.set(this.start);
    for (let done = 0; done < length; done += 32) {
      words(bytes, from + done, length - done, input);
      mix(state, input);
    }
    const major = ((state[1] ?? 0) & ~1) >>> 0;
    this.major = major === END ? END - 2 : major;
    this.minor = (state[2] ?? 0) >>> 0;
  }
}
