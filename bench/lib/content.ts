/** Content of files that are made for measurements. */

/** Content that compresses about three to one, as programs do. */
export function content(bytes: number, seed: number): Buffer {
  const data = Buffer.allocUnsafe(bytes);
  let state = seed + 1;
  for (let at = 0; at < bytes; at++) {
    if ((at & 1023) === 0) state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    data[at] = at % 4 === 0 ? state & 0xff : (at >> 3) & 0x3f;
  }
  return data;
}
