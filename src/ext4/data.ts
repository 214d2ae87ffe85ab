/**
 * File contents on their way to the disk: pieces at ascending offsets become blocks, and aligned
 * 64 KiB windows that are all zero, or that nothing was written to, become holes.
 */
import { VmsanError } from "../model/errors.ts";
import { BLOCK_SIZE, MAX_EXTENT_BLOCKS } from "./constants.ts";
import { appendExtent } from "./extent.ts";
import { WINDOW_SIZE, type BlockAppender } from "./image-file.ts";

/** Where a file's content lies: see Extents. Shared by files without any blocks. */
const NO_EXTENTS: number[] = [];
const ZEROS = Buffer.alloc(WINDOW_SIZE);

/** Logical blocks have 32 bits. */
const MAX_FILE_BYTES = (2 ** 32 - 1) * BLOCK_SIZE;

/** The error for a file that ext4 cannot hold, be it all holes. */
function tooLarge(size: number): VmsanError {
  return new VmsanError({
    code: "ERR_DISK_FILE_SIZE",
    message: `Cannot store a file of ${size} bytes`,
    why: `Files on ext4 have at most ${MAX_FILE_BYTES} bytes.`,
    fix: "Use another image, or make the (sparse) file in it smaller.",
  });
}

/** Writes one file after the other. */
export class DataWriter {
  /** Extents given back by {@link release}, as pairs of first block and count. */
  readonly freed: number[] = [];

  private readonly blocks: BlockAppender;
  private extents: number[] = NO_EXTENTS;
  private size = 0;
  /** Number of the open window, −1 for none; bytes of it that are defined; where it is. */
  private window = -1;
  private filled = 0;
  private bytes: Buffer = ZEROS;
  private at = 0;

  constructor(blocks: BlockAppender) {
    this.blocks = blocks;
  }

  /** Start a file of `size` bytes. Throws ERR_DISK_FILE_SIZE beyond what ext4 can map. */
  begin(size: number): void {
    if (size > MAX_FILE_BYTES) throw tooLarge(size);
    this.size = size;
    this.extents = NO_EXTENTS;
    this.window = -1;
  }

  /**
   * Give content; offsets ascend, pieces do not overlap and stay inside the size.
   * @param offset in the file
   * @param chunk `chunk[from … to−1]` is copied; it may be reused afterwards
   */
  write(offset: number, chunk: Uint8Array, from: number, to: number): void {
    let source = from;
    let target = offset;
    while (source < to) {
      const number = Math.floor(target / WINDOW_SIZE);
      if (number !== this.window) this.openWindow(number);
      const inside = target - number * WINDOW_SIZE;
      if (inside > this.filled) this.bytes.fill(0, this.at + this.filled, this.at + inside);
      const count = Math.min(to - source, WINDOW_SIZE - inside);
      this.bytes.set(chunk.subarray(source, source + count), this.at + inside);
      this.filled = inside + count;
      source += count;
      target += count;
    }
  }

  /** Finish the file. @returns its extents */
  end(): number[] {
    this.closeWindow();
    this.window = -1;
    return this.extents;
  }

  /** Give back the blocks of content that turned out not to be needed. */
  release(extents: readonly number[]): void {
    for (let i = 0; i < extents.length; i += 3) {
      this.freed.push(extents[i + 1] ?? 0, extents[i + 2] ?? 0);
    }
  }

  private openWindow(number: number): void {
    this.closeWindow();
    this.window = number;
    this.filled = 0;
    ({ bytes: this.bytes, at: this.at } = this.blocks.window());
  }

  private closeWindow(): void {
    if (this.window < 0) return;
    const { bytes, at, filled } = this;
    // Most content does not begin with a zero byte: one comparison settles it.
    if (bytes[at] === 0 && bytes.compare(ZEROS, 0, filled, at, at + filled) === 0) return;
    const length = Math.min(WINDOW_SIZE, this.size - this.window * WINDOW_SIZE);
    const blocks = Math.ceil(length / BLOCK_SIZE);
    bytes.fill(0, at + filled, at + blocks * BLOCK_SIZE);
    const physical = this.blocks.commit(blocks);
    if (this.extents === NO_EXTENTS) this.extents = [];
    const logical = this.window * (WINDOW_SIZE / BLOCK_SIZE);
    appendExtent(this.extents, logical, physical, blocks, MAX_EXTENT_BLOCKS);
  }
}
